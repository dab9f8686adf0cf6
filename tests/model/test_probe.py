"""The probe: it finds the state that leaks from request to request, and can fail on the converted step too."""

from __future__ import annotations

import itertools
import json
import math
import sys
import threading

import numpy as np
import pytest
from typer.testing import CliRunner

from daemon.cli import main
from daemon.errors import BundleError
from daemon.model import probe as probing
from daemon.model.probe import INPUTS_LEAST, THREADS, Refused, converted_step, probe

pytestmark = pytest.mark.tensorflow

TIME, WIDTH, REPEATS = 5, 2, 6
VARIANTS = ["as_is", "reset_unlocked", "reset", "converted"]
TESTS = ["repeat", "between", "threads"]
KEYS = {
    "variance", "variance_first_5", "leak", "leaks", "leak_allowed", "tests", "stopped_early", "inputs", "speed",
    "memory_growth_mb", "error", "verdict", "window", "stateful_layers",
}  # fmt: skip


def built(*stack, batch=1, time=TIME):
    import keras

    from tests.model.models import randomised

    return randomised(keras.Sequential([keras.Input(batch_shape=(batch, time, WIDTH)), *stack], name="tiny"))


def asked(model, **options):
    """Probe with the fewest repeats and no end of time."""
    return probe(model, **{"repeats": 2, "budget_seconds": math.inf} | options)


@pytest.fixture(scope="module")
def stateful(layers):
    return built(layers.LSTM(4, stateful=True), layers.Dense(1))


@pytest.fixture(scope="module")
def found(stateful):
    return asked(stateful, repeats=REPEATS)


class LeakyStep:
    """A step that adds a little of the answer before to each answer: what must never be."""

    def __init__(self, step):
        self._step = step
        self._last = 0.0
        self.n_features, self.initial_state = step.n_features, step.initial_state

    def step(self, x, state):
        y, after = self._step.step(x, state)
        y = y + np.float32(0.01 * self._last)
        self._last = float(y[0, 0])
        return y, after


# --- verdicts ---------------------------------------------------------------------------------------------------------


def test_stateful_model_leaks_as_it_is_in_every_test(found):
    assert len(found.stateful_layers) == 1
    assert found.as_is.leaks
    assert all(found.as_is.trials[test].leak > 1e-3 for test in TESTS)


def test_reset_behind_a_lock_does_not_leak(found):
    assert not found.reset.leaks
    # Without a lock it may leak or not; alone it does not.
    assert not any(found.reset_unlocked.trials[test].leak > 1e-6 for test in ("repeat", "between"))


def test_converted_step_is_exact_in_every_test(found):
    assert [found.converted.trials[test].leak for test in TESTS] == [0.0, 0.0, 0.0]
    assert not found.converted.leaks


def test_variance_shrinks_with_repeats_while_the_leak_stays(found):
    assert 0 < found.as_is.variance < found.as_is.variance_first
    assert found.reset.variance == found.converted.variance == 0


@pytest.mark.parametrize("kind", ["sequential", "functional", "stacked cells", "time distributed beside it"])
def test_nested_recurrent_layers_are_reset_too(layers, kind):
    import keras

    if kind == "sequential":
        inner = [keras.Sequential([keras.Sequential([layers.LSTM(4, stateful=True)])])]
    elif kind == "functional":
        x = keras.Input(batch_shape=(1, TIME, WIDTH))
        inner = [keras.Model(x, layers.GRU(4, stateful=True)(x))]
    elif kind == "stacked cells":  # Keras' own reset_state fails on these
        inner = [layers.RNN([layers.LSTMCell(4), layers.GRUCell(3)], stateful=True)]
    else:
        inner = [layers.TimeDistributed(layers.Dense(3)), layers.SimpleRNN(4, stateful=True)]
    report = asked(built(*inner, layers.Dense(1)))
    assert report.as_is.leaks
    assert not report.reset.leaks
    assert report.converted.leak == 0


def test_model_without_state_does_not_leak(layers):
    report = asked(built(layers.LSTM(4), layers.Dense(1), batch=None, time=None))
    assert report.stateful_layers == ()
    assert report.window == "each request is a window of shape (10, 2)"
    assert not any(variant.leaks for variant in report.variants.values())


def test_welded_batch_is_filled_with_copies_and_said_so(layers):
    report = asked(built(layers.LSTM(4, stateful=True, return_sequences=True), layers.Dense(1), batch=3))
    assert "a batch of 3 is welded in" in report.window
    assert report.as_is.leaks
    assert not report.reset.leaks
    assert report.converted.leak == 0


def test_step_of_tensorflow_is_exact_too(layers):
    report = asked(built(layers.LSTM(4, stateful=True, return_sequences=True), layers.LeakyReLU(), layers.Dense(1)))
    assert [report.converted.trials[test].leak for test in TESTS] == [0.0, 0.0, 0.0]


