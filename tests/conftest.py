"""Fixtures that every test may use, and the rule that nothing is left out quietly in CI."""

from __future__ import annotations

import os

# Before numpy is imported: the number of BLAS threads changes the bits of a product, and two cores are busy anyway.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

NO_REAL_TICKS = "no real ticks"


@pytest.fixture(scope="session")
def kafka() -> Iterator[str]:
    """A real Apache Kafka, one for the whole session; its `host:port`."""
    from tests.kafka_fixture import running_kafka

    with running_kafka() as bootstrap:
        yield bootstrap


@pytest.fixture(scope="session")
def real_ticks(pytestconfig: pytest.Config) -> Path:
    """The file of real ticks; it lies beside the checkout and is no part of it."""
    directory = os.environ.get("TICKCAST_TEST_DATA") or pytestconfig.rootpath.parent / "shared" / "data"
    file = Path(directory) / "crypto_ticks_2024-08-08.csv.gz"
    if not file.exists():
        pytest.skip(f"{NO_REAL_TICKS} at {file}; set TICKCAST_TEST_DATA to their folder")
    return file


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skipped test is a failed one: a tool that went missing must not look like a success."""
    report = yield
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr)
        if NO_REAL_TICKS not in reason:
            report.outcome = "failed"
            report.longrepr = f"skipped in CI: {reason}"
    return report
