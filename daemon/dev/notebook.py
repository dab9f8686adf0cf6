"""Runs the notebook of the documents from its first cell to its last, and keeps what it printed.

python -m daemon.dev.notebook docs/notebook.ipynb

It takes less than a minute, with TensorFlow, a Kafka and a daemon of its own. Only what a reader sees is kept: no times
of cells, nothing of standard error.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

#: Keras, a broker and a daemon start inside single cells.
CELL_SECONDS = 300


def main(arguments: list[str]) -> int:
    """Run a notebook, and write it with its outputs."""
    path = Path(arguments[0])
    import_module("nbformat").write(executed(path), path)
    return 0


def executed(path: Path) -> Any:
    """Return the notebook with the outputs of a run; raises the error of the first cell that fails."""
    from nbclient import NotebookClient

    notebook: Any = import_module("nbformat").read(path, as_version=4)
    here = Path(sys.executable).parent  # `tickcast` of this environment, whether or not somebody activated it
    environment = os.environ | {"PATH": f"{here}{os.pathsep}{os.environ['PATH']}"}
    client = NotebookClient(
        notebook, timeout=CELL_SECONDS, kernel_name="python3", record_timing=False, coalesce_streams=True
    )
    client.execute(env=environment)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    notebook.metadata.language_info = {"name": "python"}  # not the version that happened to run it
    return notebook


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
