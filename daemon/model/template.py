"""A spec to fill in: everything that a model's shapes tell, and a comment at everything they do not."""

from __future__ import annotations

from daemon.model.facts import Decision, Facts

_TEXT = """\
# What {model} means: model {name}, input (batch {batch}, time {time}, {columns} columns), {outputs} output column(s).
# Fill in features, scaler and outputs, then: tickcast convert {model} --spec THIS_FILE --out bundle

# "window": every tick runs the model over the last `steps` ticks, from its initial state, at `steps` times the cost.
# "carried": every tick moves the state on by one step. Take the one that the model was trained for.
mode = "{mode}"    # {reason}
{steps_off}steps = {steps}

# One per input column, in the model's order: built-in ones as `tickcast features` lists them (price, return, spread),
# or "field:NAME" for an input of your own, `fields.NAME` of a tick; log: diff: return: ema:N: may stand before.
features = [
{features}
]

# A tick without a field of the features: "dead_letter", "last" (its last value stands in) or a number.
missing = "dead_letter"

# What the recurrent state starts from: "zeros", or a table [initial_state] of vectors by name.
# The model's states: {states}
initial_state = "zeros"

# How inputs were scaled in training: (x - mean) / scale by column, the mean_ and scale_ of a StandardScaler.
# kind = "minmax" takes min, max and feature_range. file = "scaler.json" (or .npz) takes the numbers from a file.
# running = ["FEATURE"] lets a column follow the instrument's own running scale, with these numbers to begin with.
[scaler]
kind = "standard"
mean = [{zeros}]
scale = [{ones}]

# One table per output column: value = mean + scale * y, `horizon` ticks ahead. kind says what the value is: a "price",
# a "difference" to the present price, or a "log_return" from it. scaler = "FEATURE" in place of mean and scale takes
# those of an input column; publish = false is for a column that only feeds a roll-out.
{tables}

# A model that forecasts one tick ahead can be rolled out on a copy of its state. Give every feature its future, every
# output horizon = 1, and write horizons = [1, 5, 10] at the top of this file.
# [future]
# "field:close" = "output:0"
# "field:volume" = "hold"
# wait = 2.0
"""

_TABLE = """\
[[output]]    # column {index}
horizon = {horizon}
kind = "price"
mean = 0.0
scale = 1.0"""


def template(facts: Facts, decision: Decision, model: str) -> str:
    """Return a commented spec for a model; it is valid once every feature has its name.

    Parameters
    ----------
    model : how the user calls the file
    """
    features = [f'    "",    # column {index} of {name}' for name, width in facts.inputs for index in range(width)]
    tables = [_TABLE.format(index=index, horizon=index + 1) for index in range(facts.n_outputs)]
    return _TEXT.format(
        model=model,
        name=facts.name,
        batch=facts.batch or "any",
        time=facts.steps or "any",
        columns=facts.n_features,
        outputs=facts.n_outputs,
        mode=decision.mode,
        reason=decision.reason,
        steps_off="" if decision.mode == "window" else "# ",
        steps=facts.steps if facts.steps and facts.steps > 1 else 10,
        features="\n".join(features),
        states=", ".join(f"{tensor.name} ({tensor.width} numbers)" for tensor in facts.state) or "none",
        zeros=", ".join(["0.0"] * facts.n_features),
        ones=", ".join(["1.0"] * facts.n_features),
        tables="\n\n".join(tables),
    )
