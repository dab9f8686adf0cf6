"""A converted model: operations in an order in which each finds its inputs computed, and their bundle form.

Values are numbered: 0 is the input, k + 1 the output of node k; the last node's output is the model's.
In a bundle a program is one JSON description and one set of named arrays, both part of the bundle's id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daemon.core.step import F32
from daemon.model.ops import OPS, WIDTH_MAX, Op, weight_names

Arrays = Mapping[str, NDArray[Any]]
#: Most nodes of a program; files are not trusted to be reasonable.
NODES_MAX = 1024


@dataclass(frozen=True, eq=False)
class Node:
    """One operation and the numbers of the values it reads."""

    op: Op
    inputs: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Program:
    """A model that the numpy step runs.

    Raises ValueError where shapes or numbers of values do not fit together.
    """

    n_features: int
    nodes: tuple[Node, ...]

    def __post_init__(self) -> None:
        if not 0 < len(self.nodes) <= NODES_MAX:
            raise ValueError(f"a program has 1 to {NODES_MAX} nodes, found {len(self.nodes)}")
        if not self.widths[0] > 0:
            raise ValueError("a program needs at least one input column")

    @property
    def widths(self) -> list[int]:
        """Widths of all values, the input first; computing them checks every shape."""
        widths = [self.n_features]
        for index, node in enumerate(self.nodes):
            if not node.inputs or not all(0 <= value <= index for value in node.inputs):
                raise ValueError(f"node {index} reads values {list(node.inputs)}, which are not computed before it")
            widths.append(node.op.width([widths[value] for value in node.inputs]))
            if not 0 < widths[-1] <= WIDTH_MAX:
                raise ValueError(f"node {index} has width {widths[-1]}, allowed are 1 to {WIDTH_MAX}")
        return widths

    @property
    def n_outputs(self) -> int:
        return self.widths[-1]

    @property
    def state_size(self) -> int:
        """Floats of one row's whole state: the tensors of each recurrent node in turn."""
        return sum(sum(node.op.state_widths) for node in self.nodes)

    def describe(self) -> dict[str, Any]:
        """Return everything but the weights, JSON-ready."""
        nodes = [
            {"op": node.op.kind, "inputs": list(node.inputs), "settings": _settings(node.op)} for node in self.nodes
        ]
        return {"engine": "numpy", "n_features": self.n_features, "nodes": nodes}

    def arrays(self) -> dict[str, F32]:
        """Return the weights by name, ``NODE.FIELD``."""
        return {
            f"{index}.{name}": getattr(node.op, name)
            for index, node in enumerate(self.nodes)
            for name in weight_names(type(node.op))
        }


@dataclass(frozen=True, eq=False)
class KerasProgram:
    """A model with layers that only TensorFlow runs; the bundle's Keras file is what runs it."""

    n_features: int
    n_outputs: int
    #: Keras' own configuration of the model.
    architecture: dict[str, Any]
    #: In the order of `keras.Model.get_weights`.
    weights: tuple[NDArray[Any], ...]
    #: Why numpy does not run it, e.g. "layer p_re_lu (PReLU)".
    reason: str

    def describe(self) -> dict[str, Any]:
        """Return everything but the weights, JSON-ready."""
        sizes = {"n_features": self.n_features, "n_outputs": self.n_outputs}
        return {"engine": "tensorflow", **sizes, "reason": self.reason, "architecture": self.architecture}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the weights by name, their place in Keras' order."""
        return {str(index): weight for index, weight in enumerate(self.weights)}


AnyProgram = Program | KerasProgram


def parse_program(description: Mapping[str, Any], arrays: Arrays) -> AnyProgram:
    """Rebuild a program from its bundle form.

    Raises
    ------
    LookupError, TypeError, ValueError, AttributeError, ArithmeticError : if the description is none, or weights are
        missing, left over or misshapen
    """
    if description["engine"] == "tensorflow":
        weights = tuple(arrays[str(index)] for index in range(len(arrays)))
        sizes = (int(description["n_features"]), int(description["n_outputs"]))
        return KerasProgram(*sizes, description["architecture"], weights, str(description["reason"]))
    if description["engine"] != "numpy":
        raise ValueError(f"unknown engine {description['engine']!r}")
    nodes = tuple(_node(index, node, arrays) for index, node in enumerate(description["nodes"]))
    program = Program(int(description["n_features"]), nodes)
    left_over = sorted(arrays.keys() - program.arrays().keys())
    if left_over:
        raise ValueError(f"weights nobody uses: {', '.join(left_over)}")
    return program


def _node(index: int, description: Mapping[str, Any], arrays: Arrays) -> Node:
    op = OPS[description["op"]]
    weights = {name: arrays[f"{index}.{name}"] for name in weight_names(op)}
    for name, weight in weights.items():
        if weight.dtype != np.float32:
            raise ValueError(f"{index}.{name} is {weight.dtype}, expected float32")
    settings = description["settings"]
    for field in fields(op):
        if field.name in settings and field.default is not MISSING:
            _check_type(field.name, settings[field.name], type(field.default))
    return Node(op(**weights, **settings), tuple(int(value) for value in description["inputs"]))


def _check_type(name: str, value: object, expected: type) -> None:
    if not isinstance(value, expected):
        raise TypeError(f"{name} = {value!r}: expected {expected.__name__}")


def _settings(op: Op) -> dict[str, Any]:
    arrays = weight_names(type(op))
    return {field.name: getattr(op, field.name) for field in fields(op) if field.name not in arrays}
