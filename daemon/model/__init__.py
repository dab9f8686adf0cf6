"""Models: the bundle on disk, conversion from Keras, the steps that run it, and the self-test at start.

Serving needs numpy only. `keras` is imported by the modules named after it, `tensorflow` by `tensorflow_step`; they
are loaded when a conversion, or a bundle with layers that numpy lacks, asks for them.
"""

import os

# Before any of them imports Keras: TensorFlow's notices at start would bury our one line.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
