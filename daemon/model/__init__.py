"""Models: the bundle on disk, conversion from Keras, the steps that run it, and the self-test at start.

Serving needs numpy only. `keras` is imported by `keras_model` and `tensorflow` by `tensorflow_step`; both are loaded
when a conversion, or a bundle whose layers numpy lacks, asks for them.
"""
