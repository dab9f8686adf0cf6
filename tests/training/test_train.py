"""Training end to end on a simulated market: ticks in, a bundle out that the daemon runs to the same figures."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from daemon.boundaries import resolve_rules
from daemon.cli import features as features_command
from daemon.cli import train as train_command
from daemon.core.features import BASES
from daemon.core.pipeline import Pipeline, PipelineOptions
from daemon.dev.market import WALK
from daemon.errors import SettingsError, TickFileError
from daemon.model.bundle import Bundle
from daemon.model.selftest import self_test
from daemon.training import Progress, TrainingOptions, train
from daemon.training.collect import LIMITS
from daemon.training.scales import in_units
from daemon.training.scores import skill
from tests.ticks import record
from tests.training.made_ticks import order_flow, order_flow_mean, random_walk
from tests.training.market_ticks import market_ticks

pytestmark = pytest.mark.tensorflow

HORIZONS = (1, 10)
SMALL = TrainingOptions(horizons=HORIZONS, units=8, layers=2, epochs=2, columns=("return", "imbalance", "signed_size"))


@pytest.fixture(scope="module", autouse=True)
def loops():
    """Networks in loops: to unroll one takes several times as long as all that a test trains."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("daemon.training.network.UNROLLED_TICKS_MAX", 0)
        yield


@pytest.fixture(scope="module")
def ticks() -> list[dict]:
    return market_ticks(16_000)


@pytest.fixture(scope="module", params=[{}, {"mode": "window", "steps": 8}], ids=["carried", "window"])
def trained(request, ticks, tmp_path_factory):
    """One run in each mode that has time to learn, with all it told its listener."""
    told: list[Progress] = []
    columns = (*SMALL.columns, "ema:20:signed_size", "ema:20:imbalance")
    options = replace(SMALL, units=16, epochs=8, columns=columns, **request.param)
    report = train(ticks, options, tmp_path_factory.mktemp("training") / "bundle", told.append)
    return report, told


def test_order_flow_is_learned_and_the_walk_shows_no_skill(trained):
    report, _ = trained
    flow = {name: skills for name, skills in report.skill_by_instrument.items() if name != WALK}
    assert all(skills[1] > 0.05 for skills in flow.values())
    # the market's own mean would reach about 0.28; what can be seen of it allows for about half
    assert all(skill < 0.3 for skills in flow.values() for skill in skills)
    assert all(skill < 0.01 for skill in report.skill_by_instrument[WALK])
    assert report.skill[1] == pytest.approx(np.mean([skills[1] for skills in report.skill_by_instrument.values()]))


def test_the_daemon_s_pipeline_scores_what_the_report_says(trained, ticks):
    report, _ = trained
    bundle = Bundle.load(report.bundle)
    assert bundle.id == report.bundle_id
    pipeline = Pipeline(bundle.spec, self_test(bundle, "numpy"), resolve_rules(()), PipelineOptions(LIMITS))
    pipeline.assign(0)
    forecasts = defaultdict(list)
    records = [record(tick, offset) for offset, tick in enumerate(ticks)]
    for begin in range(0, len(records), 500):
        for message in pipeline.advance(records[begin : begin + 500]).forecasts:
            payload = json.loads(message.value)
            forecasts[payload["instrument"]].append(payload)
    cut = sorted(tick["ts"] for tick in ticks)[int(len(ticks) * 0.7)]
    for name, skills in report.skill_by_instrument.items():
        assert [skill_of(forecasts[name], cut, column) for column in range(2)] == pytest.approx(skills, abs=1e-3)


def skill_of(forecasts: list[dict], cut: int, column: int) -> float:
    errors = moves = 0.0
    horizon = HORIZONS[column]
    for now, later in zip(forecasts, forecasts[horizon:], strict=False):
        if now["ts"] >= cut and now["session"] == later["session"]:
            errors += (np.log(later["price"]) - np.log(now["mean"][column])) ** 2
            moves += (np.log(later["price"]) - np.log(now["price"])) ** 2
    return 1 - errors / moves


