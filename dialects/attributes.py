"""Attributes of the `pattern` dialect and the plain Python values behind them.

Each attribute has a frozen dataclass that passes compute with; `to_attr()` and `from_attr()` convert.
"""

import abc
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch_mlir import ir
from torch_mlir.dialects.ext import Dialect

MAX_TAPS = 63  # a pattern's mask is an i64
MAX_ELEMENTS = 1 << 40  # of a tensor with its halo


class PatternDialect(Dialect, name="pattern"):
    """Pattern-pruned convolutions and the layers around them."""


class WeightFormatAttr(PatternDialect.Attribute):
    """How the weights of a sparse layer are stored: the base of one attribute a format.

    A format from elsewhere is a subclass with a name of its own, `class RowsAttr(WeightFormatAttr, name="rows")`, that
    is defined before the dialect is loaded into a context. `passes.formats.registry` refuses one without all methods.
    """

    @abc.abstractmethod
    def array_names(self) -> tuple[str, ...]:
        """Return what the arrays of a layer are called, in the order of its operands."""

    @abc.abstractmethod
    def kernel_size(self) -> tuple[int, int]:
        """Return the height and width of the layer's window, 1 and 1 of a linear layer."""

    @abc.abstractmethod
    def find_violation(self, op: Any) -> tuple[str, Any] | None:
        """Return the first rule that the attribute, or the types of an op's arrays, break, and what was found instead.

        Args:
            op: has as many arrays as `array_names`, and channels in dimension 1 of its input and of its result.
        """

    def takes_groups(self) -> bool:
        """Return whether a convolution of several groups may have the format."""
        return True

    def find_wrong_shape(self, op: Any, wanted: Sequence[list[int]]) -> tuple[str, Any] | None:
        """Return the first array of an op that has another shape than is wanted, and its shape."""
        for name, shape, value in zip(self.array_names(), wanted, op.arrays, strict=True):
            if (found := list(value.type.shape)) != shape:
                return f"{name} of shape {shape}", found
        return None


class FkwAttr(WeightFormatAttr, name="fkw"):
    """FKW (PatDNN): the kernels that are left, each with the entries of one of a few patterns.

    `#pattern.fkw<array<i64: 3, 3>, array<i64: 27, 54>>`: kernel height and width, then one bit mask a pattern; tap
    (dy, dx) is bit `width * dy + dx`. A third kernel size is the depth, the consecutive input channels that one kernel
    spans: in `#pattern.fkw<array<i64: 1, 1, 9>, array<i64: 27>>` bit b is the b-th of nine channels. See `Library`.

    With P patterns of E entries, K kept kernels and F filters the arrays are
        values: K x E, of the input's element type.
        index: K, i16 (i32 for 32768 channels or more).
        offset: F + 1, i32.
        pattern_offsets: F x (P + 1), i16 (i32 where a filter keeps 32768 kernels or more).
        reorder: F, i16 (i32 for 32768 filters or more).

    Stored filter i computes output channel `reorder[i]` from the kernels offset[i] .. offset[i + 1]; of these the
    ones from `offset[i] + pattern_offsets[i][p]` to `offset[i] + pattern_offsets[i][p + 1]` have pattern p. Kernel k
    reads input channel `index[k]`; `values[k]` holds its entries in the row-major order of the pattern's taps.

    With a library of depth KC > 1 kernel k reads the input channels `index[k]` .. `index[k] + KC - 1`, all of them
    below C: its entry (dc, dy, dx) multiplies channel `index[k] + dc`, and entries are in the order of
    `Library.places`. Kernels of one filter may read the same channels; they add up.
    """

    kernel: Any
    masks: Any

    def array_names(self) -> tuple[str, ...]:
        return ("values", "index", "offset", "pattern_offsets", "reorder")

    def kernel_size(self) -> tuple[int, int]:
        return Library.from_attr(self).kernel

    def find_violation(self, op: Any) -> tuple[str, Any] | None:
        kernel, masks = self.kernel.maybe_downcast(), self.masks.maybe_downcast()
        arrays = isinstance(kernel, ir.DenseI64ArrayAttr) and isinstance(masks, ir.DenseI64ArrayAttr)
        if not arrays or not len(masks):
            return "#pattern.fkw of two i64 arrays", self
        sizes = list(kernel)
        if len(sizes) not in (2, 3) or min(sizes) < 1 or math.prod(sizes) > MAX_TAPS:
            return f"2 or 3 kernel sizes of 1 or more, at most {MAX_TAPS} taps in all", sizes
        library = Library.from_attr(self)
        return library.find_violation() or self._find_misfit(op, library)

    def _find_misfit(self, op: Any, library: "Library") -> tuple[str, Any] | None:
        channels, filters = op.input.type.shape[1], op.result.type.shape[1]
        kept = (list(op.arrays[0].type.shape) or [0])[0]
        wanted = [[kept, library.entries], [kept], [filters + 1], [filters, len(library.masks) + 1], [filters]]
        if wrong := self.find_wrong_shape(op, wanted):
            return wrong
        if library.depth > channels:
            return f"a library of depth {channels} or less, the input channels", library.depth
        return None


