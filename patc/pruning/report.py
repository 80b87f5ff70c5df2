"""What pruning kept, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from patc.pruning.libraries import Library


@dataclass(frozen=True)
class LayerReport:
    """One weight after pruning.

    Attributes:
        name: the module's name in the model, "" if the model is a convolution itself; with the parameter's behind it
            unless that is `weight`.
        shape: of the weight: filters, input channels / groups and the size of a kernel; of a transposed convolution
            input channels, filters / groups and so on.
        kind: "pattern" and "pointwise-groups" have patterns and connectivity sparsity, "pattern-only"
            and "depthwise" have no connectivity sparsity, "dense" is untouched; else "block", "kernel-blocks",
            "gather-scatter", "crossbar", "unstructured" or "filters". What is on levels has their bits behind that, or
            alone: "pattern, 4 bits", "8 bits".
        kernels: kernels that patterns apply to; for a dense layer its filters x input channels / groups. Of other
            schemes their units, such as columns of bands.
        kept_kernels: those of them that are not zero.
        weights: number of weights, without the bias.
        kept_weights: weights that have to be stored: all taps of the patterns of kept kernels, and what
            stays dense.
        histogram: mask -> kept kernels of that pattern, in the order of the library; empty if dense. Masks are
            those of kernels of another size than 3x3 where `shape` says so.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    kernels: int
    kept_kernels: int
    weights: int
    kept_weights: int
    histogram: Mapping[int, int]


@dataclass(frozen=True)
class PruneReport:
    """What `prune_` did. `str()` gives a table with one line a layer.

    Attributes:
        library: the masks of a `PatternSpec`; none of a `Plan`.
        connectivity: all kernels / kept kernels that was asked for, or solved for, on each layer that has
            connectivity sparsity; of a plan, units over kept ones of each weight without a rate of its own.
        layers: every convolution of the model, or every weight that a plan names, in the order of its modules.
    """

    library: Library
    connectivity: float
    layers: tuple[LayerReport, ...]

    @property
    def weights(self) -> int:
        """Weights of all layers, the dense ones too."""
        return sum(layer.weights for layer in self.layers)

    @property
    def kept_weights(self) -> int:
        """Weights of all layers that have to be stored."""
        return sum(layer.kept_weights for layer in self.layers)

    @property
    def kernels(self) -> int:
        """Kernels that patterns apply to."""
        return sum(layer.kernels for layer in self.layers if layer.kind != "dense")

    @property
    def kept_kernels(self) -> int:
        """Those of `kernels` that are not zero."""
        return sum(layer.kept_kernels for layer in self.layers if layer.kind != "dense")

    @property
    def compression(self) -> float:
        """All weights / kept ones; infinite if every weight was zero."""
        return _rate(self.weights, self.kept_weights)

    @property
    def histogram(self) -> dict[int, int]:
        """Mask -> kept kernels of that pattern in the whole model, in the order of the library.

        Kernels that are not 3x3, or nine channels of a 1x1 kernel, do not count: their masks are of another kind.
        """
        layers = [layer for layer in self.layers if tuple(layer.histogram) == self.library]
        return {mask: sum(layer.histogram.get(mask, 0) for layer in layers) for mask in self.library}

    def __str__(self) -> str:
        header = ("layer", "shape", "kind", "kernels", "kept", "weights", "kept", "rate", "patterns")
        rows = [header, *(_row(layer) for layer in self.layers), self._total()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
        lines = [_align(row, widths) for row in rows]
        masks = " ".join(str(mask) for mask in self.library)
        if not masks:
            return "\n".join(lines)
        return "\n".join([*lines, f"connectivity {self.connectivity:.3f}x, patterns in the order {masks}"])

    def _total(self) -> tuple[str, ...]:
        pruned = [layer for layer in self.layers if layer.kind != "dense"]
        return (
            "total", "", f"{len(pruned)} of {len(self.layers)}",
            str(self.kernels), str(self.kept_kernels),
            str(self.weights), str(self.kept_weights), f"{self.compression:.2f}x",
            " ".join(str(count) for count in self.histogram.values()),
        )  # fmt: skip


def _row(layer: LayerReport) -> tuple[str, ...]:
    return (
        layer.name or "(the model)", "x".join(str(size) for size in layer.shape), layer.kind,
        str(layer.kernels), str(layer.kept_kernels), str(layer.weights), str(layer.kept_weights),
        f"{_rate(layer.weights, layer.kept_weights):.2f}x",
        " ".join(str(count) for count in layer.histogram.values()) or "-",
    )  # fmt: skip


def _align(row: tuple[str, ...], widths: list[int]) -> str:
    text_columns = (0, 1, 2, len(row) - 1)
    cells = [
        cell.ljust(width) if i in text_columns else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


def _rate(everything: int, kept: int) -> float:
    return everything / kept if kept else float("inf")
