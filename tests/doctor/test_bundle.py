"""Every finding on a bundle: one made case that triggers it, and one close to it that does not. Without TensorFlow."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from daemon.boundaries import resolve_rules
from daemon.cli.doctor import app
from daemon.core.spec import Column, Output
from daemon.doctor.bundle import examine_bundle, state_worth
from daemon.doctor.finding import Report, Skipped
from daemon.doctor.running import Forecasts
from daemon.judging.tape import Tape
from daemon.model.bundle import Bundle, write_bundle
from daemon.model.manifest import Manifest
from daemon.model.ops import Dense
from daemon.model.program import Node, Program
from tests.bundles import tiny_bundle
from tests.doctor.cases import START, Ticks, clear, found, outcome, quotes, returns, with_fields, written

PHI = 0.5
TICKS = quotes(3000, phi=PHI)
#: The deviation of the returns of TICKS, and where training would have ended.
DEVIATION = 1e-4 / np.sqrt(1 - PHI**2)
TRAINED = 2000


def linear_bundle(
    folder: Path, weight: float = PHI, *, column: Column | None = None, trained: bool = False, **manifest
) -> Bundle:
    """Write a bundle that forecasts so many times the last return, which at PHI is the best there is."""
    folder.mkdir(exist_ok=True)
    column = column or Column("return", mean=0.0, std=DEVIATION)
    notes = (
        {"from": "2024-01-02T15:00:00+00:00", "to": "2024-01-02T15:33:19+00:00", "ticks": {"train": TRAINED}}
        if trained
        else {}
    )
    made = Manifest(
        columns=(column,), outputs=(Output(1, scale=DEVIATION),), golden_steps=64, trained_on=notes, **manifest
    )
    program = Program(1, (Node(Dense(np.array([[weight]], np.float32), np.zeros(1, np.float32)), (0,)),))
    inputs = np.random.default_rng(0).standard_normal((64, 1)).astype(np.float32)
    return write_bundle(folder / "bundle", made, program, inputs, inputs * np.float32(weight))


def examined(folder: Path, bundle: Bundle, ticks: Ticks = TICKS) -> Report:
    return examine_bundle(bundle.path, [written(folder, ticks)], resolve_rules(()))


@pytest.fixture(scope="module")
def best(tmp_path_factory):
    folder = tmp_path_factory.mktemp("best")
    return examined(folder, linear_bundle(folder, trained=True, validation_variance=PHI**2))


def test_a_good_bundle_has_no_finding_but_that_it_has_seen_the_ticks(best):
    assert [finding.check.code for finding in best.findings] == ["trained_on_these"]
    assert found(best, "trained_on_these").measured == pytest.approx(2 / 3, abs=1e-3)


def test_a_bundle_that_says_nothing_of_its_training_is_judged_on_all_ticks(tmp_path, best):
    clear(examined(tmp_path, linear_bundle(tmp_path)), "trained_on_these")


def test_ticks_of_another_year_were_not_trained_on(tmp_path):
    earlier = [tick | {"ts": tick["ts"] - 10**9 * 86_400 * 366} for tick in TICKS]
    clear(examined(tmp_path, linear_bundle(tmp_path, trained=True), earlier), "trained_on_these")


def test_a_column_that_stands_still(tmp_path):
    bundle = linear_bundle(tmp_path, column=Column("field:signal"))
    finding = found(examined(tmp_path, bundle, with_fields(TICKS[:600], signal=np.zeros(600))), "other_statistics")
    assert finding.evidence[0].detail == "mean +0, it stands still"


def test_a_step_that_does_not_give_the_golden_answers(tmp_path, best):
    bundle = linear_bundle(tmp_path)
    inputs, outputs = bundle.golden_inputs, bundle.golden_outputs + np.float32(0.01)
    np.savez(bundle.path / "golden.npz", inputs=inputs, outputs=outputs)
    finding = found(examined(tmp_path, bundle), "self_test")
    assert "golden replay differs from Keras" in finding.evidence[0].detail
    clear(best, "self_test")


def test_ticks_without_a_field_that_the_model_reads(tmp_path):
    bundle = linear_bundle(tmp_path, column=Column("field:signal"))
    whole = with_fields(TICKS[:600], signal=returns(600))
    finding = found(examined(tmp_path, bundle, [*TICKS[:5], *whole[5:]]), "dead_letters")
    assert finding.measured == pytest.approx(5 / 600)
    assert finding.evidence[0].detail.startswith("5 missing_field: the model reads fields.signal")
    clear(examined(tmp_path, bundle, whole), "dead_letters")


@pytest.mark.parametrize("column", [Column("return", std=DEVIATION / 10), Column("return", mean=3e-3, std=DEVIATION)])
def test_columns_with_other_statistics_than_the_bundle_s(tmp_path, best, column):
    finding = found(examined(tmp_path, linear_bundle(tmp_path, column=column)), "other_statistics")
    assert finding.severity == "problem"
    assert finding.evidence[0].column == "return"
    clear(best, "other_statistics")


def test_a_shift_within_its_noise_is_no_finding(tmp_path):
    column = Column("field:level")  # a random walk of few steps wanders off its mean, and that says nothing
    wandering = with_fields(TICKS[:600], level=np.repeat(returns(3, 0.0, seed=4) * 1.5, 200))
    clear(examined(tmp_path, linear_bundle(tmp_path, column=column), wandering), "other_statistics")


def test_forecasts_that_hardly_move(tmp_path, best):
    bundle = linear_bundle(tmp_path, PHI / 50, validation_variance=PHI**2)
    assert found(examined(tmp_path, bundle), "collapsed_predictions").severity == "problem"
    clear(best, "collapsed_predictions")
    unknown = linear_bundle(tmp_path / "unknown", PHI / 50)
    assert isinstance(outcome(examined(tmp_path, unknown), "collapsed_predictions"), Skipped)


def test_forecasts_that_are_worse_than_no_change(tmp_path, best):
    finding = found(examined(tmp_path, linear_bundle(tmp_path, -PHI)), "worse_than_naive")
    assert finding.evidence[0].instrument == "A"
    clear(best, "worse_than_naive")
    clear(best, "no_measurable_skill")


def test_on_a_random_walk_there_is_no_skill_and_a_timid_model_is_not_called_worse(tmp_path):
    report = examined(tmp_path, linear_bundle(tmp_path, 0.02), quotes(3000, phi=0.0, seed=2))
    assert found(report, "no_measurable_skill").severity == "note"
    clear(report, "worse_than_naive")


def test_a_horizon_beyond_every_session(tmp_path, best):
    ticks = [tick | {"session": str(number // 20)} for number, tick in enumerate(TICKS[:600])]
    outputs = (Output(1, volatile=True), Output(50, volatile=True))
    bundle = tiny_bundle(tmp_path, columns=(Column("return", "running", std=1e-4),), outputs=outputs)
    assert found(examined(tmp_path, bundle, ticks), "horizon_beyond_session").severity == "problem"
    clear(best, "horizon_beyond_session")


def test_a_scale_that_was_taken_from_all_rows(tmp_path, best):
    level = np.cumsum(returns(3000, 0.0, seed=3))
    ticks = with_fields(TICKS, level=level)
    for rows, judge in ((level, found), (level[:TRAINED], clear)):
        folder = tmp_path / str(len(rows))
        column = Column("field:level", mean=float(rows.mean()), std=float(rows.std()))
        judge(examined(tmp_path, linear_bundle(folder, column=column, trained=True), ticks), "scaler_past_split")
    clear(best, "scaler_past_split")


def forecasts(gain: float, seed: int = 9) -> Forecasts:
    """Return forecasts that explain the next move up to noise."""
    moves = returns(4001, 0.0) * 1e-4
    noise = returns(4001, 0.0, seed) * 1e-4
    price = 100 * np.exp(np.cumsum(moves))
    expected = gain * np.append(moves[1:], 0.0) + 0.1 * noise
    ts = START + np.arange(4001) * 10**9
    mean, unknown = (price * np.exp(expected))[:, None], np.full((4001, 1), np.nan)
    session, quoted = np.zeros(4001, np.intp), np.ones(4001, np.bool_)
    return Forecasts(4001, {"A": Tape("A", (1,), ts, price, session, quoted, mean, unknown, unknown)})


def test_a_state_that_is_carried_for_nothing(tmp_path):
    bundle = linear_bundle(tmp_path)
    assert (
        found([state_worth(bundle, forecasts(0.2), forecasts(0.2, seed=7))], "state_without_worth").severity == "note"
    )
    assert found([state_worth(bundle, forecasts(0.1), forecasts(0.3))], "state_without_worth").severity == "warning"
    clear([state_worth(bundle, forecasts(0.3), forecasts(0.1))], "state_without_worth")


def test_the_state_is_judged_against_a_run_that_forgets_it(tmp_path, best):
    report = examined(tmp_path, tiny_bundle(tmp_path, columns=(Column("return", "running", std=1e-4),)), TICKS[:600])
    assert not isinstance(outcome(report, "state_without_worth"), Skipped)
    assert isinstance(outcome(best, "state_without_worth"), Skipped)  # a dense layer carries nothing


def test_few_ticks_and_a_price_at_rest(tmp_path, best):
    still = [tick | {"bid": 99.0, "ask": 101.0} for tick in quotes(200, name="B")]
    report = examined(tmp_path, linear_bundle(tmp_path), [*TICKS[:600], *still, *quotes(5, name="C")])
    assert [each.instrument for each in found(report, "few_ticks").evidence] == ["C"]
    assert [each.instrument for each in found(report, "constant_price").evidence] == ["B"]
    clear(best, "few_ticks")
    clear(best, "constant_price")


def test_ticks_that_are_all_refused_are_said_to_be(tmp_path):
    below = [tick | {"bid": -1.0, "ask": -0.9} for tick in TICKS[:300]]
    finding = found(examined(tmp_path, linear_bundle(tmp_path), below), "dead_letters")
    assert (finding.severity, finding.measured) == ("problem", 1.0)


def test_the_command_exits_with_1_on_a_problem(tmp_path):
    bundle = linear_bundle(tmp_path, -PHI)
    arguments = ["bundle", str(bundle.path), "--data", str(written(tmp_path, TICKS)), "--json"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 1
    assert json.loads(result.stdout)["findings"][0]["code"] == "worse_than_naive"


def test_another_span_of_training_is_read_from_the_bundle(tmp_path):
    bundle = linear_bundle(tmp_path, trained=True)
    manifest = bundle.manifest.model_copy(update={"trained_on": {"to": "last tuesday", "ticks": "many"}})
    report = examined(tmp_path, bundle)
    assert found(report, "trained_on_these")
    odd = write_bundle(tmp_path / "odd", manifest, bundle.program, bundle.golden_inputs, bundle.golden_outputs)
    report = examined(tmp_path, replace(odd, path=tmp_path / "odd"))
    clear(report, "trained_on_these")
    assert isinstance(outcome(report, "scaler_past_split"), Skipped)