def test_the_bundle_knows_its_mode_and_how_wrong_it_is(trained, request):
    manifest = Bundle.load(trained[0].bundle).manifest
    windowed = "window" in request.node.name
    assert (manifest.mode, manifest.steps) == (("window", 8) if windowed else ("carried", 1))
    assert manifest.validation_variance > 0
    assert [output.horizon for output in manifest.outputs] == list(HORIZONS)
    for output in manifest.outputs:
        quantiles = dict(output.residual_quantiles)
        assert quantiles[0.05] < 0 < quantiles[0.95]
        assert 0.3 < output.residual_variance < 2  # in units of the root mean square of the targets
    assert manifest.trained_on["ticks"] == trained[0].parts


def test_the_listener_hears_of_reading_every_epoch_and_judging(trained):
    report, told = trained
    assert {progress.stage for progress in told} == {"reading", "training", "judging"}
    epochs = [progress for progress in told if progress.stage == "training"]
    assert [progress.epoch for progress in epochs] == list(range(1, report.epochs + 1))
    assert all(np.isfinite([progress.loss, progress.skill, progress.seconds_left]).all() for progress in epochs)
    best = max(epochs, key=lambda progress: progress.skill)
    assert report.best_epoch == best.epoch


def poisoned(ticks, share):
    """Replace what follows a share of the ticks by nonsense; some of it the daemon refuses."""
    random = np.random.default_rng(7)
    found = list(ticks)
    for number in range(int(len(ticks) * share), len(ticks)):
        tick = dict(ticks[number])
        for key in ("price", "bid", "ask", "size", "bid_size", "ask_size"):
            if key in tick:
                tick[key] = float(random.choice([-1.0, 1e-9, 3.0, 1e6])) * (1 + random.random())
        found[number] = tick
    return found


def test_nonsense_in_the_test_part_changes_no_weight_no_scale_and_no_choice(ticks, tmp_path):
    ticks = ticks[:4000]
    options = replace(SMALL, epochs=3)
    first = train(ticks, options, tmp_path / "first")
    other = train(poisoned(ticks, 0.7), options, tmp_path / "poisoned")
    assert other.refused
    assert other.skill != first.skill
    assert (other.bundle_id, other.best_epoch, other.epochs) == (first.bundle_id, first.best_epoch, first.epochs)
    one, two = (Bundle.load(tmp_path / name).manifest for name in ("first", "poisoned"))
    assert (one.columns, one.outputs, one.volatility_prior) == (two.columns, two.outputs, two.volatility_prior)
    earlier = train(poisoned(ticks, 0.69), options, tmp_path / "earlier")
    assert earlier.bundle_id != first.bundle_id  # the poison does work


def test_the_same_seed_gives_the_same_bundle_and_another_does_not(ticks, tmp_path):
    ticks = ticks[:4000]
    first = train(ticks, SMALL, tmp_path / "first")
    assert train(ticks, SMALL, tmp_path / "again").bundle_id == first.bundle_id
    assert train(ticks, replace(SMALL, seed=1), tmp_path / "seed").bundle_id != first.bundle_id


