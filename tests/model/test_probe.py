"""The probe: it finds the state that leaks from request to request, and can fail on the converted step too."""

from __future__ import annotations

import itertools
import json
import math
import re
import signal
import subprocess
import sys
import threading
from importlib import import_module

import numpy as np
import pytest
from typer.testing import CliRunner

from daemon.cli import main
from daemon.cli.probe_text import TITLES
from daemon.errors import BundleError
from daemon.model import probe as probing
from daemon.model.probe import Refused, probe, ways
from daemon.model.probe.trials import INPUTS_LEAST, THREADS, draw_inputs
from daemon.model.probe.ways import converted_step

pytestmark = pytest.mark.tensorflow

TIME, WIDTH, REPEATS = 5, 2, 6
WAYS = ["as_is", "reset_unlocked", "reset", "converted"]
TESTS = ["repeat", "between", "threads"]
KEYS = {
    "variance", "variance_first_5", "leak", "leak_allowed", "verdict", "why", "tests", "inputs", "speed",
    "memory_growth_mb", "difference_to_model",
}  # fmt: skip
MODEL_KEYS = {"request_shape", "batch_rows", "stateful_layers"}


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


def verdicts(report):
    return {name: way.verdict for name, way in report.ways.items()}


def test_stateful_model_leaks_as_it_is_in_every_test(found):
    assert len(found.stateful_layers) == 1
    assert found.as_is.verdict == "leaks"
    assert all(found.as_is.trials[test].leak > 1e-3 for test in TESTS)


def test_reset_behind_a_lock_does_not_leak(found):
    assert found.reset.verdict == "no leak"
    # Without a lock it may leak or not; alone it does not.
    assert not any(found.reset_unlocked.trials[test].leak > 1e-6 for test in ("repeat", "between"))


def test_converted_step_is_exact_in_every_test(found):
    assert [found.converted.trials[test].leak for test in TESTS] == [0.0, 0.0, 0.0]
    assert found.converted.verdict == "no leak"


def test_converted_step_gives_the_models_own_answers(found):
    assert 0 <= found.converted.difference < 1e-6


def test_variance_shrinks_with_repeats_while_the_leak_stays(found):
    assert 0 < found.as_is.variance < found.as_is.variance_first
    assert found.reset.variance == found.converted.variance == 0


def test_leak_is_in_standard_deviations_of_fresh_answers(layers, stateful):
    """Held against the definition, written out."""
    from daemon.model.keras_states import reset_states

    def ask(x):
        return np.asarray(stateful.predict_on_batch(x[None])[0], np.float64)

    inputs, fresh = draw_inputs((TIME, WIDTH)), []
    for x in inputs:
        reset_states(stateful)
        fresh.append(ask(x))
    reset_states(stateful)
    again = [ask(inputs[0]) for _ in range(REPEATS)]
    expected = max(abs(y - fresh[0])[0] for y in again) / np.std(fresh)
    assert asked(stateful, repeats=REPEATS).as_is.trials["repeat"].leak == pytest.approx(expected, rel=1e-12)


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
    assert report.as_is.verdict == "leaks"
    assert report.reset.verdict == "no leak"
    assert report.converted.leak == 0


def test_model_without_state_does_not_leak(layers):
    report = asked(built(layers.LSTM(4), layers.Dense(1), batch=None, time=None))
    assert report.stateful_layers == ()
    assert report.shape == (10, WIDTH)
    assert set(verdicts(report).values()) == {"no leak"}


@pytest.mark.parametrize("nested", [False, True])
def test_inputs_have_the_scale_that_the_model_itself_expects(layers, nested):
    """Of 2,000 +- 3; standard normal ones would all look alike to it."""
    import keras

    front = layers.Normalization(mean=[2000.0, 2000.0], variance=[9.0, 9.0])
    stack = [keras.Sequential([front])] if nested else [front]
    model = keras.Sequential([keras.Input((TIME, WIDTH)), *stack, layers.LSTM(4), layers.Dense(1)])
    report = asked(model)
    assert report.scaled
    assert set(verdicts(report).values()) == {"no leak"}
    inputs = draw_inputs(report.shape, ways.ServedModel(model).scale)
    assert (inputs.mean(), inputs.std()) == (pytest.approx(2000, abs=1), pytest.approx(3, rel=0.1))


