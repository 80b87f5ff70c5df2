"""What makes a function of a raised model: for each kind of machine, and of the layers' own linalg."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from emulated import compile_emulated, needs_arm
from gpu import compile_for_gpu, needs_device
from helpers import assert_close, raised_model, torch_results
from native import compile_native
from torch import Tensor, nn
from torch_mlir import ir

from patc.codegen.reference import execute
from patc.parameters import ParameterStore

COMPILERS = [
    compile_native,
    pytest.param(compile_emulated, marks=needs_arm),
    pytest.param(compile_for_gpu, marks=needs_device),
]


def compile_reference(module: ir.Module, parameters: ParameterStore) -> Callable[..., Sequence[np.ndarray]]:
    return lambda *arrays: execute(module, parameters, arrays)


def check_compiled(model: nn.Module, inputs: Sequence[Tensor], compiler: Callable[..., Any], **how: Any) -> None:
    """Require of what a compiler makes of a model the numbers of float64."""
    module, state = raised_model(model, inputs)
    found = compiler(module, state.parameters, **how)(*(x.numpy() for x in inputs))
    assert_close(found, torch_results(model, inputs))