@pytest.mark.parametrize(
    ("options", "of"),
    [
        ({"cell": "gru", "dropout": 0.2}, ["mean", "mean"]),
        ({"loss": "gaussian"}, ["mean", "mean", "log_variance", "log_variance"]),
        ({"loss": "quantiles"}, ["mean", "mean", 0.05, 0.05, 0.95, 0.95]),
    ],
)
def test_cells_and_losses_convert_and_say_what_each_column_is(ticks, tmp_path, options, of):
    report = train(ticks[:8000], replace(SMALL, **options, epochs=3), tmp_path / "bundle")
    outputs = Bundle.load(tmp_path / "bundle").manifest.outputs
    assert [output.of for output in outputs] == of
    assert [output.horizon for output in outputs] == list(HORIZONS) * (len(of) // 2)
    assert report.skill[1] > 0


def test_log_variance_and_quantiles_say_how_errors_are_spread(tmp_path):
    walk = random_walk(12_000)  # steady, so that what is true of the training part stays true
    found = {}
    for loss in ("gaussian", "quantiles"):
        kept = []
        options = replace(SMALL, loss=loss, epochs=3, columns=("return", "wait"))
        train(walk, options, tmp_path / loss, keep=kept.append)
        (one,), (y,) = kept[0].judged.series, kept[0].judged.y
        rows = slice(one.split.test.begin, one.split.test.end)
        truth = in_units(one.split.test.target, kept[0].outputs, one.volatility[rows])
        known = np.isfinite(truth).all(axis=1)
        found[loss] = truth[known], y[rows][known]
    truth, y = found["gaussian"]
    inside = np.abs(truth - y[:, :2]) < 1.96 * np.exp(y[:, 2:] / 2)
    assert inside.mean(axis=0) == pytest.approx([0.95, 0.95], abs=0.03)
    truth, y = found["quantiles"]
    assert (truth < y[:, 2:4]).mean(axis=0) == pytest.approx([0.05, 0.05], abs=0.03)
    assert (truth > y[:, 4:]).mean(axis=0) == pytest.approx([0.05, 0.05], abs=0.03)


def test_folds_walk_forward_and_the_last_one_is_kept(ticks, tmp_path):
    kept = []
    report = train(ticks[:6000], replace(SMALL, folds=2, epochs=1), tmp_path / "bundle", keep=kept.append)
    assert len(report.folds) == 2
    assert report.folds[0].end <= report.folds[1].begin
    assert report.folds[1].skill == report.skill
    assert report.parts["test"] == report.folds[1].ticks == pytest.approx(900, abs=1)
    assert report.parts["train"] + report.parts["validation"] == pytest.approx(5100, abs=1)


def test_a_model_of_windows_learns_from_the_ticks_before_the_last(tmp_path):
    ticks, known = order_flow(8000)
    options = replace(
        SMALL, horizons=(10,), mode="window", steps=10, layers=1, epochs=4, columns=("return", "signed_size")
    )
    kept = []
    report = train(ticks, options, tmp_path / "bundle", keep=kept.append)
    part = kept[0].splits[0].test
    best = skill(part.target, order_flow_mean(known, 10)[part.begin : part.end, None])[0]
    assert report.skill[0] > 0.6 * best  # a linear fit on all that ten ticks show gets 0.78 of it
    assert report.skill_reset_every_tick[0] < 0.4 * best


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 20}, "steps = 20 needs mode = window"),
        ({"mode": "window", "steps": 1}, "steps = 1: give a whole number from 2 to 1024"),
        ({"mode": "window", "steps": 2000}, "steps = 2000: give a whole number from 2 to 1024"),
        ({"mode": "window", "steps": 500, "columns": ("return",) * 64}, "steps = 500: .* from 2 to 256"),
        ({"mode": "rolling"}, "mode = rolling: give one of carried, window"),
    ],
)
def test_windows_that_cannot_be_are_refused_with_what_can(options, message):
    with pytest.raises(SettingsError, match=message):
        replace(SMALL, **options)


def interrupt_at(epoch: int):
    def listen(progress: Progress) -> None:
        if progress.epoch >= epoch and progress.stage != "judging":
            raise KeyboardInterrupt

    return listen


def test_ctrl_c_keeps_the_best_so_far(ticks, tmp_path):
    report = train(ticks[:4000], replace(SMALL, epochs=50), tmp_path / "bundle", interrupt_at(2))
    assert (report.ended_by, report.epochs) == ("interrupt", 2)
    assert Bundle.load(tmp_path / "bundle").id == report.bundle_id


