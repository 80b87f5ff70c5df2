"""Schemes: their projections beside brute force, who is a member, and what they refuse."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from scipy import optimize
from torch import Tensor, nn

from patc.diagnostics import PatcError
from patc.pruning import Block, Filters, GatherScatter, KernelBlocks, Pattern, PatternSpec, Plan, Unstructured, prune_
from patc.pruning.constraints.base import Constraint
from patc.pruning.constraints.crossings import ENUMERATED, best_rows
from patc.pruning.schemes import Scheme
from patc.pruning.sites import Site, find_sites

pytestmark = pytest.mark.usefixtures("one_thread")


def site_of(module: nn.Module, place: int = 0) -> Site:
    return find_sites(module)[place]


def constraint_of(scheme: Scheme, module: nn.Module, place: int = 0) -> Constraint:
    found = scheme.constrain(site_of(module, place))
    assert not isinstance(found, str), found
    return found


def linear(rows: int, columns: int, seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(columns, rows)


def kept_norm(weight: Tensor, mask: Tensor) -> float:
    return float(torch.where(mask, weight, 0.0).double().square().sum())


@pytest.mark.parametrize(
    "module", [nn.Conv2d(4, 6, 3), nn.ConvTranspose2d(4, 6, (2, 3)), nn.Conv1d(4, 6, 5), nn.Linear(5, 7)]
)
def test_the_matrix_has_an_output_a_row_and_is_undone(module: nn.Module) -> None:
    site = site_of(module)
    matrix = site.matrix(site.weight)
    assert torch.equal(site.restore(matrix), site.weight)
    assert len(matrix) == site.filters
    if isinstance(module, nn.Conv2d):  # tap by tap, channels side by side
        assert torch.equal(matrix[2, 4:8], module.weight[2, :, 0, 1])


@pytest.mark.parametrize(
    ("scheme", "rows", "columns"),
    [(Block(2), 2, 1), (Block(2, 3, "rows"), 1, 3), (Block(2, 3, "block"), 2, 3), (Unstructured(), 1, 1),
     (Filters(), 1, 6), (Block(4, remove="rows"), 1, 6)],
)  # fmt: skip
def test_projections_keep_what_brute_force_keeps(scheme: Scheme, rows: int, columns: int) -> None:
    module = linear(4, 6)
    constraint, weight = constraint_of(scheme, module), module.weight.detach()
    tiles = [(y, x) for y in range(0, 4, rows) for x in range(0, 6, columns)]
    assert (constraint.units, constraint.unit_weights) == (len(tiles), rows * columns)
    for keep in range(1, min(len(tiles), 4)):
        found = []
        for chosen in itertools.combinations(tiles, keep):
            mask = torch.zeros(4, 6, dtype=torch.bool)
            for y, x in chosen:
                mask[y : y + rows, x : x + columns] = True
            found.append(kept_norm(weight, mask))
        mask = constraint.mask(weight, keep)
        assert kept_norm(weight, mask) == pytest.approx(max(found), abs=1e-12)
        pruned = torch.where(mask, weight, 0.0)
        assert constraint.violation(pruned, keep) is None and constraint.count(pruned) == keep
        assert constraint.violation(weight, keep) == f"{len(tiles)} of at most {keep} units"


def best_crossing(blocks: np.ndarray, keep: int) -> float:
    """Return the largest norm that rows and columns of all blocks hold with at most so many weights."""
    best = np.zeros(keep + 1)
    for block in blocks:
        rows, columns = block.shape
        choices = dict[int, float]()
        for chosen in itertools.product((False, True), repeat=rows):
            sums = np.sort(block[list(chosen)].sum(0))[::-1].cumsum()
            for count in range(1, columns + 1):
                size = count * sum(chosen)
                choices[size] = max(choices.get(size, 0.0), float(sums[count - 1]))
        now = best.copy()
        for size, norm in choices.items():
            if 0 < size <= keep:
                now[size:] = np.maximum(now[size:], best[: keep + 1 - size] + norm)
        best = now
    return float(best[keep])


@pytest.mark.parametrize("seed", range(4))
def test_crossed_blocks_keep_nearly_what_brute_force_keeps(seed: int) -> None:
    module = linear(6, 8, seed)
    constraint, weight = constraint_of(Block(3, 4, "both"), module), module.weight.detach()
    squares = weight.double().square().numpy()
    blocks = squares.reshape(2, 3, 2, 4).transpose(0, 2, 1, 3).reshape(4, 3, 4)
    for keep in (1, 5, 12, 24, 36, 47, 48):
        mask = constraint.mask(weight, keep)
        pruned = torch.where(mask, weight, 0.0)
        assert constraint.violation(pruned, keep) is None
        each = mask.numpy().reshape(2, 3, 2, 4).transpose(0, 2, 1, 3).reshape(4, 3, 4)
        for block in each:  # what is left is a whole matrix
            assert np.array_equal(block, np.outer(block.any(1), block.any(0)))
        # With four blocks the choice for the last price is coarse: what is left of the budget is spent on single lines.
        assert kept_norm(weight, mask) >= 0.95 * best_crossing(blocks, keep)


def test_many_crossed_blocks_are_nearest_but_for_a_thousandth() -> None:
    """The last block's share of the budget is all that is not exact."""
    module = linear(64, 48)
    constraint, weight = constraint_of(Block(4, 6, "both"), module), module.weight.detach()
    squares = weight.double().square().numpy()
    blocks = squares.reshape(16, 4, 8, 6).transpose(0, 2, 1, 3).reshape(128, 4, 6)
    for keep in (100, 768, 1536):
        assert kept_norm(weight, constraint.mask(weight, keep)) >= 0.999 * best_crossing(blocks, keep)