class BandsAttr(WeightFormatAttr, name="bands"):
    """Bands of neighbouring filters, each with the columns in which any of them has a weight.

    `#pattern.bands<16 : i64, array<i64: 3, 3>>`: R, the filters of a band, which divide F, and the kernel's height and
    width, 1 and 1 of a linear layer. With K columns in all the arrays are
        values: K x R, of the input's element type.
        index: K, i16 (i32 for 32768 inputs of a filter or more), ascending in each band.
        offset: F / R + 1, i32.
        reorder: F, i16 (i32 for 32768 filters or more).

    Stored filters R * i .. R * i + R - 1 have the columns offset[i] .. offset[i + 1] and compute the output channels
    that `reorder` names. Column k multiplies input channel index[k] / (KH * KW) at tap index[k] mod (KH * KW).
    """

    rows: Any
    kernel: Any

    @staticmethod
    def of(rows: int, kernel: tuple[int, int]) -> "BandsAttr":
        return BandsAttr.get(i64(rows), i64_array(kernel))

    def array_names(self) -> tuple[str, ...]:
        return ("values", "index", "offset", "reorder")

    def kernel_size(self) -> tuple[int, int]:
        height, width = self.kernel.maybe_downcast()
        return height, width

    def takes_groups(self) -> bool:
        return False

    def find_violation(self, op: Any) -> tuple[str, Any] | None:
        rows, kernel, filters = self.rows.maybe_downcast(), self.kernel.maybe_downcast(), op.result.type.shape[1]
        if not isinstance(rows, ir.IntegerAttr) or rows.value < 1 or filters % rows.value:
            return f"#pattern.bands of rows that divide {filters} filters", self
        if not isinstance(kernel, ir.DenseI64ArrayAttr) or len(kernel) != 2 or min(list(kernel)) < 1:
            return "#pattern.bands of a kernel's height and width", self
        kept = (list(op.arrays[0].type.shape) or [0])[0]
        return self.find_wrong_shape(op, [[kept, rows.value], [kept], [filters // rows.value + 1], [filters]])


class PacksAttr(WeightFormatAttr, name="packs"):
    """Packs: of bundles of B filters one weight each, whose inputs are in one tile (gather-scatter patterns, without
    banks).

    `#pattern.packs<32 : i64, array<i64: 3, 3>>`: W, the inputs of a tile, at most C and 127, and the kernel's height
    and width, 1 and 1 of a linear layer. With N packs in all, ceil(F / B) bundles and KH * KW * ceil(C / W) tiles the
    arrays are
        values: N x B, of the input's element type.
        index: N x B, i8, the input of each weight counted from the first one of the tile.
        counts: bundles x tiles, i8.
        reorder: F, i16 (i32 for 32768 filters or more).

    Bundle after bundle, and of each tile after tile, come as many packs as `counts` says. Slot s of bundle i computes
    output channel reorder[B * i + s]; weights of one input add up. Tiles come tap after tap, row-major: tile t of a tap
    begins with input channel min(W * t, C - W). Slots without a weight, as those behind the last filter, have zeros.
    """

    tile: Any
    kernel: Any

    @staticmethod
    def of(tile: int, kernel: tuple[int, int]) -> "PacksAttr":
        return PacksAttr.get(i64(tile), i64_array(kernel))

    @property
    def columns(self) -> int:
        """W."""
        return ir.IntegerAttr(self.tile.maybe_downcast()).value

    def array_names(self) -> tuple[str, ...]:
        return ("values", "index", "counts", "reorder")

    def kernel_size(self) -> tuple[int, int]:
        height, width = self.kernel.maybe_downcast()
        return height, width

    def takes_groups(self) -> bool:
        return False

    def find_violation(self, op: Any) -> tuple[str, Any] | None:
        tile, kernel = self.tile.maybe_downcast(), self.kernel.maybe_downcast()
        inputs, filters = op.input.type.shape[1], op.result.type.shape[1]
        if not isinstance(tile, ir.IntegerAttr) or not 1 <= tile.value <= min(inputs, 127):
            return f"#pattern.packs of 1 to {min(inputs, 127)} inputs a tile", self
        if not isinstance(kernel, ir.DenseI64ArrayAttr) or len(kernel) != 2 or min(list(kernel)) < 1:
            return "#pattern.packs of a kernel's height and width", self
        packs, slots = (*op.arrays[0].type.shape, 0, 0)[:2]
        if not slots:
            return "values of packs and slots", list(op.arrays[0].type.shape)
        bundles, tiles = -(-filters // slots), math.prod(kernel) * -(-inputs // tile.value)
        return self.find_wrong_shape(op, [[packs, slots], [packs, slots], [bundles, tiles], [filters]])


class ClampAttr(PatternDialect.Attribute, name="clamp"):
    """An activation that limits values to [minimum, maximum]: `#pattern.clamp<0.0 : f32, 6.0 : f32>`."""

    minimum: Any
    maximum: Any


class ActivationAttr(PatternDialect.Attribute, name="activation"):
    """An activation by its name, with its constants: `#pattern.activation<"leaky_relu", [1.0e-02 : f32]>`.

    A constant may be one number a channel: `#pattern.activation<"leaky_relu", [array<f32: 0.25, 0.5>]>`.
    """

    kind: Any
    constants: Any

    def find_violation(self, channels: int) -> tuple[str, Any] | None:
        """Return the first rule that the attribute breaks in a layer of so many channels, and what was found."""
        kind, constants = self.kind.maybe_downcast(), self.constants.maybe_downcast()
        if not isinstance(kind, ir.StringAttr) or not isinstance(constants, ir.ArrayAttr):
            return "#pattern.activation of a name and a list of constants", self
        for constant in constants:
            if isinstance(constant, ir.DenseF32ArrayAttr) and len(constant) != channels:
                return f"constants of {channels} numbers, one a channel", f"{len(constant)}"
            if not isinstance(constant, (ir.FloatAttr, ir.DenseF32ArrayAttr)):
                return "constants of #pattern.activation to be floats", constant
        return None


class LayoutAttr(PatternDialect.Attribute, name="layout"):
    """Where the elements of an NCHW tensor lie: `#pattern.layout<{halo = array<i64: 1, 1, 1, 1>, ...}>`.

    The fields are those of `Layout`.
    """

    fields: Any

    def find_violation(self, tensor: Any) -> str | None:
        """Return the rule that it breaks as the layout of a ranked tensor; None where it is one."""
        if tensor.rank != 4:
            return "a tensor of rank 4 with #pattern.layout"
        values = self.fields.maybe_downcast()
        found = {item.name: item.attr for item in values} if isinstance(values, ir.DictAttr) else {}
        if found.keys() != _LAYOUT_FIELDS.keys() or not all(
            isinstance(found[name], kind) for name, kind in _LAYOUT_FIELDS.items()
        ):
            return "#pattern.layout with fill, halo, phases, plane and row"
        if len(found["halo"]) != 4 or min(found["halo"]) < 0 or found["fill"].value not in ("zero", "lowest"):
            return "#pattern.layout with a halo of 4 sizes of 0 or more, filled with zero or lowest"
        layout, (height, width) = Layout.from_attr(self), tensor.shape[2:]
        if layout.phases < 1 or layout.row < 1 or layout.pitch < layout.left + width:
            return f"#pattern.layout with rows of {layout.left} + {width} elements or more"
        rows, most = layout.top + height + layout.bottom, MAX_ELEMENTS // (tensor.shape[0] * tensor.shape[1] or 1)
        if not rows * layout.pitch <= layout.plane <= most:
            return f"#pattern.layout with a plane of {rows} x {layout.pitch} to {most} elements"
        return None


_LAYOUT_FIELDS = {
    "fill": ir.StringAttr,
    "halo": ir.DenseI64ArrayAttr,
    "phases": ir.IntegerAttr,
    "plane": ir.IntegerAttr,
    "row": ir.IntegerAttr,
}


class ScheduleAttr(PatternDialect.Attribute, name="schedule"):
    """How a layer is computed: `#pattern.schedule<{algorithm = "pattern-direct", rows = 4 : i64, ...}>`.

    The fields are those of `patc.dialects.schedules.Schedule`.
    """

    fields: Any


class ExplanationAttr(PatternDialect.Attribute, name="explanation"):
    """Why a layer is computed so: `#pattern.explanation<{bound = "multiply-adds", considered = 211 : i64, ...}>`.

    The fields are those of `patc.dialects.schedules.Choice`.
    """

    fields: Any


class TargetAttr(PatternDialect.Attribute, name="target"):
    """The machine that a module is compiled for; the module has it as `pattern.target`.

    `#pattern.target<{cpu = "x86-64-v3", lanes = 8 : i64, name = "x86-64-v3", ...}>`; the fields are those of
    `patc.Target`, without those that have their default.
    """

    fields: Any


def int_array(attr: Any) -> tuple[int, ...]:
    """Return the integers of a `array<i64: ...>` attribute."""
    return tuple(attr.maybe_downcast())


def i64_array(values: Sequence[int]) -> ir.Attribute:
    """Return `array<i64: ...>`."""
    return ir.DenseI64ArrayAttr.get(list(values))


def i64(value: int) -> ir.Attribute:
    """Return an i64 integer attribute."""
    return ir.IntegerAttr.get(ir.IntegerType.get_signless(64), value)


def i1(value: bool) -> ir.Attribute:
    """Return a boolean attribute; the op builders take a false `ir.BoolAttr`, being falsy, for a missing one."""
    return ir.IntegerAttr.get(ir.IntegerType.get_signless(1), int(value))


def f32(value: float) -> ir.Attribute:
    """Return an f32 attribute."""
    return ir.FloatAttr.get(ir.F32Type.get(), value)


@dataclass(frozen=True)
class Library:
    """A pattern library: the size of a kernel, and one bit mask a pattern (paper, sections 3 and 4).

    Attributes:
        kernel: height and width.
        masks: one a pattern; place (dc, dy, dx) of a kernel is bit `(dc * height + dy) * width + dx`.
        depth: consecutive input channels that one kernel spans. The 1x1 convolutions whose groups of nine input
            channels have patterns have depth 9, all others 1.
    """

    kernel: tuple[int, int]
    masks: tuple[int, ...]
    depth: int = 1

    def places(self, pattern: int) -> tuple[tuple[int, int, int], ...]:
        """Return the (dc, dy, dx) of the entries of one pattern, row-major, as values are stored."""
        height, width = self.kernel
        mask = self.masks[pattern]
        bits = (bit for bit in range(self.depth * height * width) if mask >> bit & 1)
        return tuple((bit // (height * width), bit // width % height, bit % width) for bit in bits)

    def taps(self, pattern: int) -> tuple[tuple[int, int], ...]:
        """Return the (dy, dx) of the entries of one pattern, row-major.

        Raises:
            ValueError: the library is deeper than one channel, so that its entries have `places` only.
        """
        if self.depth != 1:
            raise ValueError(f"expected a library of depth 1, got depth {self.depth}")
        return tuple((dy, dx) for _, dy, dx in self.places(pattern))

    @property
    def entries(self) -> int:
        """Entries of each pattern; all patterns of a library have the same number."""
        return bin(self.masks[0]).count("1")

    def find_violation(self) -> tuple[str, Any] | None:
        """Return the first rule that the masks break, and what was found instead."""
        sizes = (*self.kernel, *((self.depth,) if self.depth > 1 else ()))
        outside = [mask for mask in self.masks if not 0 < mask < 1 << math.prod(sizes)]
        if outside:
            return f"patterns within the {'x'.join(map(str, sizes))} kernel", f"mask {outside[0]}"
        if len({bin(mask).count("1") for mask in self.masks}) > 1:
            return "patterns with equally many entries", f"masks {list(self.masks)}"
        return None

    def to_attr(self) -> ir.Attribute:
        depth = () if self.depth == 1 else (self.depth,)
        return FkwAttr.get(i64_array((*self.kernel, *depth)), i64_array(self.masks))

    @staticmethod
    def from_attr(attr: Any) -> "Library":
        height, width, *depth = int_array(attr.kernel)
        return Library((height, width), int_array(attr.masks), *depth)


@dataclass(frozen=True)
class Activation:
    """An epilogue activation.

    Attributes:
        kind: "none", or a name that `patc.passes.activations` knows, as "relu", "clamp" or "silu".
        constants: of its formula, in f32; each a number, or one number a channel.
    """

    kind: str = "none"
    constants: tuple[float | tuple[float, ...], ...] = ()

    def to_attr(self) -> ir.Attribute:
        if self.kind in ("none", "relu"):
            return ir.StringAttr.get(self.kind)
        constants = [
            ir.DenseF32ArrayAttr.get(list(each)) if isinstance(each, tuple) else f32(each) for each in self.constants
        ]
        if self.kind == "clamp":
            return ClampAttr.get(*constants)
        return ActivationAttr.get(ir.StringAttr.get(self.kind), ir.ArrayAttr.get(constants))

    @staticmethod
    def from_attr(attr: Any) -> "Activation":
        if isinstance(attr, ClampAttr):
            return Activation("clamp", (attr.minimum.maybe_downcast().value, attr.maximum.maybe_downcast().value))
        if isinstance(attr, ActivationAttr):
            constants = attr.constants.maybe_downcast()
            numbers = (each.value if isinstance(each, ir.FloatAttr) else tuple(each) for each in constants)
            return Activation(attr.kind.maybe_downcast().value, tuple(numbers))
        return Activation(attr.value)

    @staticmethod
    def of(op: Any) -> "Activation":
        """Return the activation of a layer, "none" of one that has none."""
        return Activation.from_attr(op.attributes["activation"]) if "activation" in op.attributes else Activation()

    @property
    def arrays(self) -> list[tuple[float, ...]]:
        """The constants that are one number a channel."""
        return [each for each in self.constants if isinstance(each, tuple)]


@dataclass(frozen=True)
class Layout:
    """Padded planar layout of an NCHW tensor; all sizes in elements.

    Each channel is a plane of `top + H + bottom` rows. A row holds `phases` sub-rows of `row` elements; element
    (y, x) lies in sub-row `(x + left) % phases` at `(x + left) // phases`. With `phases` 1 a tap of a
    convolution is a constant offset; with `phases` 2 so is a tap of a convolution of stride 2. The right halo of
    a row may be the left halo of the next one. `fill` is what the halo holds: "zero", or "lowest" (minus infinity)
    for max pooling. Behind the right halo a row of two phases holds anything. `Layout.packed` is the row-major order of
    torch and numpy.
    """

    top: int = 0
    left: int = 0
    bottom: int = 0
    right: int = 0
    row: int = 0
    plane: int = 0
    phases: int = 1
    fill: str = "zero"

    @staticmethod
    def packed(height: int, width: int) -> "Layout":
        """Return the layout without halo or gaps."""
        return Layout(row=width, plane=height * width)

    def is_packed(self, height: int, width: int) -> bool:
        """Whether rows and planes follow each other without gaps."""
        return self == Layout.packed(height, width)

    @property
    def pitch(self) -> int:
        """Elements from one row to the next."""
        return self.row * self.phases

    def to_attr(self) -> ir.Attribute:
        values = {
            "fill": ir.StringAttr.get(self.fill),
            "halo": i64_array((self.top, self.left, self.bottom, self.right)),
            "phases": i64(self.phases),
            "plane": i64(self.plane),
            "row": i64(self.row),
        }
        return LayoutAttr.get(ir.DictAttr.get(values))

    @staticmethod
    def from_attr(attr: Any) -> "Layout":
        values = attr.fields.maybe_downcast()
        top, left, bottom, right = int_array(values["halo"])
        row, plane, phases = (values[key].value for key in ("row", "plane", "phases"))
        return Layout(top, left, bottom, right, row, plane, phases, values["fill"].value)

    @staticmethod
    def of(tensor: Any) -> "Layout":
        """Return the layout of a rank 4 tensor type; packed when the type names none."""
        if tensor.encoding is not None and isinstance(tensor.encoding, LayoutAttr):
            return Layout.from_attr(tensor.encoding)
        return Layout.packed(tensor.shape[2], tensor.shape[3])
