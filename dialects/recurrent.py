"""Recurrent layers: one op stands for all steps of one layer of a net."""

from dataclasses import dataclass
from typing import Any, Optional

from torch_mlir import ir
from torch_mlir.dialects.ext import Operand, Pure, Result

from patc.dialects.attributes import Activation, ActivationAttr, PatternDialect
from patc.dialects.rules import Tensor, rule, verify_scales, when_complete

CELLS = {"lstm": 4, "gru": 3, "gru_reset_first": 3, "rnn": 1}  # and their gates
DIRECTIONS = {"forward": 1, "reverse": 1, "both": 2}


class RecurrentOp(PatternDialect.Operation, name="recurrent", traits=[Pure]):
    """All steps of a recurrent layer, whose products with the layer's input are computed before.

    With x the products of one step, h and c the state before it, a, b and d the activations, and rows of the weight,
    of x and of the bias in the order of the gates as named here:

        "rnn"              h' = a(x + weight h + bias)
        "gru"              r, z = a(x + weight h + bias), n = b(x + r * (weight h + bias)), h' = (1 - z) n + z h
        "gru_reset_first"  n = b(x + weight (r * h) + bias), the rest as "gru"
        "lstm"             i, f, o = a(x + weight h + bias), g = b(x + weight h + bias), in the order i, f, g, o;
                           c' = f c + i g, h' = o d(c'), or h' = projection (o d(c'))

    Operands, for T steps, N sequences, D directions, G gates, H units and P outputs (H without a projection):
        input: T x N x D G H.
        weight: D G H x P.
        hidden: D x N x P, before the first step.
        bias: D G H.
        cell: D x N x H; of "lstm" alone.
        peepholes: D 3 H, factors of c in i and f, and of c' in o; of "lstm" alone.
        projection: D P x H; of "lstm" alone.
        lengths: N integers; behind the end of a sequence the state stays, and the result is 0. Steps backwards begin
            at the end of a sequence.

    Results: T x N x D P; the state after the last step, as hidden and cell are given.

    Attributes:
        mode: "rnn", "gru", "gru_reset_first" or "lstm".
        direction: "forward", "reverse" (from the last step to the first) or "both".
        activations: a, b and d, as `activation` of other ops; b and d only where the mode has them.
        clip: optional f32, bounds what activations a and b are computed of to -clip .. clip.
        scales, projection_scales: array<f32>, one a row of the weight and of the projection, where these are integers
            in memory; see `pattern.linear`.

    Verifier:
        'pattern.recurrent' op expected 'mode' to be rnn, gru, gru_reset_first or lstm, got <value>
        'pattern.recurrent' op expected 'direction' to be forward, reverse or both, got <value>
        'pattern.recurrent' op expected <n> activations of one number, got <value>
        'pattern.recurrent' op expected input of rank 3, got rank <r>
        'pattern.recurrent' op expected <operand or result> of shape <...>, got <...>
        'pattern.recurrent' op expected a cell, peepholes and a projection only of lstm, got <mode>
    """

    input: Operand[Tensor]
    weight: Operand[Tensor]
    hidden: Operand[Tensor]
    result: Result[Tensor]
    final_hidden: Result[Tensor]
    mode: Any
    direction: Any
    activations: Any
    bias: Optional[Operand[Tensor]] = None  # noqa: UP045 - the binding reads Optional
    cell: Optional[Operand[Tensor]] = None  # noqa: UP045
    peepholes: Optional[Operand[Tensor]] = None  # noqa: UP045
    projection: Optional[Operand[Tensor]] = None  # noqa: UP045
    lengths: Optional[Operand[Tensor]] = None  # noqa: UP045
    final_cell: Optional[Result[Tensor]] = None  # noqa: UP045

    @property
    def sizes(self) -> "RecurrentSizes":
        return RecurrentSizes.of(self)

    @property
    def three_activations(self) -> tuple[Activation, Activation, Activation]:
        """Activations a, b and d; those that the mode does not have are "none"."""
        a, b, d = (*map(Activation.from_attr, self.activations), Activation(), Activation())[:3]
        return a, b, d

    @property
    def limits(self) -> Activation | None:
        """What bounds the numbers that activations a and b are computed of; None for no bound."""
        if "clip" not in self.attributes:
            return None
        bound = self.attributes["clip"].value
        return Activation("clamp", (-bound, bound))

    @when_complete
    def verify_invariants(self) -> bool:
        mode, direction = (str(getattr(attr, "value", "")) for attr in (self.mode, self.direction))
        rank = len(self.input.type.shape)
        return (
            rule(self, mode in CELLS, "'mode' to be rnn, gru, gru_reset_first or lstm", self.mode)
            and rule(self, direction in DIRECTIONS, "'direction' to be forward, reverse or both", self.direction)
            and _verify_activations(self, mode)
            and rule(self, rank == 3, "input of rank 3", f"rank {rank}")
            and _verify_shapes(self, mode)
            and verify_scales(self, "scales", self.weight, self.weight.type.shape[0])
            and (
                self.projection is None
                or verify_scales(self, "projection_scales", self.projection, self.projection.type.shape[0])
            )
        )


