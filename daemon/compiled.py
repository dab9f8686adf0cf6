"""The compiled core: the hot modules as machine code, if `make compile` has been run; the same sources, the same bits.

Python takes a compiled module before its source. So whoever changes a source and forgets to compile would run the old
code and never notice: `refuse_stale` looks at every start.
"""

from __future__ import annotations

import json
from hashlib import sha256
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

#: What a tick passes through, tick by tick; arrays are numpy's affair.
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
#: The hashes of the sources that were compiled.
STAMP = CORE / "compiled.json"


def sources() -> dict[str, str]:
    """Return the hash of each module's source."""
    return {module: sha256((CORE / f"{module}.py").read_bytes()).hexdigest() for module in MODULES}


def is_compiled() -> bool:
    """Say whether the hot modules run as machine code."""
    return STAMP.exists()


def files() -> list[Path]:
    """Return what compiling has left."""
    root, suffix = CORE.parents[1], EXTENSION_SUFFIXES[0]
    made = [CORE / f"{module}{suffix}" for module in MODULES]
    return [path for path in (STAMP, *made, *root.glob("*__mypyc.*")) if path.exists()]


def refuse_stale() -> None:
    """Refuse machine code that was compiled from other sources than those that lie beside it.

    Raises
    ------
    ImportError : names the remedy
    """
    if STAMP.exists() and json.loads(STAMP.read_text("utf-8")) != sources():
        raise ImportError("daemon/core was changed after it was compiled; run `make compile`, or `make uncompile`")
