"""What a person reads of a probe follows from what was found; no Keras needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from daemon.cli.probe_text import report_text
from daemon.model.probe import Measured, Refused, Report, Speed, Trial

FILE = Path("my model.h5")
SPEED = Speed(100, 61.4, 140.3, 14.0)


def measured(leak: float = 0.0, count: int = 50, *, allowed: float = 1e-6, calls: tuple[str, ...]) -> Measured:
    trial = Trial(leak, 50, 50, np.full((count, 1), 0.5))
    trials = dict.fromkeys(("repeat", "between", "threads"), trial)
    return Measured(trials, allowed, dict.fromkeys(calls, SPEED), 100, 0.9, 0.5)


def model(leak: float = 0.0, count: int = 50) -> Measured:
    return measured(leak, count, calls=("predict", "model(x)"))


def step(leak: float = 0.0, count: int = 50) -> Measured:
    return replace(measured(leak, count, allowed=0.0, calls=("window", "tick")), difference=3e-8)


SOUND = Report("gold", (10, 5), 1, False, ("lstm",), model(2.8), model(2.0), model(), step())
REFUSED = Refused("layer x cannot stream: it looks ahead")


def advice(report: Report) -> list[str]:
    head, *lines = report_text(report, FILE).rpartition("\n\n")[2].splitlines()
    assert head == "What to do"
    return [line.strip() for line in lines]


@pytest.mark.parametrize(
    ("report", "begins"),
    [
        (SOUND, ["Convert it: the state becomes an argument", "A spec to fill in:", "The bundle to run:"]),
        (replace(SOUND, as_is=model()), ["Convert it, for speed", "A spec to fill in:", "The bundle to run:"]),
        (replace(SOUND, converted=REFUSED), ["Reset every recurrent layer", "Or let it keep none:"]),
        (replace(SOUND, converted=REFUSED, stateful_layers=()), ["Look for the layer that draws random numbers"]),
        (replace(SOUND, as_is=model(), converted=REFUSED), ["Nothing: it can be served as it is."]),
        (replace(SOUND, converted=step(1e-9)), ["Do not serve the converted step"]),
        (replace(SOUND, converted=step(count=7)), ["Give the tests time:"]),
    ],
)
def test_the_end_says_what_to_do(report: Report, begins: list[str]) -> None:
    lines = advice(report)
    assert len(lines) == len(begins)
    assert all(line.startswith(begin) for line, begin in zip(lines, begins, strict=True))
    assert all("'my model.h5'" in line for line in lines if "tickcast " in line), "a name with a space is quoted"


def test_no_leak_in_too_few_answers_is_not_enough_and_says_how_many() -> None:
    assert step(count=7).verdict == "not enough"
    assert "no leak in the answers that there was time for: A A A 7 of 50" in report_text(
        replace(SOUND, converted=step(count=7)), FILE
    )


def test_one_leaking_answer_is_enough_to_say_so() -> None:
    assert model(2.8, count=2).verdict == "leaks"
    assert step(1e-12, count=2).verdict == "leaks", "the converted step must be exact"


def test_rounding_and_luck_are_called_so() -> None:
    text = report_text(replace(SOUND, reset=model(5e-8), reset_unlocked=model()), FILE)
    assert (
        "(b)  reset and lock  no leak  answers differ by 5e-08 standard deviations at most, which is rounding" in text
    )
    assert "(b0) reset, no lock  no leak  by luck: " in text


def test_answers_that_are_not_finite_have_an_infinite_leak() -> None:
    assert "inf" in report_text(replace(SOUND, as_is=model(float("inf"))), FILE)
