"""What a kind of layer is: all that passes ask about one op of the dialect."""

from __future__ import annotations

import abc
import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects.ext import partition_fields

from patc.dialects.attributes import Activation
from patc.dialects.rules import STORED
from patc.numerics import NUMERICS
from patc.passes.activations.registry import kind_of
from patc.passes.algorithms.base import Algorithm
from patc.passes.algorithms.gpu.base import GpuAlgorithm
from patc.passes.algorithms.host.base import HostAlgorithm
from patc.passes.base import PassState, fail
from patc.passes.ir.constants import read_constant
from patc.passes.ir.quantised import Known, is_quantised
from patc.passes.ir.stored import holds_integers
from patc.passes.ir.windows import Window
from patc.passes.layers.flow import Flow
from patc.targets import Target


class Access(enum.Enum):
    """How a layer reads an operand."""

    WINDOW = "a window slides over planes: they need a halo that covers its pads"
    PLANES = "whole planes are read with their halo, which must be zeros"
    ELEMENTS = "element by element, in any layout"
    PACKED = "row-major"
    WEIGHTS = "a constant, of the result's element type"
    INDICES = "a constant of integers"

    @property
    def is_constant(self) -> bool:
        """Whether the operand holds parameters of the layer rather than activations."""
        return self in (Access.WEIGHTS, Access.INDICES)


@dataclass(frozen=True)
class Operand:
    """What one operand is to its layer.

    Attributes:
        name: in the definition of the op.
        number: in the operands of the op.
        access: how it is read.
        is_shared: whether each channel of the result depends on all channels of the operand.
    """

    name: str
    number: int
    access: Access
    is_shared: bool = False


class Sign(enum.Enum):
    """What is known of the sign of a layer's result."""

    ANY = "nothing"
    AS_INPUT = "not negative if the input is not"
    NON_NEGATIVE = "not negative"


@dataclass(frozen=True)
class FilterOrder:
    """The order in which a layer computes its filters best.

    Attributes:
        stored: F, the old number of each stored filter.
        channels: F, the channel of the result that each of them then computes.
        work: multiplications of one image; where layers disagree, the one with most work decides.
    """

    stored: np.ndarray
    channels: np.ndarray
    work: int


@dataclass(frozen=True)
class Channels:
    """What a layer is to the channels of its tensors. Those that are neither tied nor fixed may take any order, which
    `LayerKind.permute` then makes the constants follow.

    Attributes:
        tied: tensors whose channels must have one order.
        fixed: tensors whose channels must stay as they are.
        order: what the layer wants; None for one that does not care.
    """

    tied: tuple[ir.Value, ...] = ()
    fixed: tuple[ir.Value, ...] = ()
    order: FilterOrder | None = None


@dataclass(frozen=True)
class Permutation:
    """New orders; entry i is the old number of what becomes number i.

    Attributes:
        of: the order that the channels of a tensor take; None for no change.
        filters: the order of the stored filters, where `Channels.order` says one.
    """

    of: Callable[[ir.Value], np.ndarray | None]
    filters: np.ndarray | None


@dataclass(frozen=True)
class Work:
    """What a layer computes.

    Attributes:
        weights: of the dense layer.
        kept_weights: that are multiplied.
        flops: two for each kept weight and place of the result.
    """

    weights: int = 0
    kept_weights: int = 0
    flops: int = 0


@dataclass(frozen=True)
class Raiser:
    """What makes layers of one sort of op on f32 tensors of static shape.

    Attributes:
        op: the name of the op, as linalg.generic.
        build: returns the value that replaces the op's result, or None for an op that is no such layer; builds at the
            insertion point, which is at the op.
        is_late: whether it gets only what is left when everything else is raised.
    """

    op: str
    build: Callable[[Any, PassState], ir.Value | None]
    is_late: bool = False