@pytest.mark.parametrize("height", [4, 8, 12])
def test_rows_that_hold_the_most(height: int) -> None:
    """Beside all subsets; above `ENUMERATED` rows the searches found the best in every matrix that was tried."""
    generator = torch.Generator().manual_seed(height)
    for power, price in itertools.product((1, 3), (0.5, 0.9)):
        squares = torch.randn(20, height, 16, generator=generator, dtype=torch.float64).pow(power).square()
        worth = squares - 0.9 * squares.flatten(1).quantile(price, 1)[:, None, None]
        rows = best_rows(worth, torch.zeros(20, 0, height, dtype=torch.bool))
        found = torch.where(rows[:, :, None], worth, 0.0).sum(1).clamp(min=0.0).sum(1)
        subsets = torch.tensor(list(itertools.product((0.0, 1.0), repeat=height)), dtype=torch.float64)
        best = torch.stack([(subsets @ one).clamp(min=0.0).sum(1).max() for one in worth])
        assert torch.allclose(found, best, rtol=1e-12 if height <= ENUMERATED else 0.02)
        assert float((found / best).mean()) > 0.999


def best_unions(squares: np.ndarray) -> list[float]:
    """Return the largest norm that so many 2x2 blocks of all kernels (kernels, 9) hold, 0 to all of them."""
    blocks = [np.array([mask >> tap & 1 for tap in range(9)], bool) for mask in (27, 54, 216, 432)]
    best = [0.0]
    for kernel in squares:
        held = [0.0] * 5
        for chosen in itertools.product((False, True), repeat=4):
            union = np.zeros(9, bool)
            for block in itertools.compress(blocks, chosen):
                union |= block
            held[sum(chosen)] = max(held[sum(chosen)], float(kernel[union].sum()))
        best = [
            max(best[units - own] + held[own] for own in range(5) if 0 <= units - own < len(best))
            for units in range(len(best) + 4)
        ]
    return best


@pytest.mark.parametrize("seed", range(6))
def test_unions_of_blocks_keep_what_brute_force_keeps(seed: int) -> None:
    torch.manual_seed(seed)
    module = nn.Conv2d(2, 3, 3)
    constraint, weight = constraint_of(KernelBlocks(), module), module.weight.detach()
    if seed % 3 == 1:
        weight.copy_(torch.randn(weight.shape) ** 5)
    elif seed % 3 == 2:
        weight.copy_(torch.randint(-2, 3, weight.shape))  # many equal ones
    wanted = best_unions(weight.double().square().reshape(-1, 9).numpy())
    assert (constraint.units, constraint.unit_weights) == (24, 4) and len(wanted) == 25
    for keep in range(1, 25):
        pruned = torch.where(constraint.mask(weight, keep), weight, 0.0)
        assert float(pruned.double().square().sum()) == pytest.approx(wanted[keep], rel=1e-12)
        assert constraint.violation(pruned, keep) is None and constraint.count(pruned) <= keep
    assert seed % 3 == 2 or constraint.violation(weight, 23) == "24 of at most 23 units"


