"""What a network looks at, dense and pruned: kernels, patterns, attributions and inverted representations.

Guided backpropagation and integrated gradients are captum's; the inverted representation is an image that is optimised
to give a layer the same output as the picture does (paper, section 7.2). `write_pictures` draws them all.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor, nn

from patc.diagnostics import PatcError, first_line
from patc.files import make_folder
from patc.pruning.data import denormalise
from patc.pruning.plots import require_matplotlib, save_heat_maps, save_histogram, save_pictures

_STEPS = 32  # points of the path of integrated gradients
_SMOOTHNESS = 2e-2  # of inverted representations: weight of the differences between neighbouring pixels
_REFLECTED = (0.5, 99.5)  # percentiles that an attribution is drawn between


def kernel_heat_maps(model: nn.Module) -> dict[str, np.ndarray]:
    """Return the mean magnitude of each tap over the kernels of every convolution larger than 1x1 (figure 1)."""
    maps = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1:
            maps[name] = module.weight.detach().abs().mean((0, 1)).double().cpu().numpy()
    return maps


def main_patterns(model: nn.Module) -> dict[int, int]:
    """Return how many 3x3 kernels have their four largest weights at each mask (figure 4).

    Zeros do not count: a pruned kernel of four weights gives its pattern, and one of nothing but zeros none.
    """
    counts = torch.zeros(512, dtype=torch.int64)
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            sizes = module.weight.detach().abs().reshape(-1, 9).cpu()
            four = sizes.sort(dim=1, descending=True, stable=True).indices[:, :4]
            masks = ((sizes.gather(1, four) > 0).long() << four).sum(1)
            counts += torch.bincount(masks, minlength=512)
    return {mask: count for mask, count in enumerate(counts.tolist()) if mask and count}


def guided_backpropagation(model: nn.Module, image: Tensor, target: int) -> Tensor:
    """Return the gradient of a class score with negative parts cut off at every ReLU, of the image's shape.

    Raises:
        PatcError: captum is missing, or the model has no module nn.ReLU or nn.ReLU6.
    """
    attribution = _captum().GuidedBackprop(_with_relus(model))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it sets hooks
        return attribution.attribute(image.clone().requires_grad_(), target=target).detach()


def integrated_gradients(model: nn.Module, image: Tensor, target: int) -> Tensor:
    """Return the integral of the gradient from black (zero) to the image, times the image.

    Raises:
        PatcError: captum is missing.
    """
    attribution = _captum().IntegratedGradients(model)
    return attribution.attribute(image, target=target, n_steps=_STEPS, internal_batch_size=8).detach()


def inverted_representation(
    model: nn.Module, layer: nn.Module, image: Tensor, steps: int = 150, seed: int = 0
) -> Tensor:
    """Return an image that gives `layer` nearly the output that `image` does, from noise, by Adam.

    Minimised is |f(x) - f(image)|^2 / |f(image)|^2 plus a little of the squared differences of neighbouring pixels.
    """
    wanted = _output_of(model, layer, image).detach()
    scale = wanted.square().sum().clamp_min(1e-30)
    generator = torch.Generator().manual_seed(seed)
    guess = (0.1 * torch.randn(image.shape, generator=generator)).to(image.device).requires_grad_()
    optimizer = torch.optim.Adam([guess], lr=0.05)
    for _ in range(steps):
        apart = (_output_of(model, layer, guess) - wanted).square().sum() / scale
        rough = guess.diff(dim=2).square().mean() + guess.diff(dim=3).square().mean()
        (guess.grad,) = torch.autograd.grad(apart + _SMOOTHNESS * rough, guess)
        optimizer.step()
    return guess.detach()


class _Reached(Exception):
    """A layer's output, on the way out of the model."""


def _output_of(model: nn.Module, layer: nn.Module, image: Tensor) -> Tensor:
    """Return what `layer` gives for an image; what comes after it is not computed."""

    def leave(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        raise _Reached(output)

    handle = layer.register_forward_hook(leave)
    try:
        model(image)
    except _Reached as reached:
        output: Tensor = reached.args[0]
        return output
    finally:
        handle.remove()
    raise PatcError("expected a layer that the model computes, found one that it does not use")


def write_pictures(models: Mapping[str, nn.Module], image: Tensor, folder: Path) -> list[Path]:
    """Draw every model's kernels and patterns, and what all of them see in a picture; return the files.

    Args:
        models: by a word such as "dense"; in eval mode, on the CPU.
        image: 1 x 3 x H x W, normalised.
        folder: made when all that goes there is computed.

    Raises:
        PatcError: matplotlib or captum is missing, a model has no convolution or does not take the image, or the
            folder cannot be made.
    """
    require_matplotlib()
    _captum()
    maps = {word: kernel_heat_maps(model) for word, model in models.items()}
    for word, model in models.items():
        if not maps[word]:
            raise PatcError(f"expected a model with convolutions to draw, found a {type(model).__name__} without")
    first = next(iter(models.values()))
    try:
        target = int(first(image).argmax())
    except (RuntimeError, ValueError) as error:
        size = "x".join(map(str, image.shape))
        raise PatcError(f"expected a model that takes an image of {size}, found: {first_line(error)}") from error
    rows: dict[str, list[np.ndarray]] = {}
    for word, model in models.items():
        layer = model.get_submodule(list(maps[word])[min(len(maps[word]) - 1, len(maps[word]) // 3)])
        rows[word] = [
            _as_picture(image),
            _as_attribution(guided_backpropagation(model, image, target)),
            _as_attribution(integrated_gradients(model, image, target).sum(1, keepdim=True)),
            _as_picture(inverted_representation(model, layer, image)),
        ]
    make_folder(folder)
    files = []
    for word, model in models.items():
        files.append(folder / f"kernels-{word}.png")
        save_heat_maps(files[-1], maps[word])
        if patterns := main_patterns(model):
            files.append(folder / f"patterns-{word}.png")
            save_histogram(files[-1], patterns)
    files.append(folder / "attributions.png")
    titles = ("picture", "guided backpropagation", "integrated gradients", "inverted representation")
    save_pictures(files[-1], rows, titles)
    return files


class _AtMostSix(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(max=6.0)


def _with_relus(model: nn.Module) -> nn.Module:
    """Return a copy in which every ReLU6 is a ReLU, which captum knows, and a bound above it.

    Raises:
        PatcError: there is no ReLU whose gradients could be changed.
    """
    model = copy.deepcopy(model)
    parents = [
        (parent, name)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.ReLU6)
    ]
    for parent, name in parents:
        setattr(parent, name, nn.Sequential(nn.ReLU(), _AtMostSix()))
    if not any(isinstance(module, nn.ReLU) for module in model.modules()):
        raise PatcError("expected a model with modules nn.ReLU or nn.ReLU6 for guided backpropagation, found none")
    return model


def _captum() -> ModuleType:
    try:
        from captum import attr
    except ImportError:
        raise PatcError("expected captum for attributions, found none: pip install 'patc[train]'") from None
    return attr


def _as_picture(image: Tensor) -> np.ndarray:
    """Return H x W x 3 from 0 to 1 of a normalised image."""
    return denormalise(image[0]).clamp(0, 1).permute(1, 2, 0).numpy()


def _as_attribution(values: Tensor) -> np.ndarray:
    """Return an attribution stretched from 0 to 1: H x W x 3, or H x W of one channel."""
    picture = values[0].permute(1, 2, 0).squeeze(-1).double().numpy()
    low, high = np.percentile(picture, _REFLECTED)
    return ((picture - low) / max(high - low, 1e-30)).clip(0, 1)