class LayerKind(abc.ABC):
    """What patc knows of one op of the dialect. Passes ask it, and know no kind by name.

    Operands `bias` and `residual` and an attribute `activation` of the op are its epilogue, y = activation(f(x) + bias
    + residual), into which others are fused; the residual may also join in other ways, see `Join`.

    Attributes:
        op: the class of the op.
        elements: the element types of results that there are kernels for.
        converts: whether an activation may be of another of these types than the result.
        packs: whether the result can only be row-major.
        keeps_types: whether operands and results have element types of their own, whatever the net computes in.
        fill: what the halo of an operand that a window slides over must hold, so that padding does not count: "zero",
            or "lowest" (minus infinity).
        rereads: whether a window reads each row many times: planes may then well be stored in a way that suits it.
        sparse: the op of the same layer with weights in a format, which has the fields of this one but `weight` and
            `groups`; None for layers that have none.
        raisers: what `pattern-raise` makes the op of.
        host, gpu: how CPUs and GPUs compute it, in the order in which candidates are listed.
        keeps_scale: whether a quantised result has the integers of the input, which stand for the same.
        quantised, quantised_gpu: how CPUs and GPUs compute it where any of its tensors is quantised; none for layers
            that cannot be.
    """

    op: ClassVar[type]
    elements: ClassVar[tuple[str, ...]]
    converts: ClassVar[bool]
    packs: ClassVar[bool]
    keeps_types: ClassVar[bool]
    fill: ClassVar[str]
    rereads: ClassVar[bool]
    sparse: ClassVar[type | None]
    raisers: ClassVar[tuple[Raiser, ...]]
    host: ClassVar[tuple[HostAlgorithm, ...]]
    gpu: ClassVar[tuple[GpuAlgorithm, ...]]
    keeps_scale: ClassVar[bool]
    quantised: ClassVar[tuple[HostAlgorithm, ...]]
    quantised_gpu: ClassVar[tuple[GpuAlgorithm, ...]]

    def algorithms(self, target: Target, op: Any = None) -> tuple[Algorithm[Any], ...]:
        """Return how a target's sort of machine computes the layer; where none does, linalg takes the generic road.

        Args:
            op: the layer, which may be quantised; None for any that is not.
        """
        if target.algorithms == "gpu":
            return self.gpu if op is None else self.gpu_algorithms(op)
        return self.host if op is None else self.host_algorithms(op)

    def host_algorithms(self, op: Any) -> tuple[HostAlgorithm, ...]:
        """Return how CPUs compute an op."""
        return self.quantised if is_quantised(op) else self.host

    def gpu_algorithms(self, op: Any) -> tuple[GpuAlgorithm, ...]:
        """Return how GPUs compute an op."""
        if is_quantised(op):
            return self.quantised_gpu
        return () if holds_integers(op) else self.gpu

    def claims(self, op: Any) -> bool:
        """Return whether an op of the class is a layer."""
        return True

    def store(self, op: Any, bits: int, state: PassState) -> tuple[bool, str]:
        """Make an op's weights, which it computes with in f32, integers in memory; return whether there are kernels for
        such ones, and what reports say of it.

        Args:
            bits: of a weight.
        """
        return False, "there are no kernels for it that expand weights"

    def activations(self, op: Any) -> list[int]:
        """Return the numbers of the operands that are no parameters."""
        return [operand.number for operand in self.operands(op) if not operand.access.is_constant]

    def can_quantise(self, op: Any, target: Target, state: PassState) -> bool:
        """Return whether an op on f32 has algorithms for quantised tensors in the place of its own."""
        algorithms = self.quantised_gpu if target.algorithms == "gpu" else self.quantised
        return any(algorithm.applies(op) for algorithm in algorithms)

    def quantise(
        self,
        op: Any,
        given: Mapping[int, ir.Value],
        result: ir.Type,
        state: PassState,
        known: Known | None = None,
    ) -> ir.Value:
        """Build the same layer on quantised tensors at the insertion point, and return its result.

        Args:
            op: one that `can_quantise`; it stays.
            given: its activations, quantised, by the numbers of the operands.
            result: type of the result.
            known: of the integers that weights and bias become; by default these are rounded.
        """
        made = op.operation.clone()
        for number, value in given.items():
            made.operands[number] = value
        made.results[0].set_type(result)
        return made.results[0]

    @abc.abstractmethod
    def operands(self, op: Any) -> tuple[Operand, ...]:
        """Return what each operand of an op is, in their order."""

    @abc.abstractmethod
    def window(self, op: Any) -> Window | None:
        """Return the window that slides over the input, or None where there is none."""

    @abc.abstractmethod
    def is_pointwise(self, op: Any) -> bool:
        """Return whether each place of the result depends on that place of the input alone, on all its channels."""

    @abc.abstractmethod
    def sign(self, op: Any) -> Sign:
        """Return what is known of the sign of the result."""

    @abc.abstractmethod
    def channels(self, op: Any, state: PassState) -> Channels:
        """Return how the channels of the op's tensors depend on each other.

        Raises:
            PatcError: the constants of the op are not valid.
        """

    def flow(self, op: Any, state: PassState) -> Flow | None:
        """Return what the op does with channels, or None where all of them have to stay."""
        return None

    @abc.abstractmethod
    def permute(self, op: Any, permutation: Permutation, state: PassState) -> None:
        """Let an op's constants follow a new order of the channels of its tensors.

        Args:
            permutation: changes something, and nothing that `channels` fixed.
        """

    @abc.abstractmethod
    def reference(self, op: Any, state: PassState) -> ir.Value | tuple[ir.Value, ...] | None:
        """Build linalg that computes the same numbers at the insertion point, in the type of `reference.computed_in`,
        one value for each result; None for an op that the reference executor can run as it is.

        Raises:
            PatcError: an operand that has to be a constant is none, or is not valid.
        """

    def without_algorithm(self, op: Any, state: PassState) -> ir.Value | tuple[ir.Value, ...] | None:
        """Build linalg for a target that has no algorithm for the op, as `reference` does; it takes the generic road,
        and so may have no loops around it; None for an op that no other target can have either."""
        return None if is_quantised(op) else self.reference(op, state)

    @abc.abstractmethod
    def work(self, op: Any) -> Work:
        """Return what an op computes."""

    @abc.abstractmethod
    def shares(self, op: Any, state: PassState) -> tuple[float, ...]:
        """Return what the time of an op depends on beside its types and attributes: the part of the kept weights that
        each loop of its kernel computes; empty where there is one loop."""

    def takes(self, part: str) -> bool:
        """Return whether the op has a part of an epilogue: "bias", "residual" or "activation"."""
        return any(field.name == part for field in getattr(self.op, "_fields", ()))

    def check_elements(self, op: Any) -> None:
        """Refuse element types that there are no kernels for.

        Raises:
            PatcError: the result, or an operand, has such a type.
        """
        if is_quantised(op) and self.quantised:
            return  # the verifier of the op saw to it
        result = op.result.type.element_type
        if str(result) not in self.elements:
            raise fail(op, f"{' or '.join(self.elements)} tensors", op.result.type)
        for operand in self.operands(op):
            type_ = op.operands[operand.number].type
            element = type_.element_type
            is_index = operand.access is Access.INDICES and isinstance(element, ir.IntegerType)
            is_expanded = operand.access is Access.WEIGHTS and str(element) in STORED and holds_integers(op)
            is_converted = self.converts and not operand.access.is_constant and str(element) in self.elements
            if element != result and not is_index and not is_expanded and not is_converted:
                raise fail(op, f"operands of {result} like the result", type_)


