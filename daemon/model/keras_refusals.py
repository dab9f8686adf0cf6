"""Why layers of Keras cannot stream, by class name; free of Keras, so that documents can be written from it."""

from __future__ import annotations

_TIME = "it mixes ticks across time"
_ATTENTION = "it attends over time, and a tick alone has no other times to look at"
#: By class name.
REFUSED: dict[str, str] = {
    "Bidirectional": "it reads the sequence backwards too, from a future that has not happened",
    "Lambda": "it runs code from the file",
    "Masking": "it skips ticks by their values; leave such ticks out of the topic",
    "Embedding": "it takes category numbers, and features are real numbers",
    **dict.fromkeys(("Attention", "AdditiveAttention", "MultiHeadAttention", "GroupQueryAttention"), _ATTENTION),
    **dict.fromkeys(("RepeatVector", "Reshape", "Permute", "Cropping1D", "ZeroPadding1D", "UpSampling1D"), _TIME),
}
#: By a part of the class name.
REFUSED_PARTS: dict[str, str] = {
    "Conv": "it convolves over time, and a tick alone has no window",
    "Pooling": "it pools over time",
}
#: Where they stand on values that still have their time.
REFUSED_OVER_TIME: dict[str, str] = {"Flatten": _TIME}


def reason_against(kind: str, over_time: bool) -> str | None:
    """Return why a layer of this class cannot stream, None where nothing speaks against it."""
    if kind in REFUSED:
        return REFUSED[kind]
    if over_time and kind in REFUSED_OVER_TIME:
        return REFUSED_OVER_TIME[kind]
    return next((reason for part, reason in REFUSED_PARTS.items() if part in kind), None)