def test_ctrl_c_before_there_is_anything_to_keep_writes_nothing(ticks, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(ticks[:4000], SMALL, tmp_path / "bundle", interrupt_at(0))
    assert list(tmp_path.iterdir()) == []


def test_fitting_ends_when_its_time_is_up(ticks, tmp_path):
    report = train(ticks[:4000], replace(SMALL, epochs=1000, minutes=1e-6), tmp_path / "bundle")
    assert (report.ended_by, report.epochs) == ("time", 1)


def test_an_existing_bundle_is_replaced_only_by_force(ticks, tmp_path):
    out = tmp_path / "bundle"
    train(ticks[:4000], replace(SMALL, epochs=1), out)
    before = Bundle.load(out).id
    with pytest.raises(SettingsError, match="exists; give another --out, or --force"):
        train(ticks[:4000], replace(SMALL, epochs=1, seed=5), out)
    assert Bundle.load(out).id == before
    report = train(ticks[:4000], replace(SMALL, epochs=1, seed=5, force=True), out)
    assert before != Bundle.load(out).id == report.bundle_id


def test_refused_data_and_a_missing_folder_write_nothing(ticks, tmp_path):
    with pytest.raises(TickFileError):
        train(ticks[:50], SMALL, tmp_path / "bundle")
    with pytest.raises(SettingsError, match="parent folder does not exist"):
        train(ticks[:4000], SMALL, tmp_path / "absent" / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_without_tensorflow_the_extra_is_named_before_ticks_are_read(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(SettingsError, match=r"pip install 'tickcast\[tensorflow\]'"):
        train(iter(()), SMALL, tmp_path / "bundle")


def run(command, *arguments: str):
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, arguments)


def test_the_command_reads_files_and_reports_as_a_table_or_as_json(ticks, tmp_path):
    path = tmp_path / "ticks.jsonl"
    path.write_text("".join(json.dumps(tick) + "\n" for tick in ticks[:4000]))
    options = [
        "--out",
        str(tmp_path / "bundle"),
        "--horizons",
        "1,10",
        "--units",
        "8",
        "--layers",
        "1",
        "--epochs",
        "1",
    ]
    shown = run(train_command.train, str(path), *options)
    assert shown.exit_code == 0, shown.output
    assert "FLOW1" in shown.stdout
    assert "epoch 1: loss" in shown.stderr
    printed = run(train_command.train, str(path), *options, "--force", "--json")
    report = json.loads(printed.stdout)
    assert report["bundle_id"] == Bundle.load(tmp_path / "bundle").id
    assert report["horizons"] == [1, 10]
    assert set(report["skill_by_instrument"]) == {"FLOW1", "FLOW2", WALK}


def test_options_come_from_a_file_and_flags_go_before_it(ticks, tmp_path):
    path, options = tmp_path / "ticks.jsonl", tmp_path / "options.toml"
    path.write_text("".join(json.dumps(tick) + "\n" for tick in ticks[:3000]))
    options.write_text('horizons = [1, 10]\nunits = 8\nlayers = 1\nepochs = 5\ncell = "gru"\n')
    arguments = ["--out", str(tmp_path / "bundle"), "--options", str(options), "--epochs", "1", "--json"]
    found = run(train_command.train, str(path), *arguments)
    assert found.exit_code == 0, found.output
    report = json.loads(found.stdout)
    assert (report["horizons"], report["epochs"]) == ([1, 10], 1)


def test_the_mode_and_its_steps_come_from_the_file_or_from_flags(ticks, tmp_path):
    path, options = tmp_path / "ticks.jsonl", tmp_path / "options.toml"
    path.write_text("".join(json.dumps(tick) + "\n" for tick in ticks[:3000]))
    options.write_text('horizons = [1]\nunits = 4\nlayers = 1\nepochs = 1\nmode = "window"\nsteps = 3\n')
    arguments = [str(path), "--out", str(tmp_path / "bundle"), "--options", str(options)]
    found = run(train_command.train, *arguments, "--steps", "5")
    assert found.exit_code == 0, found.output
    manifest = Bundle.load(tmp_path / "bundle").manifest
    assert (manifest.mode, manifest.steps) == ("window", 5)
    refused = run(train_command.train, *arguments, "--mode", "carried")
    assert "steps = 3 needs mode = window" in str(refused.exception)
    options.write_text("steps = 3.5\n")
    refused = run(train_command.train, *arguments)
    assert "steps = 3.5: give something like 20" in str(refused.exception)


def test_files_and_a_topic_are_one_or_the_other(tmp_path):
    for arguments in ((), ("x.csv", "--topic", "ticks")):
        found = run(train_command.train, *arguments, "--out", str(tmp_path / "b"))
        assert isinstance(found.exception, SettingsError)
        assert "either tick files or --topic" in str(found.exception)


def test_horizons_that_are_no_numbers_are_refused(tmp_path):
    result = run(train_command.train, "x.csv", "--out", str(tmp_path / "b"), "--horizons", "1,x")
    assert isinstance(result.exception, SettingsError)


def test_features_lists_every_built_in_with_its_meaning():
    listed = json.loads(run(features_command.features, "--json").stdout)
    assert set(listed["features"]) == {*BASES, "field:NAME"}
    assert all(listed["features"].values())
    text = run(features_command.features).stdout
    assert all(name in text for name in [*listed["features"], *listed["transforms"]])
