"""Training: tick files in, a bundle out. Only `network` imports TensorFlow, and only once a run has begun."""

from daemon.training.options import DEFAULT_COLUMNS, Progress, TrainingOptions, TrainingReport
from daemon.training.run import train

__all__ = ["DEFAULT_COLUMNS", "Progress", "TrainingOptions", "TrainingReport", "train"]
