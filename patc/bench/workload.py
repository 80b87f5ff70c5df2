"""What is measured: a network, its weights, how it is pruned, and its inputs."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from patc.diagnostics import PatcError
from patc.factories import is_factory
from patc.torch_archives import describe_content

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.export import ExportedProgram

    from patc.factories import Built
    from patc.pruning import PatternSpec

Kind = Literal["dense", "pruned"]
INPUT_SEED = 1
FILE_SUFFIXES = (".pt2", ".onnx", ".mlir", ".patc")


@dataclass(frozen=True)
class Workload:
    """A network with a batch of inputs. It builds the same tensors in every process.

    Attributes:
        model: what `patc.factories.build` takes, also a .param file, or the path of a .pt2, .onnx or compiled file.
        weights: state dict file for a named model; None takes seeded weights.
        seed: of those.
        batch: images of a named model.
        pruning: fields of the `PatternSpec` of a model, .pt2 files included; None leaves the weights as they are.
        trust_pickle: files are read by unpickling, which runs code that they hold.
        shapes: of inputs of an .onnx or .param file, by their names, where the file leaves them open.
    """

    model: str
    weights: str | None = None
    seed: int = 0
    batch: int = 1
    pruning: dict[str, Any] | None = None
    trust_pickle: bool = False
    shapes: Mapping[str, Sequence[int]] | None = None

    @property
    def is_file(self) -> bool:
        """Whether the model comes from a file."""
        is_path = (os.sep in self.model or Path(self.model).suffix != "") and not is_factory(self.model)
        return not self.is_ncnn and (Path(self.model).suffix.lower() in FILE_SUFFIXES or is_path)

    @property
    def is_ncnn(self) -> bool:
        """Whether the model is a .param file, which becomes a module of torch."""
        return Path(self.model).suffix.lower() == ".param"

    @property
    def is_onnx(self) -> bool:
        """Whether the model is an .onnx file, which PyTorch does not run."""
        return Path(self.model).suffix.lower() == ".onnx"

    @property
    def is_program(self) -> bool:
        """Whether the model is a .pt2 file, whose weights can be pruned."""
        return Path(self.model).suffix.lower() == ".pt2"

    @property
    def is_compiled(self) -> bool:
        """Whether the model is a file of `patc compile`, which nothing else runs."""
        return Path(self.model).suffix.lower() == ".patc"

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The weights that rivals run on: dense, and those that patc runs where they are pruned."""
        return ("dense",) if self.pruning is None else ("dense", "pruned")

    @property
    def measured_kind(self) -> Kind:
        """The weights that patc runs on."""
        return self.kinds[-1]

    def absolute(self) -> Workload:
        """Return the workload with paths that hold in any folder."""
        place = self.model.rpartition(":")[0] if is_factory(self.model) else self.model
        model = os.path.abspath(self.model) if self.is_file or self.is_ncnn or place.endswith(".py") else self.model
        return replace(self, model=model, weights=self.weights and os.path.abspath(self.weights))

    def check(self) -> None:
        """Refuse what cannot be measured.

        Raises:
            PatcError: a file together with options that only named models take, or a value out of range.
        """
        if self.batch < 1:
            raise PatcError(f"expected a batch of 1 or more, got {self.batch}")
        if self.pruning is not None:
            self.spec()
        if self.is_file:
            self._check_file()

    def _check_file(self) -> None:
        if self.pruning is not None and not self.is_program:
            raise PatcError("expected the name of a model or a .pt2 file together with pruning, got a file", self.model)
        for option, given in {"--weights": self.weights is not None, "--batch": self.batch != 1}.items():
            if given:
                raise PatcError(f"expected the name of a model together with {option}, got a file", self.model)
        if Path(self.model).suffix.lower() not in (".pt2", ".onnx", ".patc"):
            content = describe_content(self.model)
            found = "" if content is None else f"; found {content}"
            raise PatcError(f"expected a .pt2 or .onnx file, which others run too, or a .patc file{found}", self.model)

    def spec(self) -> PatternSpec:
        """Return what a model is pruned to.

        Raises:
            PatcError: a field is out of range.
        """
        from patc.pruning import PatternSpec

        return PatternSpec(**(self.pruning or {}))

    def build(self, kind: Kind) -> nn.Module:
        """Return the network in eval mode.

        Raises:
            PatcError: the name, the file or its contents are wrong, or the compression is out of reach.
        """
        if self.is_file:
            return self._load_program(kind).module()
        from patc import pruning

        model = self._build().model
        if kind == "pruned" and self.pruning is not None:
            pruning.prune_(model, self.spec())
        return model

    def source(self, model: Any) -> Any:
        """Return what patc compiles: `model` of the measured kind, or where it comes from a file, that file or its
        program."""
        if not self.is_file:
            return model
        is_read = self.is_program and (self.pruning is not None or self.trust_pickle)
        return self._load_program(self.measured_kind) if is_read else self.model

    def input_shapes(self) -> list[tuple[int, ...]]:
        """Return the shapes of the inputs.

        Raises:
            PatcError: the file cannot be read, or it takes something other than tensors of known shapes.
        """
        if self.is_onnx:
            return [shape for _, shape in self._onnx_inputs()]
        if self.is_file:
            return _program_shapes(self._load_program(), self.model)
        if not is_factory(self.model) and not self.is_ncnn:
            from patc.models import MODELS

            return [(self.batch, *MODELS[self.model].input_shape[1:])]
        return [self._shape_of(tensor) for tensor in self._given_inputs()]

    def _given_inputs(self) -> Sequence[Tensor]:
        """Return the inputs that come with a model that a function builds, or an ncnn file."""
        built = self._build()
        if built.inputs is None:
            raise PatcError("expected a function that returns (model, inputs), found a model alone", self.model)
        _require_floats(built.tensors, self.model, are_given=True)
        return built.tensors

    def _shape_of(self, given: Tensor) -> tuple[int, ...]:
        """Return the shape of an input that is given, with as many images as are measured."""
        batch = () if self.batch == 1 else (self.batch,)
        return (*batch, *given.shape[len(batch) :])

    def _build(self) -> Built:
        from patc.checkpoints import read_checkpoint
        from patc.factories import build

        weights = None if self.weights is None else read_checkpoint(self.weights, self.trust_pickle)
        built = build(self.model, weights, self.seed)
        if not self.is_ncnn:
            return built
        from patc.frontend.ncnn import net_inputs

        shapes = {name: tuple(shape) for name, shape in (self.shapes or {}).items()}
        return replace(built, inputs=tuple(net_inputs(built.model, shapes).values()))

    def write_onnx(self, path: Path) -> None:
        """Write the .onnx file again, with the shapes that are measured.

        Raises:
            PatcError: as `input_shapes`.
        """
        import onnx

        model, shapes = onnx.load(self.model), dict(self._onnx_inputs())
        for value in model.graph.input:
            shape = shapes.get(value.name)
            if shape is not None:
                value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, onnx.TensorProto.FLOAT, shape))
        onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.data")

    def _onnx_inputs(self) -> list[tuple[str, tuple[int, ...]]]:
        from patc.frontend.onnx_files import load_onnx, read_model
        from patc.frontend.onnx_graph import make_graph, value_type
        from patc.frontend.onnx_shapes import set_input_shapes

        graph = make_graph(read_model(Path(self.model)), Path(self.model))
        set_input_shapes(graph, self.shapes)
        types = {value.name: value_type(value) for value in graph.model.graph.input}
        for name, type_ in types.items():
            if type_.element != load_onnx().TensorProto.FLOAT:
                raise PatcError(f"expected float32 inputs to measure with, found '{name}' of another type", self.model)
        return [(name, type_.sizes) for name, type_ in types.items()]

    def _load_program(self, kind: Kind = "dense") -> ExportedProgram:
        from patc.frontend.pt2 import load_program
        from patc.pruning.exported import prune_program_

        program = load_program(self.model, self.trust_pickle)
        if kind == "pruned" and self.pruning is not None:
            prune_program_(program, self.spec())
        return program

    def make_inputs(self) -> list[np.ndarray]:
        """Return seeded float32 inputs; integers are those of the function that builds the model, over and over for
        more of them."""
        generator = np.random.default_rng(INPUT_SEED)
        if not is_factory(self.model):
            return [generator.standard_normal(shape, np.float32) for shape in self.input_shapes()]
        return [
            generator.standard_normal(self._shape_of(given), np.float32)
            if given.is_floating_point()
            else np.resize(given.numpy(), self._shape_of(given))
            for given in self._given_inputs()
        ]


