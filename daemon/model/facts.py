"""What a Keras model says of itself: its shapes, its states by name, and the mode that follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from daemon.model.keras_graph import Graph, LayerCall

Mode = Literal["carried", "window"]


@dataclass(frozen=True, slots=True)
class StateTensor:
    """One recurrent tensor, e.g. ``lstm_1.h``, and its width."""

    name: str
    width: int


@dataclass(frozen=True, slots=True)
class Facts:
    """Shapes and names of a model."""

    name: str
    #: (name, columns) of each input, in order.
    inputs: tuple[tuple[str, int], ...]
    n_outputs: int
    #: Batch and time that the model fixes; None where any will do, and time 1 where its inputs have none.
    batch: int | None
    steps: int | None
    #: Names of the recurrent layers that keep their state from call to call.
    stateful: tuple[str, ...]
    #: Number of all recurrent layers.
    recurrent_count: int
    #: In the order in which the converted step holds them.
    state: tuple[StateTensor, ...]

    @property
    def n_features(self) -> int:
        return sum(width for _, width in self.inputs)


@dataclass(frozen=True, slots=True)
class Decision:
    """A mode, and in words why."""

    mode: Mode
    reason: str


def facts_of(model: Any, graph: Graph, n_outputs: int) -> Facts:
    """Read the facts of a model, and of what it was taken apart into."""
    shapes = [tuple(tensor.shape) for tensor in model.inputs]
    over_time = [shape for shape in shapes if len(shape) == 3]
    recurrent = [call for call in graph.calls if call.cell is not None]
    return Facts(
        name=str(model.name),
        inputs=tuple((str(tensor.name), int(shape[-1])) for tensor, shape in zip(model.inputs, shapes, strict=True)),
        n_outputs=n_outputs,
        batch=shapes[0][0],
        steps=over_time[0][1] if over_time else 1,
        stateful=tuple(call.layer.name for call in recurrent if call.layer.stateful),
        recurrent_count=len(recurrent),
        state=_state_tensors(recurrent),
    )


def decide_mode(facts: Facts, wanted: Mode | None, steps: int | None = None) -> Decision:
    """Choose how the model is run; a user's word wins over the shape.

    Parameters
    ----------
    wanted : the mode that the user asks for
    steps : the window that the user asks for; it asks for mode window too
    """
    fixed = f"its input has a fixed time of {facts.steps} tick{'' if facts.steps == 1 else 's'}"
    shape = fixed if facts.steps else "its input fixes no time"
    if wanted is not None:
        return Decision(wanted, f"as asked; {shape}")
    if steps is not None and steps > 1:
        return Decision("window", f"the spec says steps = {steps}; {shape}")
    if facts.steps is not None and facts.steps > 1:
        return Decision("window", shape)
    return Decision("carried", shape)


def explain(decision: Decision, facts: Facts, steps: int) -> str:
    """Return one sentence on the mode, for people; a stateful model is told what overlapping windows do to it."""
    if decision.mode == "window":
        text = (
            f"mode window: every tick runs the model over the instrument's last {steps} ticks, from its initial state"
        )
    else:
        text = "mode carried: every tick moves the instrument's own state on by one step"
    if facts.stateful and decision.mode == "window":
        text += (
            f"; {', '.join(facts.stateful)} would keep state between calls, and overlapping windows without resets "
            "count each tick many times over"
        )
    return f"{text} ({decision.reason})"


def _state_tensors(calls: list[LayerCall]) -> tuple[StateTensor, ...]:
    names: dict[str, int] = {}
    found = []
    for call in calls:
        for name, width in _tensors(call.layer):
            names[name] = names.get(name, 0) + 1  # nested models may hold layers of one name
            found.append(StateTensor(name if names[name] == 1 else f"{name}#{names[name]}", width))
    return tuple(found)


def _tensors(layer: Any) -> list[tuple[str, int]]:
    cells = getattr(layer.cell, "cells", None)
    if cells is None:
        return _cell_tensors(layer.name, layer.cell)
    return [tensor for index, cell in enumerate(cells) for tensor in _cell_tensors(f"{layer.name}.{index}", cell)]


def _cell_tensors(name: str, cell: Any) -> list[tuple[str, int]]:
    sizes = cell.state_size if isinstance(cell.state_size, (list, tuple)) else [cell.state_size]
    letters = {1: ["h"], 2: ["h", "c"]}.get(len(sizes), [str(index) for index in range(len(sizes))])
    return [(f"{name}.{letter}", int(size)) for letter, size in zip(letters, sizes, strict=True)]
