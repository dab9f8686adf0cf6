"""Models: the bundle on disk, conversion from Keras, the steps that run it, and the self-test at start.

Serving needs numpy only. `keras` is imported by `keras_graph`, `keras_rules` and `keras_model`, `tensorflow` by
`tensorflow_step`; they are loaded when a conversion, or a bundle with layers that numpy lacks, asks for them.
"""