def test_model_that_draws_random_numbers_leaks_and_no_reset_helps(layers):
    import keras

    @keras.saving.register_keras_serializable(package="tickcast_tests_probe")
    class Noise(layers.Layer):
        def call(self, inputs):
            return inputs + keras.random.normal((1, 1))

    report = asked(built(layers.LSTM(4), Noise(), layers.Dense(1)))
    assert report.as_is.verdict == report.reset.verdict == "leaks"


@pytest.mark.parametrize("batch", [3, 32])
def test_welded_batch_is_filled_with_copies(layers, batch):
    report = asked(built(layers.LSTM(4, stateful=True, return_sequences=True), layers.Dense(1), batch=batch))
    assert report.rows == batch
    assert report.as_is.verdict == "leaks"
    assert report.reset.verdict == "no leak"
    assert report.converted.leak == 0


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning")
@pytest.mark.parametrize(("batch", "stateful"), [(1, True), (32, True), (None, False)])
def test_files_of_keras_2_are_probed_like_others(tmp_path, batch, stateful):
    from daemon.model.keras_model import load_keras

    K = import_module("tf_keras")
    x = K.Input((10, 5), batch_size=batch)
    inner = K.Sequential([K.layers.GRU(6, return_sequences=True, stateful=stateful), K.layers.Dropout(0.2)])
    K.Model(x, K.layers.Dense(1)(K.layers.LSTM(4, stateful=stateful)(inner(x)))).save(tmp_path / "model.h5")
    report = asked(load_keras(tmp_path / "model.h5"))
    assert (report.shape, report.rows, len(report.stateful_layers)) == ((10, 5), batch or 1, 2 * stateful)
    assert report.as_is.verdict == ("leaks" if stateful else "no leak")
    assert report.reset.verdict == report.converted.verdict == "no leak"


def test_step_of_tensorflow_is_exact_too(layers):
    report = asked(built(layers.LSTM(4, stateful=True, return_sequences=True), layers.ELU(0.3), layers.Dense(1)))
    assert [report.converted.trials[test].leak for test in TESTS] == [0.0, 0.0, 0.0]


def test_planted_leak_of_a_step_is_found_in_every_test(stateful):
    report = asked(stateful, step=LeakyStep(converted_step(stateful)))
    assert all(report.converted.trials[test].leak > 0 for test in TESTS)
    assert report.converted.verdict == "leaks"


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
    assert report.converted.verdict == "leaks"


def test_step_that_answers_something_else_than_the_model_is_no_conversion(stateful):
    class Wrong(LeakyStep):
        def step(self, x, state):
            y, after = self._step.step(x, state)
            return y + np.float32(1e-3), after

    report = asked(stateful, step=Wrong(converted_step(stateful)))
    assert isinstance(report.converted, Refused)
    assert "differs by 1.00e-03 from the model's own answers" in report.converted.reason


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
    assert report.as_is.verdict == "leaks"
    assert report.reset.verdict == "no leak"


# --- refusals ---------------------------------------------------------------------------------------------------------


def two_inputs(layers):
    import keras

    left, right = (keras.Input((TIME, WIDTH)) for _ in range(2))
    return keras.Model([left, right], layers.Bidirectional(layers.LSTM(2))(layers.Add()([left, right])))


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
        (failing, r"model tiny fails on normal inputs of shape \(5, 2\): .*Lambda.*did not hold"),
        (lambda layers: built(layers.Rescaling(np.inf)), "not finite"),
        (
            lambda layers: built(layers.Rescaling(0.0)),
            r"to 100 different inputs are all the same \(0\), so no leak can",
        ),
        (lambda layers: built(layers.Rescaling(1e-9, 0.5)), r"are all the same \(0.5\).*tickcast doctor model"),
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


