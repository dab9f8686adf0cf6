"""Run tickcast on a cluster that is slow to read the past from: each read of a restore takes so much longer.

slow_reads.py SECONDS run --config FILE
"""

import sys
import time
from collections.abc import Sequence

from daemon.cli.main import main
from daemon.core.records import Record
from daemon.transport.kafka_reader import KafkaReader

SECONDS = float(sys.argv[1])
RECORDS = 100
read = KafkaReader.read


def slow_read(
    self: KafkaReader, topic: str, partition: int, offset: int, timeout_seconds: float, max_records: int
) -> tuple[Sequence[Record], int]:
    """Read after a pause, and less at a time."""
    time.sleep(SECONDS)
    return read(self, topic, partition, offset, timeout_seconds, min(max_records, RECORDS))  # type: ignore[arg-type]


KafkaReader.read = slow_read  # type: ignore[method-assign]
sys.argv = ["tickcast", *sys.argv[2:]]
main()
