"""The first import of Keras, without the notices that TensorFlow prints whatever its log level is."""

from __future__ import annotations

import os


def import_keras() -> None:
    """Import Keras and what it stands on, with standard error shut meanwhile; failures raise as ever.

    Those about oneDNN come from C++ while the libraries load, whatever TF_CPP_MIN_LOG_LEVEL says (TensorFlow 2.21), so
    only the file descriptor can be shut; those of later calls follow the level. They would bury our one line.

    Raises
    ------
    ImportError : Keras or TensorFlow is missing
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    kept = os.dup(2)
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        import keras  # noqa: F401
    finally:
        os.dup2(kept, 2)
        os.close(kept)
