"""The kernels of convolutions as patterns see them: their taps, which of them meet in one output, and their patterns.

A 3x3 kernel has the libraries of the paper. For others the paper says no more than that they have patterns of their
own, so patc keeps the share of the taps that a 3x3 pattern keeps, 4 of 9, and makes patterns as those of phase 2 are
made: the taps nearest to a point between the centre and a corner or a side. Of 3x3 kernels that gives phase 2 itself.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from dataclasses import dataclass

from patc.diagnostics import PatcError
from patc.pruning.libraries import Library

MOST_TAPS = 63  # of a kernel that has patterns: a mask is an i64
SHARE = 4 / 9
_MOST_RUNS = 8
# Where the patterns of a library lie, from the centre: at the corners, and at the sides.
_SIDES = ((-1, -1), (-1, 1), (1, -1), (1, 1), (-1, 0), (0, -1), (0, 1), (1, 0))


@dataclass(frozen=True)
class Window:
    """The taps of a kernel, numbered row by row.

    Attributes:
        kernel: height and width, 1 and the length of a 1-D kernel.
        steps: of a transposed convolution, vertical and horizontal: taps that are a multiple of them apart meet in the
            same outputs, others never do. (1, 1) for other convolutions.
    """

    kernel: tuple[int, int]
    steps: tuple[int, int] = (1, 1)

    @staticmethod
    def parse(name: str) -> Window:
        """Return the window of a name, as "5x5", "1x9" or "4x4/2x2".

        Raises:
            PatcError: it is no such name, or has more than 63 taps.
        """
        found = re.fullmatch(r"(\d+)x(\d+)(?:/(\d+)x(\d+))?", name)
        sizes = [int(size) for size in found.groups("1")] if found is not None else [0]
        if min(sizes) < 1 or math.prod(sizes[:2]) > MOST_TAPS:
            raise PatcError(f"expected a kernel of at most {MOST_TAPS} taps, as 5x5, 1x9 or 4x4/2x2; found '{name}'")
        return Window((sizes[0], sizes[1]), (sizes[2], sizes[3]))

    @property
    def name(self) -> str:
        """ "5x5" or "1x9"; of a transposed convolution of stride 2, "4x4/2x2"."""
        steps = "" if self.steps == (1, 1) else f"/{self.steps[0]}x{self.steps[1]}"
        return f"{self.kernel[0]}x{self.kernel[1]}{steps}"

    @property
    def taps(self) -> int:
        return math.prod(self.kernel)

    @property
    def parts(self) -> tuple[tuple[int, ...], ...]:
        """The taps that meet in an output: one tuple, or one for each place within a stride that has taps."""
        parts: dict[tuple[int, int], list[int]] = {}
        for tap, (y, x) in enumerate(itertools.product(*map(range, self.kernel))):
            parts.setdefault((y % self.steps[0], x % self.steps[1]), []).append(tap)
        return tuple(tuple(part) for part in parts.values())

    def kept(self, share: float = SHARE) -> tuple[int, ...]:
        """Return how many taps of each of `parts` a pattern keeps: a share, to the nearest, and at least one."""
        return tuple(max(1, math.floor(share * len(part) + 0.5)) for part in self.parts)

    def library(self, share: float = SHARE) -> Library:
        """Return up to eight patterns that keep a share of the taps of each part, those nearest to a point aside.

        Of 1-D kernels each pattern is a run of taps; where there are more than eight, the eight in the middle.
        """
        return _library(self, share)


@functools.cache
def _library(window: Window, share: float) -> Library:
    (height, width), found = window.kernel, dict[int, None]()
    if 1 in window.kernel and len(window.parts) == 1:
        kept, runs = window.kept(share)[0], window.taps - window.kept(share)[0] + 1
        first = max(0, (runs - _MOST_RUNS) // 2)
        return tuple(((1 << kept) - 1) << start for start in range(first, min(runs, first + _MOST_RUNS)))
    centre = (height - 1) / 2, (width - 1) / 2
    for down, right in _SIDES:
        point = centre[0] * (1 + down / 2), centre[1] * (1 + right / 2)

        def distances(tap: int, point: tuple[float, float] = point) -> tuple[float, float, int]:
            y, x = divmod(tap, width)
            apart, off = ((y - at[0]) ** 2 + (x - at[1]) ** 2 for at in (point, centre))
            return apart, off, tap

        nearest = [
            sorted(part, key=distances)[:kept] for part, kept in zip(window.parts, window.kept(share), strict=True)
        ]
        found.setdefault(sum(1 << tap for tap in itertools.chain(*nearest)))
    return tuple(found)