def _require_floats(values: Iterable[Any], place: str, are_given: bool = False) -> None:
    """Refuse tensors of another type than float32; integers that are given can be measured with."""
    import torch

    for value in values:
        dtype = getattr(value, "dtype", None) or torch.float32
        if dtype != torch.float32 and (dtype.is_floating_point or dtype.is_complex or not are_given):
            raise PatcError(f"expected float32 inputs to measure with, found {str(dtype)[6:]}", place)


def _program_shapes(program: Any, path: str) -> list[tuple[int, ...]]:
    names = set(program.graph_signature.user_inputs)
    values = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    _require_floats(values, path)
    shapes = [tuple(getattr(value, "shape", ("?",))) for value in values]
    for shape in shapes:
        if not all(isinstance(size, int) for size in shape):
            raise PatcError(f"expected inputs of known shapes, found {list(map(str, shape))}", path)
    return shapes


def reference(model: nn.Module, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return what torch computes in float64."""
    import torch

    exact, tensors = copy.deepcopy(model).double(), [torch.from_numpy(array) for array in inputs]
    with torch.no_grad():
        return leaves(exact(*(tensor.double() if tensor.is_floating_point() else tensor for tensor in tensors)))


def leaves(outputs: Any) -> list[np.ndarray]:
    """Return the tensors in nested outputs as arrays."""
    import torch
    from torch.utils import _pytree as pytree

    tensors: list[torch.Tensor] = [x for x in pytree.tree_leaves(outputs) if isinstance(x, torch.Tensor)]
    return [tensor.detach().numpy() for tensor in tensors]


def relative_error(found: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> float:
    """Return the largest difference of any output over that output's largest magnitude; infinite for NaN.

    Raises:
        PatcError: the outputs differ in number or size.
    """
    sizes = [array.size for array in found], [array.size for array in wanted]
    if sizes[0] != sizes[1]:
        raise PatcError(f"expected outputs of {sizes[1]} elements, got {sizes[0]}")
    worst = 0.0
    for one, other in zip(found, wanted, strict=True):
        difference = np.abs(one.reshape(other.shape).astype(np.float64) - other).max(initial=0.0)
        error = float(difference / np.abs(other).max(initial=1e-30))
        worst = max(worst, error if np.isfinite(error) else float("inf"))
    return worst
