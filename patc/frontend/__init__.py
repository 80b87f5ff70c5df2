"""Front ends: they turn a model into a module of linalg ops on tensors and a parameter store.

`import_model` takes every kind of model that one of them reads. torch is loaded with the first model, not
with this package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from patc.locks import compiling

if TYPE_CHECKING:
    from torch_mlir import ir

    from patc.frontend.torch import ImportedModel

# One for each input, by place or by name; for an .onnx file also shapes by name.
ExampleInputs: TypeAlias = Sequence[Any] | Mapping[str, Any] | None

ACCEPTED = "a torch.nn.Module, a torch.export.ExportedProgram or the path of a .pt2 file"


@compiling()
def import_model(model: Any, example_inputs: ExampleInputs, context: ir.Context) -> ImportedModel:
    """Import a model as linalg ops on tensors.

    Args:
        model: a torch.nn.Module in eval mode, a torch.export.ExportedProgram, or the path of a .pt2 file.
        example_inputs: tensors of the shapes and element types to compile for, in order or by name; None takes
            those of the program.
        context: from `patc.context.make_context`.

    Raises:
        PatcError: the model is of another kind, its file cannot be read, or patc cannot compile it.
    """
    from patc.frontend import torch as torch_frontend

    return torch_frontend.import_model(model, example_inputs, context)
