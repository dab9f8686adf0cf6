"""Writes the tables of documents that describe the code, between their markers: settings, metrics, layers.

python -m daemon.dev.tables DOCUMENT [--check]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from prometheus_client import CollectorRegistry
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from daemon import errors
from daemon.config import Settings
from daemon.core.forecast import Forecaster
from daemon.core.sessions import Never, Rules
from daemon.core.spec import ModelSpec, Output
from daemon.drift import InputDrift
from daemon.expected import ExpectedInstruments
from daemon.metrics import Metrics, unit_of
from daemon.model.activations import ACTIVATIONS
from daemon.model.keras_ops import CELLS, LAYERS, PASSING
from daemon.model.keras_refusals import REFUSED, REFUSED_OVER_TIME, REFUSED_PARTS
from daemon.skill import LiveScores
from daemon.spread import PredictionSpread
from daemon.watched import Watch
from schemas import Reason, ResetCause

Table = Callable[[], Iterator[str]]


def main() -> int:
    """Write or check the tables of one document."""
    file, *options = sys.argv[1:]
    path = Path(file)
    text = path.read_text("utf-8")
    fresh = filled(text, TABLES[path.name])
    if options == ["--check"]:
        if fresh != text:
            print(
                f"{path}: the tables are not those of the code; run python -m daemon.dev.tables {path}", file=sys.stderr
            )
        return int(fresh != text)
    path.write_text(fresh, "utf-8")
    return 0


def filled(text: str, tables: Mapping[str, Table]) -> str:
    """Return a document with its tables, by marker, written anew."""
    for name, rows in tables.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        head, found, rest = text.partition(begin)
        _, closed, tail = rest.partition(end)
        if not (found and closed):
            raise SystemExit(f"the document has no {begin.strip()} ... {end}")
        text = head + begin + "\n" + "\n".join(rows()) + "\n\n" + end + tail
    return text


def settings_table() -> Iterator[str]:
    """One row per key."""
    yield "| key | default | meaning |"
    yield "|---|---|---|"
    for section, info in Settings.model_fields.items():
        model, many = _section_model(info)
        yield from _section_rows(f"[[{section}]]" if many else f"[{section}]", model)


def _section_rows(head: str, model: type[BaseModel]) -> Iterator[str]:
    for key, info in model.model_fields.items():
        inner, _ = _section_model(info)
        if inner is not None:
            yield from _section_rows(f"{head.rstrip(']')}.{key}]", inner)
        else:
            yield f"| `{head} {key}` | {_default(info)} | {info.description} |"


def _section_model(info: FieldInfo) -> tuple[Any, bool]:
    """Return the settings model inside an annotation, and whether it stands for many."""
    candidates = [info.annotation, *get_args(info.annotation)]
    found = [each for each in candidates if isinstance(each, type) and issubclass(each, BaseModel)]
    return (found[0] if found else None), "tuple" in str(info.annotation)


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    default = info.get_default(call_default_factory=True, validated_data={})
    if default is None or default == {}:
        return "-"
    return f"`{json.dumps(default, default=str)}`"


def metrics_table() -> Iterator[str]:
    """One row per metric, from the registry itself."""
    registry, spec = CollectorRegistry(), ModelSpec("", (), (Output(1),))
    Metrics(
        registry,
        Watch(
            PredictionSpread(1, 1),
            LiveScores(Forecaster(spec, coverage=0.9), absolute=False),
            drift=InputDrift(spec),
            expected=ExpectedInstruments(Rules((), Never())),
        ),
    )
    yield "| metric | type | unit | labels | meaning |"
    yield "|---|---|---|---|---|"
    families = [
        (metric, getattr(collector, "_labelnames", ()) or getattr(metric, "_labelnames", ()))
        for collector in registry._collector_to_names
        for metric in collector.collect()
    ]
    for metric, names in sorted(families, key=lambda pair: pair[0].name):
        name = metric.name + ("_total" if metric.type == "counter" else "")
        labels = ", ".join(f"`{label}`" for label in names)
        yield f"| `{name}` | {metric.type} | {unit_of(name)} | {labels} | {metric.documentation} |"


def reasons_table() -> Iterator[str]:
    """One row per reason of a dead letter."""
    yield "| reason | meaning |"
    yield "|---|---|"
    for reason in Reason:
        yield f"| `{reason}` | {reason.meaning} |"


def resets_table() -> Iterator[str]:
    """One row per cause of a reset."""
    yield "| `reset` | meaning |"
    yield "|---|---|"
    for cause in ResetCause:
        yield f"| `{cause}` | {cause.meaning} |"


def exit_codes_table() -> Iterator[str]:
    """One row per family of errors."""
    families = sorted(
        (each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.TickcastError)),
        key=lambda each: each.exit_code,
    )
    yield "| code | meaning |"
    yield "|---|---|"
    yield "| 0 | Success. |"
    for family in families:
        if family is not errors.TransactionFailed:  # never leaves the loop
            yield f"| {family.exit_code} | {(family.__doc__ or '').splitlines()[0]} |"


def layers_table() -> Iterator[str]:
    """One row per kind of Keras layer and what conversion makes of it."""
    yield "| layers of Keras | what becomes of them |"
    yield "|---|---|"
    cells = [cell.removesuffix("Cell") for cell in CELLS]
    ours = [layer for layer in LAYERS if layer != "Columns"]  # a layer of ours, not of Keras
    yield f"| {_code(cells)}, `RNN` of their cells, one or several | numpy |"
    yield f"| {_code(ours)} | numpy |"
    yield f"| activations {_code(sorted(ACTIVATIONS))} | numpy; `hard_sigmoid_keras2` is that of old files |"
    yield f"| {_code(sorted(PASSING - REFUSED_OVER_TIME.keys()))} | left out: they do nothing at inference |"
    yield "| `TimeDistributed` of these, models inside models | taken apart |"
    yield (
        "| any other layer or activation of Keras; registered layers and cells of your own | TensorFlow, which the "
        "daemon then needs too: if they answer a tick alone as they do inside a sequence |"
    )
    reasons: dict[str, list[str]] = {}
    for kind, reason in REFUSED.items():
        reasons.setdefault(reason, []).append(f"`{kind}`")
    for part, reason in REFUSED_PARTS.items():
        reasons.setdefault(reason, []).append(f"all with `{part}` in their names")
    for kind, reason in REFUSED_OVER_TIME.items():
        reasons.setdefault(reason, []).append(f"`{kind}` over time")
    for reason, kinds in reasons.items():
        yield f"| {', '.join(kinds)} | refused: {reason} |"


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


#: The tables of each document, by its name and their markers.
TABLES: dict[str, dict[str, Table]] = {
    "README.md": {
        "settings": settings_table,
        "metrics": metrics_table,
        "reasons": reasons_table,
        "resets": resets_table,
        "exit-codes": exit_codes_table,
    },
    "bring-your-own-model.md": {"layers": layers_table},
}

if __name__ == "__main__":
    raise SystemExit(main())