@dataclass(frozen=True)
class RecurrentSizes:
    """The sizes of a recurrent layer.

    Attributes:
        steps, sequences, directions, gates, units: T, N, D, G and H.
        outputs: P.
    """

    steps: int
    sequences: int
    directions: int
    gates: int
    units: int
    outputs: int

    @staticmethod
    def of(op: RecurrentOp) -> "RecurrentSizes":
        steps, sequences, width = op.input.type.shape
        directions, gates = DIRECTIONS[op.direction.value], CELLS[op.mode.value]
        return RecurrentSizes(
            steps, sequences, directions, gates, width // (directions * gates), op.result.type.shape[-1] // directions
        )


def _verify_activations(op: RecurrentOp, mode: str) -> bool:
    count = {"lstm": 3, "rnn": 1}.get(mode, 2)
    given = list(op.activations) if isinstance(op.activations, ir.ArrayAttr) else []
    known = [
        attr
        for attr in given
        if (isinstance(attr, ActivationAttr) and attr.find_violation(0) is None)
        or (isinstance(attr, ir.StringAttr) and attr.value in ("none", "relu"))
    ]
    return rule(op, len(given) == len(known) == count, f"{count} activations of one number", op.activations)


def _verify_shapes(op: RecurrentOp, mode: str) -> bool:
    extras = [value for value in (op.cell, op.peepholes, op.projection, op.final_cell) if value is not None]
    if not rule(op, mode == "lstm" or not extras, "a cell, peepholes and a projection only of lstm", mode):
        return False
    if not rule(op, mode != "lstm" or op.cell is not None is not op.final_cell, "a cell of lstm", "none"):
        return False
    s = op.sizes
    rows, state = s.directions * s.gates * s.units, [s.directions, s.sequences]
    wanted = {
        "input": [s.steps, s.sequences, rows],
        "weight": [rows, s.outputs],
        "hidden": [*state, s.outputs],
        "bias": [rows],
        "cell": [*state, s.units],
        "peepholes": [s.directions * 3 * s.units],
        "projection": [s.directions * s.outputs, s.units],
        "lengths": [s.sequences],
        "result": [s.steps, s.sequences, s.directions * s.outputs],
        "final_hidden": [*state, s.outputs],
        "final_cell": [*state, s.units],
    }
    for name, shape in wanted.items():
        value = getattr(op, name)
        if value is not None and not rule(
            op, list(value.type.shape) == shape, f"{name} of shape {shape}", list(value.type.shape)
        ):
            return False
    return rule(op, op.projection is not None or s.outputs == s.units, f"weight of shape {[rows, s.units]}", s.outputs)
