"""tickcast: a streaming forecaster daemon for price ticks on Kafka."""

from daemon.compiled import refuse_stale

__version__ = "0.1.0"

refuse_stale()