def test_without_budget_every_test_gets_its_first_answers_and_nothing_is_called_sound(stateful):
    report = asked(stateful, repeats=REPEATS, budget_seconds=0, clock=counting_clock())
    for name in WAYS:
        way = report.ways[name]
        assert {test: trial.count for test, trial in way.trials.items()} == {"repeat": 2, "between": 3, "threads": 2}
        assert {test: trial.planned for test, trial in way.trials.items()} == {
            "repeat": REPEATS, "between": REPEATS, "threads": THREADS,
        }  # fmt: skip
        assert way.inputs == INPUTS_LEAST
        assert all(speed.calls == 1 for speed in way.speed.values())
    assert report.as_is.verdict == "leaks"
    assert report.reset.verdict == report.converted.verdict == "not enough"


def test_a_larger_budget_buys_more_answers_until_all_are_given(stateful):
    counts = []
    for seconds in (0, 200, 1_000_000):
        report = asked(stateful, budget_seconds=seconds, clock=counting_clock())
        counts.append([report.ways[name].trials["threads"].count for name in WAYS])
        inputs = report.as_is.inputs
    assert counts[0] == [2] * 4
    assert counts[2] == [THREADS] * 4
    assert all(few < some < many for few, some, many in zip(*counts, strict=True))
    assert inputs == 100


@pytest.mark.parametrize(("slow", "function"), [("ServedModel", "_answer"), ("ServedStep", "ask")])
def test_the_budget_that_is_advised_is_enough(stateful, monkeypatch, slow, function):
    """On a clock that goes on by 847 ms with every answer of the model or of the step, as in the published case."""
    now, lock = [0.0], threading.Lock()
    answer = getattr(getattr(ways, slow), function)

    def slowly(*arguments):
        with lock:
            now[0] += 0.847
        return answer(*arguments)

    monkeypatch.setattr(getattr(ways, slow), function, slowly)
    short = asked(stateful, budget_seconds=60, clock=lambda: now[0])
    assert "not enough" in verdicts(short).values()
    report = asked(stateful, repeats=10, budget_seconds=short.budget_enough, clock=lambda: now[0])
    assert report.reset.verdict == report.converted.verdict == "no leak"
    assert now[0] < 60 + 1.2 * short.budget_enough


def test_the_listener_hears_of_every_part_in_order(stateful):
    heard = []
    asked(stateful, budget_seconds=0, listen=lambda *told: heard.append(told))
    parts = [(name, part) for name in WAYS for part in (*TESTS, "speed")]
    assert [told[:2] for told in heard] == [("fresh", "answers"), *parts]
    shares = [done for *_, done in heard]
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
    (folder / "model.pkl").write_bytes(b"\x80\x04N.")
    return folder


def run(*arguments):
    return CliRunner().invoke(main.app, ["probe", *map(str, arguments), "--repeats", "2", "--budget", "600"])


def run_main(monkeypatch, *arguments):
    """Run the program as `main` does, with its one line and its exit code for errors."""
    monkeypatch.setattr(sys, "argv", ["tickcast", "probe", *map(str, arguments)])
    return main._exit_code()


def error_line(text):
    """Return what is said beside the progress."""
    (line,) = [line for line in text.splitlines() if not line.startswith("probing: ")]
    return line