@pytest.mark.parametrize(
    ("taps", "blocks"), [((), 0), ((4,), 1), ((0, 4), 1), ((0, 8), 2), ((1, 7), 2), ((3, 5, 1), 2), ((0, 2, 8), 3),
                         ((0, 2, 6, 8), 4), (tuple(range(9)), 4)],
)  # fmt: skip
def test_kernels_count_the_fewest_blocks_that_hold_them(taps: tuple[int, ...], blocks: int) -> None:
    module = nn.Conv2d(1, 1, 3)
    with torch.no_grad():
        module.weight.zero_().view(-1)[list(taps)] = 0.1
    constraint = constraint_of(KernelBlocks(), module)
    assert constraint.count(module.weight) == blocks
    assert torch.equal(torch.where(constraint.mask(module.weight, blocks), module.weight, 0.0), module.weight)


def test_rates_of_kernel_blocks_count_their_entries() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 16, 3), nn.Conv2d(16, 16, 3, groups=16))
    report = prune_(model, Plan([("*", KernelBlocks(), 4.0)]))
    assert [layer.kept_kernels for layer in report.layers] == [8 * 16 * 9 // 16, 9]
    assert report.compression == pytest.approx(4.0) and report.layers[0].kind == "kernel-blocks"
    assert int(model[0].weight.count_nonzero()) <= report.layers[0].kept_weights


def packs_of(matrix: np.ndarray, banks: int, per_row: int, tile: int) -> int:
    """Return how many packs hold what is not zero, by the definition: as colours of edges."""
    rows, packs = banks // per_row, 0
    for y, x in itertools.product(range(0, len(matrix), rows), range(0, matrix.shape[1], tile)):
        there = matrix[y : y + rows, x : x + tile] != 0
        by_bank = there.sum(0).reshape(-1, banks).sum(0)
        packs += max(-(-int(there.sum(1).max()) // per_row), int(by_bank.max()))
    return packs


def most_by_flow(squares: np.ndarray, scheme: GatherScatter) -> list[float]:
    """Return the largest norm of each number of packs of one tile: a transport from rows to banks, whose program has
    whole corners."""
    rows, columns = squares.shape
    limits = np.zeros((rows + scheme.banks, squares.size))
    for place, (row, column) in enumerate(itertools.product(range(rows), range(columns))):
        limits[row, place] = 1 / scheme.per_row
        limits[rows + column % scheme.banks, place] = 1
    found = [0.0]
    for packs in range(1, columns // scheme.per_row + 1):
        room = np.full(len(limits), float(packs))
        found.append(-optimize.linprog(-squares.ravel(), limits, room, bounds=(0, 1), method="highs").fun)
    return found


@pytest.mark.parametrize(
    ("scheme", "least"),
    [(GatherScatter(4, 4, 8, False), 1 - 1e-9), (GatherScatter(4, 1, 8, False), 0.95), (GatherScatter(4, 2, 8, False), 0.95),
     (GatherScatter(4, 4, 16), 1 - 1e-9)],
)  # fmt: skip
def test_packs_keep_nearly_what_a_flow_keeps(scheme: GatherScatter, least: float) -> None:
    """Exactly where a tile is one row, whose n packs are the n largest weights of each bank."""
    rows, columns = 4, 16
    module = linear(rows, columns)
    constraint, weight = constraint_of(scheme, module), module.weight.detach()
    squares, high = weight.double().square().numpy(), scheme.banks // scheme.per_row
    best = np.zeros(constraint.units + 1)
    for y, x in itertools.product(range(0, rows, high), range(0, columns, scheme.tile)):
        held = most_by_flow(squares[y : y + high, x : x + scheme.tile], scheme)
        best = np.array(
            [max(best[n - own] + held[own] for own in range(min(n + 1, len(held)))) for n in range(len(best))]
        )
    assert (constraint.units, constraint.unit_weights) == (rows * columns // 4, 4)
    parts = []
    for keep in range(1, constraint.units + 1):
        pruned = torch.where(constraint.mask(weight, keep), weight, 0.0)
        parts.append(float(pruned.double().square().sum()) / best[keep])
        assert least <= parts[-1] <= 1 + 1e-9
        found = packs_of(pruned.numpy(), scheme.banks, scheme.per_row, scheme.tile)
        assert constraint.count(pruned) == found <= keep
        assert torch.equal(torch.where(constraint.mask(pruned, keep), pruned, 0.0), pruned)
        assert constraint.violation(weight, keep) == (
            None if keep == constraint.units else f"16 of at most {keep} units"
        )
    assert np.mean(parts) >= (least + 1) / 2 and parts[-1] == pytest.approx(1.0)


def test_rows_of_packs_change_places() -> None:
    """Rows of large weights share tiles: they keep more there, and what is left is found to be a member."""
    torch.manual_seed(0)
    module = nn.Linear(64, 64)
    with torch.no_grad():
        module.weight.mul_(torch.where(torch.arange(64) % 2 == 0, 4.0, 0.2)[:, None])
    weight, norms = module.weight.detach(), []
    for permute in (False, True):
        constraint = constraint_of(GatherScatter(permute_rows=permute), module)
        for rate in (3, 8, 10, 20):
            keep = constraint.units_at(rate)
            pruned = torch.where(constraint.mask(weight, keep), weight, 0.0)
            assert constraint.violation(pruned, keep) is None
            norms.append(float(pruned.square().sum()))
            assert permute or constraint.count(pruned) == packs_of(pruned.numpy(), 16, 1, 32)
            again = constraint.mask(pruned, keep)
            assert torch.equal(torch.where(again, pruned, 0.0), pruned)
    assert all(free > 1.1 * fixed for fixed, free in zip(norms[:4], norms[4:], strict=True))


def test_packs_of_any_layers() -> None:
    torch.manual_seed(0)
    model = nn.ModuleList([nn.Conv2d(32, 16, 3), nn.LSTM(32, 32), nn.Linear(32, 32), nn.Conv2d(3, 16, 3)])
    report = prune_(model, Plan([("*", GatherScatter(), 8.0)]))
    assert [layer.kind for layer in report.layers] == ["gather-scatter"] * 4 + ["dense"]  # of 27 inputs
    assert all(layer.weights == 8 * layer.kept_weights for layer in report.layers[:4])
    lstm = model[1].weight_ih_l0.detach().numpy()  # its units keep their places
    assert packs_of(lstm, 16, 1, 32) == report.layers[1].kept_kernels
    taps = model[0].weight.detach().permute(0, 2, 3, 1)  # of 32 channels each, which are the columns of a tile
    assert packs_of(taps.flatten(1).numpy(), 16, 1, 32) == report.layers[0].kept_kernels


@pytest.mark.parametrize("permute", [False, True])
def test_packs_of_a_convolution_are_those_of_its_taps(permute: bool) -> None:
    torch.manual_seed(0)
    conv, matrix = nn.Conv2d(16, 32, (3, 2)), nn.Linear(96, 32)
    with torch.no_grad():
        matrix.weight.copy_(conv.weight.permute(0, 2, 3, 1).flatten(1))
    scheme = GatherScatter(8, 1, 16, permute)
    for keep in (1, 37, 200):
        mask = constraint_of(scheme, conv).mask(conv.weight, keep)
        wanted = constraint_of(scheme, matrix).mask(matrix.weight, keep)
        assert torch.equal(mask.permute(0, 2, 3, 1).flatten(1), wanted)


def test_bands_of_a_recurrent_layer_stay_within_gates() -> None:
    lstm = nn.LSTM(6, 8)
    assert [site.gates for site in find_sites(lstm)] == [4, 4]
    assert constraint_of(Block(8), lstm).units == 4 * 6
    assert Block(16).constrain(site_of(lstm)) == "outputs that 16 rows of a block divide, found 8 in each of 4 gates"


@pytest.mark.parametrize(
    ("scheme", "module", "message"),
    [
        (Block(3), nn.Linear(4, 8), "outputs that 3 rows of a block divide, found 8"),
        (Block(2, 3, "rows"), nn.Linear(4, 8), "inputs that 3 columns of a block divide, found 4"),
        (Block(2), nn.ConvTranspose2d(4, 4, 2, groups=2), "one group of a transposed convolution, found 2"),
        (GatherScatter(4, 1, 8), nn.GRU(8, 6), "outputs that 4 rows of a tile divide, found 6 in each of 3 gates"),
        (GatherScatter(), nn.Linear(27, 16), "inputs that 32 columns of a tile divide, found 27"),
        (GatherScatter(), nn.Conv2d(16, 16, 4), "input channels that 32 columns of a tile divide, found 16"),
        (Filters(), nn.GRU(4, 4), "a convolution or a linear layer, whose outputs are no state"),
        (KernelBlocks(), nn.Conv2d(4, 8, 5), "a convolution with 3x3 kernels, not a transposed one"),
        (KernelBlocks(), nn.ConvTranspose2d(4, 8, 3), "a convolution with 3x3 kernels, not a transposed one"),
        (KernelBlocks(), nn.Linear(4, 9), "a convolution with 3x3 kernels, not a transposed one"),
        (Pattern(), nn.Linear(4, 8), "a convolution (3x3, groups=1)"),
        (Pattern(), nn.Conv2d(4, 8, 5), "a convolution (3x3, groups=1)"),
    ],
)
def test_what_does_not_fit_is_said(scheme: Scheme, module: nn.Module, message: str) -> None:
    assert scheme.constrain(site_of(module)) == message
    with pytest.raises(PatcError, match="expected a weight that the plan's schemes fit, found none: "):
        prune_(module, Plan([("*", scheme, 2.0)]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Block(0), "expected rows of a block to be 1 or more, found 0"),
        (lambda: Block(8, -1), "expected columns of a block to be 0 or more, found -1"),
        (lambda: Block(8, remove="all"), "expected remove to be columns, rows, both or block; found 'all'"),
        (lambda: Block(8, remove="block"), "expected the columns of the blocks to remove, found 0"),
        (lambda: Pattern("phase9"), "phase9"),
        (lambda: GatherScatter(0), "expected banks to be 1 or more, found 0"),
        (lambda: GatherScatter(16, 3), "expected weights per row that divide 16 banks, found 3"),
        (lambda: GatherScatter(16, 1, 40), "a multiple of 16 banks, at most 32; found 40"),
        (lambda: GatherScatter(16, 2, 96), "a multiple of 16 banks, at most 64; found 96"),
    ],
)
def test_bad_schemes_are_named(make: Any, message: str) -> None:
    with pytest.raises(PatcError, match=message):
        make()


def test_patterns_of_a_plan_are_those_of_a_spec() -> None:
    def net() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 32, 3), nn.Conv2d(32, 32, 3))

    by_spec, by_plan = net(), net()
    prune_(by_spec, PatternSpec(connectivity=4, first_layer="prune"))
    report = prune_(by_plan, Plan([("*", Pattern(), 9.0)]))
    for one, other in zip(by_spec, by_plan, strict=True):
        assert torch.equal(one.weight, other.weight)
    assert report.compression == pytest.approx(9.0, rel=0.01)


def test_groups_hold_what_goes_together() -> None:
    """Their squared norms, which regularizers drive to zero, are those of units; of patterns also of what is outside."""
    module = linear(4, 6)
    squares, sizes = constraint_of(Block(2), module).group_squares(module.weight)
    assert torch.allclose(squares[1], module.weight[:2, 1].square().sum()) and sizes.tolist() == [2] * 12
    squares, sizes = constraint_of(Block(2, 3, "both"), module).group_squares(module.weight)
    assert squares.sum().isclose(2 * module.weight.square().sum()) and sizes.tolist() == [3] * 8 + [2] * 12
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 3, 3)
    squares, sizes = constraint_of(KernelBlocks(), conv).group_squares(conv.weight)
    assert torch.allclose(
        squares[4:8],
        torch.stack([conv.weight[0, 1, y : y + 2, x : x + 2].square().sum() for y in (0, 1) for x in (0, 1)]),
    )
    assert sizes.tolist() == [4] * 24
    squares, sizes = constraint_of(GatherScatter(2, 1, 2), module).group_squares(module.weight)
    assert squares.sum().isclose(module.weight.square().sum()) and sizes.tolist() == [2] * 12
    constraint = constraint_of(Pattern(), conv)
    squares, sizes = constraint.group_squares(conv.weight)
    kept = torch.where(constraint.mask(conv.weight, 6), conv.weight, 0.0).square().sum((2, 3)).flatten()
    assert torch.allclose(squares[:6] - squares[6:], kept) and sizes.tolist() == [9] * 6 + [5] * 6