def test_planted_leak_of_a_step_is_found_in_every_test(stateful):
    report = asked(stateful, step=LeakyStep(converted_step(stateful)))
    assert all(report.converted.trials[test].leak > 0 for test in TESTS)
    assert report.converted.leaks


def test_planted_leak_between_threads_alone_is_found(stateful):
    class Shared(LeakyStep):
        """Keeps the state of the request before, but only for a thread that is not the first."""

        def __init__(self, step):
            super().__init__(step)
            self._home, self._state = threading.get_ident(), step.initial_state[np.newaxis]

        def step(self, x, state):
            if threading.get_ident() == self._home:
                return self._step.step(x, state)
            y, self._state = self._step.step(x, self._state)
            return y, self._state

    report = asked(stateful, step=Shared(converted_step(stateful)))
    assert [report.converted.trials[test].leak > 0 for test in TESTS] == [False, False, True]


def test_answers_that_are_not_finite_count_as_a_leak(stateful):
    class Bursting(LeakyStep):
        """Answers NaN once it has answered the fresh ones."""

        count = 0

        def step(self, x, state):
            self.count += 1
            y, after = self._step.step(x, state)
            return (y if self.count <= 100 * TIME else y * np.nan), after

    report = asked(stateful, step=Bursting(converted_step(stateful)))
    assert report.converted.leak == math.inf
    assert report.converted.leaks


def test_states_of_the_model_are_given_back(stateful):
    stateful.predict_on_batch(np.ones((1, TIME, WIDTH), np.float32))
    before = [np.array(state) for state in stateful.layers[0].states]
    asked(stateful, budget_seconds=0)
    assert any(state.any() for state in before)
    assert all(map(np.array_equal, before, map(np.array, stateful.layers[0].states)))


def test_model_that_cannot_be_converted_says_why_and_is_measured_all_the_same(layers):
    report = asked(built(layers.Bidirectional(layers.LSTM(4, stateful=True)), layers.Dense(1)))
    assert isinstance(report.converted, Refused)
    assert "Bidirectional" in report.converted.reason
    assert report.as_is.leaks
    assert not report.reset.leaks


# --- refusals ---------------------------------------------------------------------------------------------------------


def two_inputs(layers):
    import keras

    left, right = (keras.Input((TIME, WIDTH)) for _ in range(2))
    return keras.Model([left, right], layers.Add()([left, right]))


def failing(layers):
    import tensorflow as tf

    def refuse(x):
        with tf.control_dependencies([tf.debugging.assert_less(x, np.float32(-1e9))]):
            return tf.identity(x)

    return built(layers.Lambda(refuse))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (two_inputs, "has 2 inputs; one is supported"),
        (lambda layers: object(), "object has no input shape"),
        (failing, r"model tiny fails on standard normal inputs of shape \(5, 2\): .*Lambda.*did not hold"),
        (lambda layers: built(layers.Rescaling(np.inf)), "not finite"),
        (lambda layers: built(layers.Rescaling(0.0)), "are all the same"),
    ],
)
def test_models_that_cannot_be_asked_are_refused_in_one_line(layers, make, message):
    with pytest.raises(BundleError, match=message) as caught:
        asked(make(layers))
    assert "\n" not in str(caught.value)


# --- the budget -------------------------------------------------------------------------------------------------------


def counting_clock():
    """Return a clock that goes on by one second whenever somebody looks at it."""
    return itertools.count().__next__


def test_without_budget_every_test_gets_its_first_answers_and_says_that_it_stopped(stateful):
    report = asked(stateful, repeats=REPEATS, budget_seconds=0, clock=counting_clock())
    for name in VARIANTS:
        variant = report.variants[name]
        assert {test: trial.answers for test, trial in variant.trials.items()} == {
            "repeat": 2, "between": 3, "threads": 2,
        }  # fmt: skip
        assert {test: trial.planned for test, trial in variant.trials.items()} == {
            "repeat": REPEATS, "between": REPEATS, "threads": THREADS,
        }  # fmt: skip
        assert list(variant.stopped_early) == TESTS
        assert variant.inputs == INPUTS_LEAST
        assert all(speed.calls == 1 for speed in variant.speed.values())
    assert report.as_is.leaks
    assert not report.reset.leaks


def test_a_larger_budget_buys_more_answers_until_all_are_given(stateful):
    counts = []
    for seconds in (0, 400, 1_000_000):
        report = asked(stateful, budget_seconds=seconds, clock=counting_clock())
        counts.append([report.variants[name].trials["threads"].answers for name in VARIANTS])
        inputs = report.as_is.inputs
    assert counts[0] == [2] * 4
    assert counts[2] == [THREADS] * 4
    assert all(few < some <= many for few, some, many in zip(*counts, strict=True))
    assert inputs == 100


