"""`tickcast features`: what a model's input columns can be."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def features(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """List the built-in features and the transforms that can stand before them.

    Example: tickcast features --json
    """
    from daemon.core.features import BASES, FIELD_MEANING, TRANSFORMS

    meanings = {name: meaning for name, (_, meaning) in BASES.items()} | {"field:NAME": FIELD_MEANING}
    if as_json:
        print(json.dumps({"features": meanings, "transforms": TRANSFORMS}, indent=2))
        return
    width = max(map(len, [*meanings, *TRANSFORMS])) + 2
    for name, meaning in meanings.items():
        print(f"{name:{width}}{meaning}")
    print("\nBefore a feature, with a colon, e.g. ema:20:return or log:field:volume:")
    for name, meaning in TRANSFORMS.items():
        print(f"{name:{width}}{meaning}")
