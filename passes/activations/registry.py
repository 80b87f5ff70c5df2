"""Which activations there are. To add one, write an entry; others may register theirs, see `register`.

Values are those of PyTorch, also for NaN and infinities: a product of minus infinity and zero is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from patc.diagnostics import PatcError
from patc.dialects.attributes import Activation
from patc.passes.activations.base import ActivationKind
from patc.passes.activations.formulas import Formulas

_Function = Callable[[float], np.ndarray]


def _sigmoid(f: Formulas, x: Any) -> Any:
    z = f.decay(x)  # never overflows, and keeps the bits of small results
    return f.where(x > 0.0, 1.0, z) / (z + 1.0)


def _elu(f: Formulas, x: Any, factor: Any, scale: Any, input_scale: Any) -> Any:
    return f.where(x > 0.0, x * scale, f.expm1(x * input_scale) * factor)


def _guess_elu(function: _Function) -> tuple[Any, ...] | None:
    """Read -factor from far below; from -1/2 and -1, whose ratio is 1 + exp(-input scale / 2), the input scale."""
    far, one, half = (function(x) for x in (-1e4, -1.0, -0.5))
    ratio = one / half - 1.0
    return None if not np.all((ratio > 0.0) & (ratio < 1.0)) else (-far, function(1.0), -2.0 * np.log(ratio))


def _softplus(f: Formulas, x: Any, beta: Any) -> Any:
    return f.at_least(x, 0.0) + f.log1p(f.decay(x * beta)) / beta


def _mish(f: Formulas, x: Any) -> Any:
    """x tanh(log(1 + e)), with e = exp(x): tanh of half a logarithm is a quotient."""
    e = f.exp(f.at_most(x, 20.0))
    n = e * (e + 2.0)
    return x * (n / (n + 2.0))


def _gelu_tanh(f: Formulas, x: Any) -> Any:
    """x (1 + tanh(u)) / 2, which is x sigmoid(2 u)."""
    return x * _sigmoid(f, (x * x * x * 0.044715 + x) * (2.0 * math.sqrt(2.0 / math.pi)))


def _affine(f: Formulas, x: Any, low: float, high: float, scale: Any, shift: Any, *limits: float) -> Any:
    return _limit(f, _limit(f, x, low, high) * scale + shift, *limits)


def _limit(f: Formulas, x: Any, minimum: float, maximum: float) -> Any:
    above = x if minimum == -math.inf else f.at_least(x, minimum)
    return above if maximum == math.inf else f.at_most(above, maximum)


def _guess_silu(function: _Function) -> tuple[Any, ...] | None:
    share = function(1.0)  # 1 / (1 + exp(-beta))
    return (np.log(share / (1.0 - share)),) if np.all((share > 0.0) & (share < 1.0)) else None


_KINDS = (
    ActivationKind("relu", lambda f, x: f.at_least(x, 0.0), is_non_negative=lambda: True),
    ActivationKind(
        "clamp",
        lambda f, x, minimum, maximum: f.at_most(f.at_least(x, minimum), maximum),
        lambda function: (function(-1e30), function(1e30)),
        # Where the bounds are in the wrong order, the upper one is all there is.
        is_non_negative=lambda minimum, maximum: bool(np.all(np.minimum(minimum, maximum) >= 0.0)),
    ),
    # What is left of batch norm where it follows no convolution, and clamps around it.
    ActivationKind(
        "affine",
        _affine,
        lambda function: None,
        is_non_negative=lambda low, high, scale, shift, minimum, maximum: min(minimum, maximum) >= 0.0,
    ),
    ActivationKind(
        "leaky_relu", lambda f, x, slope: f.where(x > 0.0, x, x * slope), lambda function: (-function(-1.0),)
    ),
    ActivationKind(
        "hardsigmoid",
        lambda f, x, slope, middle: f.at_most(f.at_least(x * slope + middle, 0.0), 1.0),
        lambda function: (8.0 * (function(0.125) - function(0.0)), function(0.0)),
        is_non_negative=lambda slope, middle: True,
    ),
    ActivationKind("hardswish", lambda f, x: f.at_most(f.at_least(x + 3.0, 0.0), 6.0) * (1.0 / 6.0) * x),
    ActivationKind("sigmoid", _sigmoid, is_non_negative=lambda: True, is_long=True),
    ActivationKind("tanh", lambda f, x: f.tanh(x), is_long=True),
    ActivationKind("silu", lambda f, x, beta: x * _sigmoid(f, x * beta), _guess_silu, is_long=True),
    ActivationKind("gelu", lambda f, x: f.gelu(x), is_long=True),
    # torch-mlir takes 22/7 for pi.
    ActivationKind("gelu_tanh", _gelu_tanh, tolerance=1e-4, is_long=True),
    ActivationKind("elu", _elu, _guess_elu, is_long=True),
    ActivationKind(
        "softplus",
        _softplus,
        lambda function: (math.log(2.0) / function(0.0),),
        is_non_negative=lambda beta: True,
        is_long=True,
    ),
    ActivationKind("mish", _mish, is_long=True),
)
_registered = {kind.name: kind for kind in _KINDS}


def register(kind: ActivationKind) -> None:
    """Let patc know an activation.

    Raises:
        ValueError: there is one of that name.
    """
    if kind.name in _registered:
        raise ValueError(f"expected a new activation, got '{kind.name}'")
    _registered[kind.name] = kind


def kinds() -> Iterator[ActivationKind]:
    """Yield all kinds, in the order in which functions are compared with them."""
    yield from _registered.values()


def kind_of(activation: Activation) -> ActivationKind:
    """Return the kind of an activation, which is one.

    Raises:
        PatcError: there is none of that name.
    """
    if activation.kind not in _registered:
        raise PatcError(f"expected an activation, {', '.join(_registered)}, got '{activation.kind}'")
    return _registered[activation.kind]