def test_the_listener_hears_of_every_part_in_order(stateful):
    heard = []
    asked(stateful, budget_seconds=0, listen=lambda stage, done: heard.append((stage, done)))
    parts = [f"{name}: {part}" for name in VARIANTS for part in (*TESTS, "speed")]
    assert [stage for stage, _ in heard] == ["fresh answers", *parts]
    shares = [done for _, done in heard]
    assert shares == sorted(shares)
    assert 0 == shares[0] < shares[-1] < 1


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory, layers, stateful):
    folder = tmp_path_factory.mktemp("models")
    stateful.save(folder / "stateful.keras")
    stateful.save(folder / "stateful.h5")
    built(layers.Bidirectional(layers.LSTM(4)), layers.Dense(1)).save(folder / "two_ways.keras")
    two_inputs(layers).save(folder / "two_inputs.keras")
    built(layers.LSTM(4), layers.Lambda(lambda x: x * 2)).save(folder / "lambda.keras")
    (folder / "text.keras").write_text("this is no model")
    return folder


def run(*arguments):
    return CliRunner().invoke(main.app, ["probe", *map(str, arguments), "--repeats", "2", "--budget", "600"])


@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_json_has_one_object_for_each_way_to_serve(files, ending):
    result = run(files / f"stateful.{ending}", "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert list(found) == VARIANTS
    assert all(set(variant) == KEYS for variant in found.values())
    assert all(list(variant["tests"]) == TESTS for variant in found.values())
    assert [list(variant["speed"]) for variant in found.values()] == [["predict", "model(x)"]] * 3 + [["step"]]
    assert found["as_is"]["leak"] > 1e-6
    assert found["as_is"]["verdict"].startswith("leaks: ")
    assert found["converted"]["leak"] == 0
    assert found["converted"]["error"] is None


def test_table_has_one_row_and_one_sentence_for_each_way_to_serve(files):
    result = run(files / "stateful.keras")
    assert result.exit_code == 0
    for title in ("as it is", "reset, no lock", "reset and lock", "converted"):
        assert [line.startswith(title) for line in result.stdout.splitlines()].count(True) == 2
    assert "…" not in result.stdout
    assert "standard deviations; the state of one request reaches the next (seen in A A A, A B A, 50" in result.stdout
    assert "converted: does not leak: every answer is exactly the fresh one" in result.stdout
    assert result.stderr == ""


def test_model_that_cannot_be_converted_is_no_failure(files):
    result = run(files / "two_ways.keras", "--json")
    assert result.exit_code == 0
    converted = json.loads(result.stdout)["converted"]
    assert "Bidirectional" in converted["error"]
    assert converted["leak"] is converted["variance"] is None
    table = run(files / "two_ways.keras")
    assert table.exit_code == 0
    assert "converted: cannot be converted: layer bidirectional" in table.stdout


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_planted_leak_of_the_converted_step_is_exit_1(files, monkeypatch, capsys, options):
    monkeypatch.setattr(probing, "converted_step", lambda model: LeakyStep(converted_step(model)))
    monkeypatch.setattr(sys, "argv", ["tickcast", "probe", str(files / "stateful.keras"), "--repeats", "2", *options])
    assert main._exit_code() == 1
    out, err = capsys.readouterr()
    assert err.startswith("tickcast: error: model tiny: the converted step leaks: ")
    assert err.count("\n") == 1
    if options:
        assert json.loads(out)["converted"]["leaks"] is True


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.keras", "no model file at"),
        ("text.keras", "cannot load"),
        ("model.pkl", "expected a .keras or .h5 model file"),
        ("lambda.keras", "ambda"),
        ("two_inputs.keras", "has 2 inputs; one is supported"),
    ],
)
def test_bad_input_is_one_line(files, monkeypatch, capsys, name, message):
    monkeypatch.setattr(sys, "argv", ["tickcast", "probe", str(files / name)])
    assert main._exit_code() == BundleError.exit_code
    out, err = capsys.readouterr()
    assert message in err
    assert err.count("\n") == 1
    assert out == ""


def test_without_tensorflow_one_line_says_what_to_install(files, monkeypatch, capsys):
    for module in ("keras", "tensorflow"):
        monkeypatch.setitem(sys.modules, module, None)
    for module in [name for name in sys.modules if name.startswith("daemon.model.keras_")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "argv", ["tickcast", "probe", str(files / "stateful.keras")])
    assert main._exit_code() == BundleError.exit_code
    assert "probing needs TensorFlow; install it with `pip install 'tickcast[tensorflow]'`" in capsys.readouterr().err