class OneType(LayerKind):
    """What most layers have in common: all tensors are of one of the types that nets compute in, and in any layout."""

    elements = tuple(NUMERICS)
    converts = packs = keeps_types = False
    fill = "zero"
    rereads = False


def flow_of(op: Any, **known: Any) -> Flow | None:
    """Return the flow of a layer of f32.

    Args:
        known: further attributes of `Flow`.
    """
    if any(str(value.type.element_type) != "f32" for value in (op.operands[0], op.result)):
        return None
    residual = op.rhs if hasattr(op, "rhs") else getattr(op, "residual", None)
    joins = bool(joined_channels(residual, op.result))
    return Flow(op, residual if joins else None, None if joins else residual, **known)


def weighted_flow(op: Any, is_mixed: bool, keeps_numbers: bool, state: PassState) -> Flow | None:
    """Return the flow of a layer with weights, unless these or the bias are no constants of f32.

    Args:
        is_mixed: whether all channels of the input meet in each of the result.
        keeps_numbers: see `Flow`.
    """
    weight, bias = (None if value is None else read_constant(value, state) for value in (op.weight, op.bias))
    if weight is None or weight.dtype != np.float32 or (bias is None) != (op.bias is None):
        return None
    factors = weight.astype(np.float64).reshape(*weight.shape[:2], -1)
    added = None if bias is None else bias.astype(np.float64)
    return flow_of(op, is_mixed=is_mixed, factors=factors, bias=added, keeps_numbers=keeps_numbers)


class WithoutWeights(LayerKind):
    """What layers without constants have in common: there is nothing to store, to permute or to count."""

    sparse = None

    def permute(self, op: Any, permutation: Permutation, state: PassState) -> None:
        permute_activation(op, permutation)

    def work(self, op: Any) -> Work:
        return Work()

    def shares(self, op: Any, state: PassState) -> tuple[float, ...]:
        return ()


def list_operands(op: Any, accesses: dict[str, Access], shared: Sequence[str] = ()) -> tuple[Operand, ...]:
    """Return the operands that an op has; those that are optional and absent have no number.

    Args:
        accesses: for each operand that the op may have.
        shared: the names of those whose channels all meet in each channel of the result.
    """
    return tuple(Operand(name, place, accesses[name], name in shared) for place, name in enumerate(_present(op)))


def operand_number(op: Any, name: str) -> int:
    """Return the place of an operand, which the op has, among the op's operands."""
    return _present(op).index(name)


def _present(op: Any) -> list[str]:
    return [field.name for field in partition_fields(op._fields)[0] if getattr(op, field.name) is not None]


def fix_all(op: Any) -> Channels:
    """Return what keeps the channels of all tensors of an op as they are."""
    return Channels(fixed=(*op.operands, *op.results))


def joined_channels(residual: ir.Value | None, result: ir.Value) -> tuple[ir.Value, ...]:
    """Return what joins a result if its channels are those of the result."""
    if residual is None or (residual.type.rank > 1 and residual.type.shape[1] != result.type.shape[1]):
        return ()
    return (residual,)


def permute_activation(op: Any, permutation: Permutation) -> None:
    """Let the constants of an op's activation that are one number a channel follow a new order of its result."""
    activation, order = Activation.of(op), permutation.of(op.result)
    if activation.arrays and order is not None:
        constants = (
            tuple(np.take(each, order).tolist()) if isinstance(each, tuple) else each for each in activation.constants
        )
        op.attributes["activation"] = Activation(activation.kind, tuple(constants)).to_attr()


def sign_of_activation(op: Any) -> Sign:
    """Return what is known of the sign of what an op's activation gives."""
    activation = Activation.of(op)
    if activation.kind == "none":
        return Sign.ANY
    return Sign.NON_NEGATIVE if kind_of(activation).is_non_negative(*activation.constants) else Sign.ANY
