from collections.abc import Iterator

import pytest

import tests.hypothesis_profile  # noqa: F401
from tests.ticks import dense_scores


@pytest.fixture(scope="module", autouse=True)
def every_forecast_is_scored() -> Iterator[None]:
    """The logs drawn here are short; a sample of every fourth forecast would hardly ever meet its truth."""
    with dense_scores():
        yield
