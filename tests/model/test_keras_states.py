"""Every recurrent layer is found and reset, however deep it is nested; and none is found twice."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.tensorflow

TIME, WIDTH = 4, 3


@pytest.fixture(scope="module")
def states():
    from daemon.model import keras_states

    return keras_states


def nested(layers, *, stateful):
    """Return a model with recurrent layers in a Sequential, a Functional, two wrappers and a stack of cells."""
    import keras

    keep = {"stateful": stateful, "return_sequences": True}
    first = keras.Sequential([layers.LSTM(4, name="first", **keep)], name="in_sequential")
    x = keras.Input(batch_shape=(2, TIME, 4))
    second = keras.Model(x, layers.GRU(4, name="second", **keep)(x), name="in_functional")
    stack = [layers.LSTMCell(2), layers.GRUCell(4)]
    return keras.Sequential(
        [
            keras.Input(batch_shape=(2, TIME, WIDTH)),
            keras.Sequential([first, second]),
            layers.Bidirectional(layers.SimpleRNN(2, name="wrapped", **keep)),
            layers.TimeDistributed(layers.Dense(4)),
            layers.RNN(stack, name="stack", stateful=stateful),
            layers.Dense(1),
        ]
    )


def names(found):
    return [layer.name for layer in found]


def test_recurrent_layers_are_found_in_the_order_in_which_they_were_added(states, layers):
    found = names(states.recurrent_layers(nested(layers, stateful=False)))
    assert found == ["first", "second", "forward_wrapped", "backward_wrapped", "stack"]


def test_a_layer_at_two_places_is_found_once(states, layers):
    import keras

    x = keras.Input((TIME, WIDTH))
    shared = layers.LSTM(4, name="shared")
    model = keras.Model(x, layers.Add()([shared(x), shared(layers.Rescaling(2.0)(x))]))
    assert names(states.recurrent_layers(model)) == ["shared"]


def test_a_layer_without_memory_between_calls_keeps_no_state(states, layers):
    model = nested(layers, stateful=False)
    assert states.stateful_layers(model) == states.state_variables(model) == []
    states.reset_states(model)


def test_every_state_is_reset_and_the_model_answers_like_a_new_one(states, layers):
    model = nested(layers, stateful=True)
    x = np.random.default_rng(0).standard_normal((2, TIME, WIDTH)).astype(np.float32)
    fresh = np.asarray(model(x))
    kept = states.state_variables(model)
    assert len(kept) == 2 + 1 + 1 + 1 + 3  # h and c of the LSTM, h of the others, and the stack's h, c and h
    assert all(np.any(np.asarray(state)) for state in kept)
    assert not np.array_equal(np.asarray(model(x)), fresh)
    states.reset_states(model)
    assert not any(np.any(np.asarray(state)) for state in kept)
    assert np.array_equal(np.asarray(model(x)), fresh)


def test_a_stateful_layer_that_never_ran_has_nothing_to_reset(states, layers):
    import keras

    model = keras.Sequential([layers.LSTM(4, stateful=True)])
    assert len(states.stateful_layers(model)) == 1
    assert states.state_variables(model) == []
    states.reset_states(model)


def test_states_come_back_after_an_error_too(states, layers):
    model = nested(layers, stateful=True)
    x = np.ones((2, TIME, WIDTH), np.float32)
    model(x)
    before = [np.array(state) for state in states.state_variables(model)]

    def fail():
        with states.states_kept(model):
            model(-x)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert any(state.any() for state in before)
    assert all(map(np.array_equal, before, map(np.array, states.state_variables(model))))
