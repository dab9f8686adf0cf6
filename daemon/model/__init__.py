"""Models: the bundle on disk, conversion from Keras, the steps that run it, and the self-test at start.

For users: `convert` makes a bundle of a Keras model and a spec, `Bundle` reads it and forecasts::

    from daemon.model import Bundle, convert

    bundle = convert("gold.h5", "gold.toml", out="bundle")
    forecasts = bundle.predict(frame)

Serving needs numpy only. `keras` is imported by the modules named after it and by `proof`, `tensorflow` by
`tensorflow_step`; they are loaded when a conversion, or a bundle with layers that numpy lacks, asks for them.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from daemon.model.bundle import Bundle
    from daemon.model.conversion import convert
    from daemon.model.spec_file import Spec

__all__ = ["Bundle", "Spec", "convert"]

_HOMES = {"Bundle": "bundle", "Spec": "spec_file", "convert": "conversion"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for: whoever needs one part does not pay for the others."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
