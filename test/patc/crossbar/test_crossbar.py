"""Crossbars: projections beside brute force, counts beside loops, conductances, noise in training, and aihwkit."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import patc
from patc.crossbar.analog import INSTALL
from patc.crossbar.mapping import Counts, count_devices
from patc.diagnostics import PatcError
from patc.pruning import Admm, AdmmSchedule, Both, Crossbar, Levels, Magnitude, Plan, Pruner, prune_
from patc.pruning.sites import find_sites
from patc.pruning.tiling import number_parts

pytestmark = pytest.mark.usefixtures("one_thread")


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 10, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(90, 21), nn.ReLU(), nn.Linear(21, 4)
    )


def test_parts_differ_by_one_at_most() -> None:
    assert number_parts(7, 3).tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert number_parts(4, 8).tolist() == [0] * 4 and number_parts(3, 1).tolist() == [0, 1, 2]


@pytest.mark.parametrize("remove", ["columns", "rows"])
def test_projections_keep_what_brute_force_keeps(remove: Any) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(5, 4)
    constraint = Crossbar(3, remove).constrain(find_sites(layer)[0])
    assert not isinstance(constraint, str)
    rows = [[0], [1], [2], [3]] if remove == "columns" else [[0, 1], [2, 3]]
    columns = [[0, 1, 2], [3, 4]] if remove == "columns" else [[0], [1], [2], [3], [4]]
    parts = [torch.tensor(list(itertools.product(r, c))).T for r in rows for c in columns]
    assert constraint.units == len(parts) and constraint.unit_weights == max(part.shape[1] for part in parts)
    squares = layer.weight.detach().double().square()
    sums = [float(squares[tuple(part)].sum()) for part in parts]
    for keep in range(1, len(parts)):
        mask = constraint.mask(layer.weight, keep)
        assert float(squares[mask].sum()) == pytest.approx(sum(sorted(sums)[-keep:]))
        assert constraint.count(torch.where(mask, layer.weight, 0.0)) == keep
    groups, sizes = constraint.group_squares(layer.weight)
    assert groups.tolist() == pytest.approx(sums) and sizes.tolist() == [part.shape[1] for part in parts]


def count_by_loops(there: Tensor, size: int) -> Counts:
    outputs, inputs = (number_parts(count, size).tolist() for count in there.shape)
    columns, pairs, per_input, per_output = 0, 0, [0] * (inputs[-1] + 1), [0] * (outputs[-1] + 1)
    for out, into in itertools.product(range(outputs[-1] + 1), range(inputs[-1] + 1)):
        tile = there[[part == out for part in outputs]][:, [part == into for part in inputs]]
        used = int(tile.any(1).sum()), int(tile.any(0).sum())
        columns, pairs = columns + used[0], pairs + used[0] * used[1]
        per_input[into] += used[0]
        per_output[out] += used[1]
    return Counts(min(sum(-(-used // size) for used in each) for each in (per_input, per_output)), columns, pairs)


@pytest.mark.parametrize("size", [1, 3, 4, 16])
def test_devices_are_counted_tile_by_tile(size: int) -> None:
    torch.manual_seed(size)
    there = torch.rand(11, 9) < 0.15
    assert count_devices(there, size) == count_by_loops(there, size)
    assert count_devices(torch.zeros(11, 9, dtype=torch.bool), size) == Counts(0, 0, 0)
    assert count_devices(torch.ones(11, 9, dtype=torch.bool), size).pairs == 99


def pruned(bits: int = 5, size: int = 16) -> nn.Sequential:
    model = net()
    prune_(model, Plan([("[04]", Both(Crossbar(size), Levels(bits)), 2.0), ("*", Levels(bits))]))
    return model


@pytest.mark.parametrize("bits", [1, 2, 5, 8])
def test_conductances_give_the_weights_back(bits: int) -> None:
    model = pruned(bits)
    mapping = patc.crossbar.map(model, size=16, bits=bits, least=0.5, most=20.0)
    assert [layer.name for layer in mapping.layers] == ["0", "4", "6"] and mapping.digital == ()
    for layer in mapping.layers:
        weight = model.get_submodule(layer.name).weight
        found = (layer.positive - layer.negative) * layer.scales[:, None]
        assert torch.allclose(found, weight.flatten(1), rtol=1e-4, atol=1e-6)
        each = torch.stack([layer.positive, layer.negative])
        assert float(each.amin()) == 0.5 and float(each.amax()) <= 20.0001 and bool((each.amin(0) == 0.5).all())
        assert len((each * 1e3).round().unique()) <= max(2, 2 ** (bits - 1))
    text = str(mapping).splitlines()
    assert text[0].split() == ["layer", "outputs", "x", "inputs", "tiles", "of", "columns", "of", "pairs", "of"]
    assert text[2].split()[:2] == ["4", "21x90"] and text[-1].split()[0] == "total"
    assert mapping.used.columns < mapping.dense.columns and mapping.used.tiles <= mapping.dense.tiles
    assert mapping.dense.pairs == sum(layer.positive.numel() for layer in mapping.layers)


def test_what_is_no_layer_of_a_crossbar_stays_digital() -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"depthwise": nn.Conv2d(4, 4, 3, groups=4), "rnn": nn.GRU(4, 4), "head": nn.Linear(4, 4)})
    prune_(model, Plan([("head", Levels(3))]))
    mapping = patc.crossbar.map(model, bits=3)
    assert [layer.name for layer in mapping.layers] == ["head"]
    assert mapping.digital == ("depthwise", "rnn.weight_ih_l0", "rnn.weight_hh_l0")


def test_noise_is_of_training_alone_and_spares_what_is_masked() -> None:
    model = net()
    pruner = Pruner(
        model, Plan([("[04]", Both(Crossbar(16), Levels(5)), 2.0), ("*", Levels(5))]), Magnitude(1, ramp=0.0)
    )
    pruner.prepare()
    mismatch = patc.crossbar.Mismatch(model, sigma=0.1)
    mismatch.prepare()
    mismatch.prepare()
    pruner.harden()
    model.eval()
    quiet = model[4].weight.detach().clone()
    assert torch.equal(model[4].weight, quiet)
    model.train()
    noisy = torch.stack([model[4].weight.detach() for _ in range(400)])
    there = pruner._pruned[1].mask(quiet, 10**6)
    assert not bool(noisy[:, ~there].any()) and bool((noisy.std(0)[there] > 0).all())
    spread = noisy.std(0) / quiet.abs().amax(1, keepdim=True)
    assert float(spread[there].mean()) == pytest.approx(0.1, rel=0.02)
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    gradient = pruner._pruned[1].weight.grad
    assert gradient is not None and bool(torch.isfinite(gradient).all()) and not bool(gradient[~there].any())
    with pytest.raises(PatcError, match=r"^0: expected a weight that only the pruner computes, found another"):
        pruner.finalize()
    mismatch.finalize()
    pruner.finalize()
    assert torch.equal(model[4].weight, quiet)


def test_noise_without_a_pruner_goes_as_it_came() -> None:
    model = net()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    mismatch = patc.crossbar.Mismatch(model)
    mismatch.prepare()
    assert not torch.equal(model[0].weight, before["0.weight"])
    mismatch.finalize()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_training_under_noise_ends_on_levels_of_crossbars() -> None:
    model = net()
    plan = Plan([("[04]", Both(Crossbar(16), Levels(4)), 2.0), ("*", Levels(4))])
    pruner = Pruner(model, plan, Admm(AdmmSchedule(2, rho=0.1)))
    pruner.prepare()
    mismatch = patc.crossbar.Mismatch(model)
    mismatch.prepare()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(4):
        if step == 2:
            pruner.harden()
        torch.manual_seed(step)
        loss = nn.functional.cross_entropy(model(torch.randn(8, 3, 8, 8)), torch.randint(4, (8,)))
        optimizer.zero_grad()
        (loss + pruner.penalty()).backward()
        optimizer.step()
        pruner.step()
    mismatch.finalize()
    pruner.finalize()
    assert patc.crossbar.map(model, size=16, bits=4).used.columns == 10 + 63 + 8


def test_aihwkit_computes_with_the_conductances() -> None:
    pytest.importorskip("aihwkit", reason=INSTALL)
    model, x = pruned().eval(), torch.randn(2, 3, 8, 8)
    mapping = patc.crossbar.map(model, size=16, bits=5, least=0.1)
    analog = patc.crossbar.to_aihwkit(model, mapping)
    for tile in analog.analog_tiles():
        tile.rpu_config.forward.is_perfect = True
    assert torch.allclose(analog(x), model(x), atol=1e-4)
    analog.program_analog_weights()
    assert not torch.allclose(analog(x), model(x), atol=1e-3)
    tiles = list(analog.analog_tiles())
    assert all(max(tile.tile.get_weights().shape) <= 16 for tile in tiles)
    quiet = patc.crossbar.to_aihwkit(model, mapping)
    for clean, noisy in zip(quiet.analog_tiles(), tiles, strict=True):
        there = clean.tile.get_weights() != 0
        devices = there.any(0, keepdim=True) & there.any(1, keepdim=True)
        assert not bool(noisy.tile.get_weights()[~devices].any())
    analog.drift_analog_weights(86400.0)
    assert bool(torch.isfinite(analog(x)).all())


def test_empty_columns_have_no_gradients() -> None:
    """Where aihwkit would divide zeros by the square of a scale of zero."""
    pytest.importorskip("aihwkit", reason=INSTALL)
    layer = nn.Linear(40, 6).requires_grad_(False)
    layer.weight.copy_(torch.randint(1, 16, (6, 40)) / 150)
    layer.weight[2] = 0.0
    analog = patc.crossbar.to_aihwkit(nn.Sequential(layer), patc.crossbar.map(nn.Sequential(layer), size=16)).train()
    analog(torch.randn(8, 40)).sum().backward()
    gradients = [parameter.grad for parameter in analog.parameters() if parameter.grad is not None]
    assert gradients and all(bool(torch.isfinite(gradient).all()) for gradient in gradients)


def test_columns_without_weights_are_read_by_no_converter() -> None:
    """Whose noise would be added, times a scale that no weight has set."""
    pytest.importorskip("aihwkit", reason=INSTALL)
    torch.manual_seed(0)
    layer = nn.Linear(40, 6)
    with torch.no_grad():
        layer.weight.copy_(torch.randint(-15, 16, (6, 40)) / 150)
        layer.weight[2] = 0.0
        layer.weight[4, 10:] = 0.0  # of three tiles one has a column
    analog = patc.crossbar.to_aihwkit(nn.Sequential(layer), patc.crossbar.map(nn.Sequential(layer), size=16))
    analog.program_analog_weights()
    x = torch.randn(64, 40)
    found = analog(x)
    assert torch.equal(found[:, 2], layer.bias[2].expand(64))
    apart = (found - layer(x)).std(0)
    assert bool((apart[[0, 1, 3, 4, 5]] > 0).all()) and bool(apart[4] < 0.8 * apart[[0, 1, 3, 5]].mean())


@pytest.mark.parametrize(("outputs", "inputs"), [(64, 64), (8, 64), (64, 4), (16, 16)])
def test_drift_is_read_from_devices(outputs: int, inputs: int) -> None:
    """What rows and columns without devices would add hid up to a quarter of a day's drift."""
    pytest.importorskip("aihwkit", reason=INSTALL)
    gains = []
    for seed in range(4):
        torch.manual_seed(seed)
        layer = nn.Linear(64, 64, bias=False)
        layer.requires_grad_(False)
        layer.weight.copy_(torch.randint(1, 16, (64, 64)) * (2 * torch.randint(2, (64, 64)) - 1) / 150)
        layer.weight[outputs:] = 0.0
        layer.weight[:, inputs:] = 0.0
        model, x = nn.Sequential(layer), torch.randn(256, 64)
        analog = patc.crossbar.to_aihwkit(model, patc.crossbar.map(model, size=64, least=0.1))
        analog.program_analog_weights()
        analog.drift_analog_weights(86400.0)
        wanted = model(x)
        gains.append((wanted * analog(x)).sum().item() / wanted.square().sum().item())
    assert sum(gains) / len(gains) == pytest.approx(1.0, abs=0.06), gains


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Crossbar(0), "expected a crossbar of 1 or more rows and columns, found 0"),
        (lambda: Crossbar(8, "tiles"), "expected remove to be columns or rows, found 'tiles'"),  # type: ignore[arg-type]
        (
            lambda: patc.crossbar.map(net()),
            r"^0: expected weights on levels of 5 bits, found 10 filters that are on none",
        ),
        (lambda: patc.crossbar.map(nn.ReLU()), "expected a model with a convolution of one group or a linear layer"),
        (lambda: patc.crossbar.map(pruned(), least=3.0, most=2.0), r"from 0 on to a larger one, found 3\.0 to 2\.0"),
        (lambda: patc.crossbar.map(pruned(), bits=9), "expected levels of 1 to 8 bits, found 9"),
        (lambda: patc.crossbar.Mismatch(net(), sigma=0.0), r"expected sigma to be finite and above 0, found 0\.0"),
        (
            lambda: patc.crossbar.Mismatch(nn.ReLU()),
            "expected a model with a convolution of one group or a linear layer",
        ),
        (
            lambda: prune_(nn.GRU(4, 4), Plan([("*", Crossbar(), 2.0)])),
            "a convolution of one group, not a transposed one",
        ),
    ],
)
def test_bad_crossbars_are_named(make: Any, message: str) -> None:
    with pytest.raises(PatcError, match=message):
        make()
