"""tickcast: a streaming forecaster daemon for price ticks on Kafka."""

__version__ = "0.1.0"
