"""Writes the tables of documents that describe the code, between their markers: settings, metrics, layers, phases.

python -m daemon.dev.tables [DOCUMENT...] [--check]     all documents where none is named
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
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
from daemon.phases import TRANSITIONS, Phase
from daemon.skill import LiveScores
from daemon.spread import PredictionSpread
from daemon.watched import Watch
from schemas import Reason, ResetCause

Table = Callable[[], Iterator[str]]

ROOT = Path(__file__).parents[2]


def main(arguments: list[str]) -> int:
    """Write the tables of documents, or with `--check` say which are not those of the code; return the exit code."""
    check = "--check" in arguments
    given = [Path(each).resolve().relative_to(ROOT).as_posix() for each in arguments if each != "--check"]
    stale = [name for name in given or TABLES if is_stale(name)]
    for name in stale:
        if check:
            print(f"{name}: the tables are not those of the code; run python -m daemon.dev.tables", file=sys.stderr)
        else:
            path = ROOT / name
            path.write_text(filled(path.read_text("utf-8"), TABLES[name]), "utf-8")
    return int(check and bool(stale))


def is_stale(name: str) -> bool:
    """Say whether a document, by its path in the repository, has other tables than the code leads to."""
    text = (ROOT / name).read_text("utf-8")
    return filled(text, TABLES[name]) != text


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
    yield "| key | default | values | meaning |"
    yield "|---|---|---|---|"
    for section, info in Settings.model_fields.items():
        model, many = _section_model(info)
        yield from _section_rows(f"[[{section}]]" if many else f"[{section}]", model)


def _section_rows(head: str, model: type[BaseModel]) -> Iterator[str]:
    for key, info in model.model_fields.items():
        inner, _ = _section_model(info)
        if inner is not None:
            yield from _section_rows(f"{head.rstrip(']')}.{key}]", inner)
        else:
            yield f"| `{head} {key}` | {_default(info)} | {_values(info)} | {info.description} |"


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


#: What a value of a type is called; the first that fits.
_KINDS = {int: "whole number", float: "number", Path: "path", Mapping: "table of names"}


def _values(info: FieldInfo) -> str:
    """Say which values are allowed: the words, or the kind of value with its bounds."""
    candidates = [info.annotation, *get_args(info.annotation)]
    words = [word for each in candidates if get_origin(each) is Literal for word in get_args(each) if word]
    if words:
        return ", ".join(f"`{json.dumps(word)}`" for word in words)
    kinds = [name for kind, name in _KINDS.items() if any(kind in (each, get_origin(each)) for each in candidates)]
    bounds = [
        f"{sign} {getattr(bound, name):,}"
        for bound in info.metadata
        for kind, name, sign in ((Ge, "ge", "≥"), (Gt, "gt", ">"), (Le, "le", "≤"), (Lt, "lt", "<"))
        if isinstance(bound, kind)
    ]
    return ", ".join([*(kinds[:1] or ["text"]), *bounds])


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


#: What happens in each phase of a partition's life.
_PHASES = {
    Phase.UNKNOWN: "It belongs to another instance, or to nobody.",
    Phase.ASSIGNED: "Its committed offset is asked for; a transaction that its last owner left open is waited out.",
    Phase.RESTORING: "Its newest checkpoint is read from the state topic, and what follows from it is decided.",
    Phase.CATCHING_UP: "The ticks from the checkpoint to the committed offset are replayed, silently.",
    Phase.RUNNING: "Its ticks are answered, and it stands in transactions.",
}


def phases_table() -> Iterator[str]:
    """One row per phase of a partition."""
    yield "| phase | what happens | may become |"
    yield "|---|---|---|"
    for phase, onward in TRANSITIONS.items():
        yield f"| {phase} | {_PHASES[phase]} | {', '.join(each for each in Phase if each in onward)} |"


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


#: The tables of each document, by its path and their markers.
TABLES: dict[str, dict[str, Table]] = {
    "README.md": {"metrics": metrics_table, "exit-codes": exit_codes_table},
    "docs/bring-your-own-model.md": {"layers": layers_table},
    "docs/how-it-works.md": {"phases": phases_table},
    "docs/messages.md": {"reasons": reasons_table, "resets": resets_table},
    "docs/metrics.md": {"metrics": metrics_table},
    "docs/settings.md": {"settings": settings_table},
}

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
