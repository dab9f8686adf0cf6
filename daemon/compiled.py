"""The compiled core: the hot modules as machine code, if `make compile` has been run; the same sources, the same bits.

Python takes a compiled module before its source. So whoever changes a source and forgets to compile would run the old
code and never notice: every start looks.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

#: What a tick passes through one by one; whole arrays are numpy's affair.
MODULES = (
    "instrument",
    "intake",
    "features",
    "intervals",
    "kept_scores",
    "moment",
    "pipeline",
    "records",
    "scores",
    "sessions",
    "table",
)
CORE = Path(__file__).parent / "core"
#: The hashes of the sources that were compiled; where there is none, nothing is compiled.
STAMP = CORE / "compiled.json"


def is_compiled() -> bool:
    """Say whether the hot modules run as machine code."""
    return STAMP.exists()


def refuse_stale() -> None:
    """Refuse machine code that was compiled from other sources than those that lie beside it.

    Raises
    ------
    ImportError : names the remedy
    """
    if is_compiled() and json.loads(STAMP.read_text("utf-8")) != hashes():
        raise ImportError("daemon/core has changed since it was compiled; run `make compile`, or `make uncompile`")


def hashes() -> dict[str, str]:
    """Return the hash of each module's source."""
    return {module: sha256((CORE / f"{module}.py").read_bytes()).hexdigest() for module in MODULES}
