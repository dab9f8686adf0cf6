"""docs/notebook.ipynb runs from its first cell to its last, and what it shows is what comes out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest

from daemon.dev.notebook import executed
from tests.documents.blocks import ROOT

NOTEBOOK = ROOT / "docs" / "notebook.ipynb"
PROMISE = re.compile(r"(\d+) of (\d+) forecasts equal those of the backtest, byte for byte")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the notebook makes its own folder; what still works there at the end, since a cell failed, is ended."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    yield tmp_path
    for process in psutil.process_iter(["cwd"]):
        if (process.info["cwd"] or "").startswith(str(tmp_path)):
            process.kill()


def printed(notebook: Any) -> str:
    """Return what the code cells wrote to standard output."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return "".join(output.text for output in outputs if output.output_type == "stream")


def test_it_was_run_to_its_end_before_it_was_committed() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1)), "run: python -m daemon.dev.notebook docs/notebook.ipynb"
    assert PROMISE.search(printed(notebook))


@pytest.mark.long
@pytest.mark.kafka
@pytest.mark.tensorflow
def test_the_notebooks_number_is_the_topics_number(folder: Path) -> None:
    """Its cells assert the numbers; here, that they did so for every bar."""
    kept, fresh = printed(nbformat.read(NOTEBOOK, as_version=4)), printed(executed(NOTEBOOK))
    equal, bars = PROMISE.search(fresh).groups()  # type: ignore[union-attr]
    assert equal == bars
    assert int(bars) >= 1000
    assert PROMISE.search(kept)[0] == PROMISE.search(fresh)[0]  # type: ignore[index]
