"""What a person reads of a probe: the answer, the evidence for it, the figures beside it, and what to do."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.cli.tables import table

if TYPE_CHECKING:
    from daemon.model.probe import Measured, Report

TITLES = {
    "as_is": "(a)  as it is",
    "reset_unlocked": "(b0) reset, no lock",
    "reset": "(b)  reset and lock",
    "converted": "(c)  converted",
}
TESTS = {"repeat": "A A A", "between": "A B A", "threads": "50 threads"}
#: Why an answer differs, by way.
CAUSES = {
    "as_is": "the state of one request reaches the next",
    "reset_unlocked": "another request runs between the reset of one and its call",
    "reset": "a state is left that no reset of a recurrent layer reaches",
    "converted": "the step keeps a state of its own; please report it",
}


def report_text(report: Report, file: Path) -> str:
    """Return the whole report, at most 100 columns wide where no reason is longer."""
    parts = [_head(report), _verdicts(report), _leaks(report), _costs(report), *_comparison(report)]
    return "\n\n".join([*parts, _advice(report, file)])


def why(name: str, report: Report) -> str:
    """Return the reason of one way's verdict, as half a sentence."""
    from daemon.model.probe import Refused

    way = report.ways[name]
    if isinstance(way, Refused):
        return way.reason
    if way.verdict == "leaks":
        return _cause(name, report)
    if way.verdict == "not enough":
        counts = (f"{TESTS[test]} {trial.count} of {trial.planned}" for test, trial in way.trials.items())
        return f"no leak in the answers that there was time for: {', '.join(counts)}"
    if name == "reset_unlocked" and report.stateful_layers:
        return "by luck: another request can run between the reset of one and its call"
    if way.leak > 0:
        return f"answers differ by {way.leak:.0e} standard deviations at most, which is rounding"
    own = "" if way.difference is None else f"; the model's own {_within(way.difference)}"
    return f"every answer is exactly the fresh one{own}"


def _within(difference: float) -> str:
    return f"within {difference:.0e}" if difference else "to the bit"


def _cause(name: str, report: Report) -> str:
    if name != "converted" and not report.stateful_layers:
        return "no recurrent layer keeps a state, so another layer does, or draws random numbers"
    return CAUSES[name]


def _measured(report: Report) -> Iterator[tuple[str, Measured]]:
    from daemon.model.probe import Measured

    for name, way in report.ways.items():
        if isinstance(way, Measured):
            yield TITLES[name], way


def _head(report: Report) -> str:
    count = len(report.stateful_layers)
    kept = {0: "no layer keeps its state", 1: "1 layer keeps its state"}.get(count, f"{count} layers keep their state")
    drawn = "normal, in the scale of its Normalization" if report.scaled else "standard normal"
    lines = [
        f"{report.model}: does the same input get the same answer?",
        f"Requests of shape {report.shape}, {drawn}. From call to call {kept}"
        + (f": {', '.join(report.stateful_layers)}." if count else "."),
    ]
    if report.rows > 1:
        lines.append(f"A batch of {report.rows} is welded in: each request fills it with copies, and row 1 answers.")
    return "\n".join(lines)


def _verdicts(report: Report) -> str:
    width = max(len(way.verdict) for way in report.ways.values())
    return "\n".join(
        f"{TITLES[name]:<21}{way.verdict:<{width}}  {why(name, report)}" for name, way in report.ways.items()
    )


def _leaks(report: Report) -> str:
    ways = list(_measured(report))
    heads = [f"{test:>{len(test) + 2}}" for test in TESTS.values()]
    rows = [
        [title, *(f"{way.trials[test].leak:>{len(head)}.2g}" for test, head in zip(TESTS, heads, strict=True))]
        for title, way in ways
    ]
    return (
        "Leak: the largest difference to a fresh answer, in standard deviations of the fresh answers to\n"
        f"{ways[0][1].inputs} different inputs. Above 1e-06 it leaks; (c) must be 0.\n"
        + table([" " * 19, *heads], rows)
    )  # fmt: skip


def _costs(report: Report) -> str:
    rows = [row for title, way in _measured(report) for row in _cost_rows(title, way)]
    heads = ("variance of 5", "of all", "call", "p50 ms", "p99 ms", "calls/s", "MB more")
    return "Beside it, and no verdict: variance of the answers to A A A, time of a call, memory.\n" + table(
        [" " * 19, *(head if head == "call" else f"{head:>8}" for head in heads)], rows
    )


def _cost_rows(title: str, way: Measured) -> Iterator[list[str]]:
    shared = [f"{way.variance_first:>13.2g}", f"{way.variance:>8.2g}"]
    memory = "-" if way.memory_growth_mb is None else f"{way.memory_growth_mb:.1f}"
    for call, speed in way.speed.items():
        figures = (f"{speed.p50_ms:>8.2f}", f"{speed.p99_ms:>8.2f}", f"{speed.calls_per_second:>8.0f}")
        yield [title, *shared, call, *figures, f"{memory:>8}"]
        title, shared, memory = "", ["", ""], ""


def _comparison(report: Report) -> Iterator[str]:
    """Say in one line what serving the converted step changes, in the figures that people publish."""
    from daemon.model.probe import Refused

    before, after = report.as_is, report.converted
    if isinstance(after, Refused):
        return
    old, new, locked = before.speed["predict"], after.speed["window"], report.reset.speed["predict"]
    variance = f"variance {before.variance_first:.2g} to {after.variance_first:.2g}, " if before.variance_first else ""
    text = (
        f"From (a) to (c): {variance}a request {old.p50_ms:.3g} ms to {new.p50_ms:.2g} ms, "
        f"{old.calls_per_second:.0f} to {new.calls_per_second:.0f} requests/s."
    )
    if report.stateful_layers:
        text += (
            f"\n(b) does {locked.calls_per_second:.0f} requests/s, however many ask: its lock lets in one at a time."
        )
    yield text


def _advice(report: Report, file: Path) -> str:
    return "What to do\n" + "\n".join(f"  {line}" for line in _steps(report, shlex.quote(str(file))))


def _steps(report: Report, file: str) -> Iterator[str]:
    short = any(way.verdict == "not enough" for way in report.ways.values())
    leaks = report.as_is.verdict == "leaks"
    if short:
        yield f"Give the tests time:   tickcast probe {file} --budget {report.budget_enough}"
    if report.converted.verdict == "leaks":
        yield "Do not serve the converted step, and report this: it must not happen."
    elif report.converted.verdict == "cannot convert":
        if leaks and report.stateful_layers:
            yield "Reset every recurrent layer and call the model behind one lock, as (b) does."
            yield f"Or let it keep none:   tickcast convert {file} --stateless stateless.keras"
        elif leaks:
            yield "Look for the layer that draws random numbers or keeps something from call to call."
        elif not short:
            yield "Nothing: it can be served as it is."
    elif report.converted.verdict == "no leak":
        if leaks:
            yield "Convert it: the state becomes an argument, and no request can find that of another."
        else:
            yield "Convert it, for speed and to serve it tick by tick; nothing was found to mend."
        yield f"A spec to fill in:     tickcast convert {file} --init --spec spec.toml"
        yield f"The bundle to run:     tickcast convert {file} --spec spec.toml --out bundle"