@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_json_has_one_object_for_each_way_to_serve(files, ending):
    result = run(files / f"stateful.{ending}", "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert list(found) == WAYS
    assert all(set(way) >= KEYS for way in found.values())
    assert set(found["as_is"]) == KEYS | MODEL_KEYS
    assert all(list(way["tests"]) == TESTS for way in found.values())
    calls = [list(way["speed"]) for way in found.values()]
    assert calls == [["predict", "model(x)"]] * 3 + [["window", "tick"]]
    assert found["as_is"]["leak"] > 1e-6
    assert found["as_is"]["verdict"] == "leaks"
    assert found["converted"]["leak"] == 0
    assert found["converted"]["verdict"] == "no leak"


def test_text_gives_verdicts_first_and_ends_with_what_to_do(files):
    result = run(files / "stateful.keras")
    assert result.exit_code == 0
    verdicts, leaks, costs, comparison, advice = result.stdout.split("\n\n")[1:]
    for part in (verdicts, leaks, costs):
        for title in TITLES.values():
            assert [line.startswith(title) for line in part.splitlines()].count(True) == 1
    assert "(a)  as it is        leaks    the state of one request reaches the next" in verdicts
    assert "(c)  converted       no leak  every answer is exactly the fresh one; the model's own" in verdicts
    assert comparison.startswith("From (a) to (c): variance ")
    assert "tickcast convert" in advice
    assert all(len(line) <= 100 for line in result.stdout.replace(str(files), "").splitlines())


def test_progress_is_a_line_for_each_way_where_no_terminal_is(files):
    assert run(files / "stateful.keras").stderr.splitlines() == [
        "probing: fresh answers", *(f"probing: {title}" for title in TITLES.values())
    ]  # fmt: skip


def test_model_that_cannot_be_converted_is_no_failure(files):
    result = run(files / "two_ways.keras", "--json")
    assert result.exit_code == 0
    converted = json.loads(result.stdout)["converted"]
    assert converted == {"variance": None, "leak": None, "verdict": "cannot convert", "why": converted["why"]}
    assert "Bidirectional" in converted["why"]
    text = run(files / "two_ways.keras")
    assert text.exit_code == 0
    assert "(c)  converted       cannot convert  layer bidirectional" in text.stdout
    assert "From (a) to (c)" not in text.stdout


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_planted_leak_of_the_converted_step_is_exit_1(files, monkeypatch, capsys, options):
    monkeypatch.setattr(probing, "converted_step", lambda model: LeakyStep(converted_step(model)))
    assert run_main(monkeypatch, files / "stateful.keras", "--repeats", "2", *options) == 1
    out, err = capsys.readouterr()
    assert error_line(err).startswith("tickcast: error: model tiny: the converted step leaks; ")
    assert "leaks" in (json.loads(out)["converted"]["verdict"] if options else out)


def test_budget_too_small_for_the_converted_step_is_wrong_use(files, monkeypatch, capsys):
    assert run_main(monkeypatch, files / "stateful.keras", "--budget", "0") == 2
    out, err = capsys.readouterr()
    assert error_line(err).startswith("tickcast: error: --budget 0: too small to judge the converted step; give ")
    assert "(c)  converted       not enough  no leak in the answers that there was time for: A A A 2 of 100" in out
    assert re.search(r"What to do\n  Give the tests time: .* --budget \d+\n$", out)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.keras", "no model file at"),
        ("text.keras", "cannot load"),
        ("model.pkl", "it is a pickle, which runs code when it is opened"),
        ("lambda.keras", "ambda"),
        ("two_inputs.keras", "has 2 inputs; one is supported"),
    ],
)
def test_bad_input_is_one_line(files, monkeypatch, capsys, name, message):
    assert run_main(monkeypatch, files / name) == BundleError.exit_code
    out, err = capsys.readouterr()
    assert message in error_line(err)
    assert out == ""


def test_interrupt_ends_it_without_a_report(files):
    command = [sys.executable, "-m", "daemon.cli.main", "probe", str(files / "stateful.keras"), "--repeats", "1000000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        said = list(itertools.takewhile(lambda line: "as it is" not in line, process.stderr))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert all(line.startswith("probing: ") for line in [*said, *err.splitlines()])


def test_without_tensorflow_one_line_says_what_to_install(files, monkeypatch, capsys):
    for module in ("keras", "tensorflow"):
        monkeypatch.setitem(sys.modules, module, None)
    for module in [name for name in sys.modules if name.startswith("daemon.model.keras_")]:
        monkeypatch.delitem(sys.modules, module)
    assert run_main(monkeypatch, files / "stateful.keras") == BundleError.exit_code
    assert "probing needs TensorFlow; install it with `pip install 'tickcast[tensorflow]'`" in capsys.readouterr().err
