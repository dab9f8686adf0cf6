"""Where real ticks are: beside the checkout, or where TICKCAST_TEST_DATA says. They are not part of the project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

BESIDE = Path(__file__).parents[2] / "shared" / "data"


def real_file(name: str) -> Path:
    """Return the path of a file of real ticks; skip the test where it is absent."""
    path = Path(os.environ.get("TICKCAST_TEST_DATA", BESIDE)) / name
    if not path.is_file():
        pytest.skip(f"no real ticks here: {name} is neither in ../shared/data nor in $TICKCAST_TEST_DATA")
    return path
