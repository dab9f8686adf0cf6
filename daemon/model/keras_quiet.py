"""The first import of Keras, without the notices that TensorFlow prints whatever its log level is."""

from __future__ import annotations

import os


def import_keras() -> None:
    """Import Keras and what it stands on, with standard error shut meanwhile; failures raise as ever.

    The notices about oneDNN come from C++ while the libraries load, before any level of TF_CPP_MIN_LOG_LEVEL counts
    (TensorFlow 2.21), so only the file descriptor can be shut. They would bury our one line.

    Raises
    ------
    ImportError : Keras or TensorFlow is missing
    """
    kept = os.dup(2)
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        import keras  # noqa: F401
    finally:
        os.dup2(kept, 2)
        os.close(kept)
