"""Fixtures that every test may use."""

from __future__ import annotations

import os

# Before numpy is imported: the number of BLAS threads changes the bits of a product, and two cores are busy anyway.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def kafka() -> Iterator[str]:
    """A real Apache Kafka, one for the whole session; its `host:port`."""
    from tests.kafka_fixture import running_kafka

    with running_kafka() as bootstrap:
        yield bootstrap
