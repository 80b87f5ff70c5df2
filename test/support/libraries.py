"""A small net for libraries for C, and what their files hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from helpers import torch_results
from torch import nn

from patc import pruning
from patc.runtime import elf


def small_net() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """Return a pruned net of one picture and its input."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * 8 * 8, 12)).eval()
    pruning.prune_(model, pruning.PatternSpec(connectivity=2.0))
    return model, (torch.randn(1, 3, 16, 16),)


def error_against(model: nn.Module, inputs: tuple[torch.Tensor, ...], found: np.ndarray) -> float:
    """Return the largest error against PyTorch in float64, relative to the largest output."""
    wanted = torch_results(model, inputs)[0].ravel()
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def undefined_symbols(image: bytes) -> set[str]:
    """Return the names that an object leaves to others."""
    found = elf.symbols(image, elf.sections(image))
    return {symbol.name for symbol in found if symbol.binding and symbol.section == elf.UNDEFINED}


def defined_symbols(image: bytes) -> set[str]:
    """Return the names that an object offers to others."""
    found = elf.symbols(image, elf.sections(image))
    return {symbol.name for symbol in found if symbol.binding and symbol.section != elf.UNDEFINED}


def read_elf(path: Path) -> dict[str, list[tuple[str, ...]]]:
    """Return what loaders look at: alignments of loaded segments, dynamic entries, symbols found and left open."""
    data = path.read_bytes()

    def number(offset: int, size: int) -> int:
        return int.from_bytes(data[offset : offset + size], "little")

    table, count = number(32, 8), number(56, 2)
    segments = [(number(at, 4), at) for at in range(table, table + 56 * count, 56)]
    loads = [(str(number(at + 48, 8)),) for kind, at in segments if kind == 1]
    writable = [at for kind, at in segments if kind == 1 and number(at + 4, 4) & 3 == 3]
    assert not writable  # no segment is both writable and executable
    found = {section.name: section for section in elf.sections(data)}

    def text(offset: int) -> str:
        start = found[".dynstr"].offset + offset
        return data[start : data.index(b"\0", start)].decode()

    dynamic, symbols = found[".dynamic"], found[".dynsym"]
    entries = [(number(at, 8), number(at + 8, 8)) for at in range(dynamic.offset, dynamic.offset + dynamic.size, 16)]
    rows = range(symbols.offset + 24, symbols.offset + symbols.size, 24)
    return {
        "loads": loads,
        "needed": [(text(value),) for tag, value in entries if tag == 1],
        "soname": [(text(value),) for tag, value in entries if tag == 14],
        "hashes": [(str(tag),) for tag, _ in entries if tag in (4, 0x6FFFFEF5)],
        "defined": [(text(number(at, 4)),) for at in rows if number(at + 6, 2)],
        "undefined": [(text(number(at, 4)),) for at in rows if not number(at + 6, 2)],
    }
