"""Pattern libraries: which taps of a kernel a pruned model may keep.

A pattern is a bit mask over the taps of a size x size kernel, numbered row by row: bit size*dy + dx. Kernels are
3x3 where nothing else is said; a view of nine channels of a 1x1 kernel counts as 3x3 (paper, section 3). A library
is a tuple of masks; a mask's place in the tuple is the pattern's number. This file is plain Python, so that
libraries can be named without importing torch.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Mapping, Sequence

from patc.diagnostics import PatcError, nearest

Library = tuple[int, ...]

SIZES = (3, 5)  # kernels that have patterns
TAPS = 9  # of a 3x3 kernel


def pattern(*rows: str) -> int:
    """Return the mask drawn by three strings of three characters, or five of five, `x` for a kept tap.

    >>> pattern("xx.", "xx.", "...")
    27

    Raises:
        PatcError: the drawing is no square of 3x3 or 5x5 `x` or `.`.
    """
    if len(rows) not in SIZES or any(len(row) != len(rows) or set(row) - set("x.") for row in rows):
        raise PatcError(f"expected a pattern of three rows of three 'x' or '.', or of five rows of five, found {rows}")
    return sum(1 << tap for tap, mark in enumerate("".join(rows)) if mark == "x")


def draw(mask: int, size: int = 3) -> str:
    """Return a mask of a size x size kernel as one word, its rows parted by slashes: 27 -> "xx./xx./..."."""
    marks = "".join("x" if mask >> tap & 1 else "." for tap in range(size * size))
    return "/".join(marks[row : row + size] for row in range(0, size * size, size))


def taps(mask: int) -> tuple[int, ...]:
    """Return the numbers of the kept taps, ascending: 27 -> (0, 1, 3, 4)."""
    return tuple(tap for tap in range(mask.bit_length()) if mask >> tap & 1)


def candidates(entries: int = 4, size: int = 3, centred: bool = False) -> Library:
    """Return all patterns of a number of entries, ascending: what an extraction starts from (paper, section 5.1).

    126 of four entries in a 3x3 kernel; with `centred` those 56 that hold the centre.

    Raises:
        PatcError: the number of entries is not in 1 .. size * size.
    """
    count = size * size
    if not 1 <= entries <= count:
        raise PatcError(f"expected patterns of 1 to {count} entries in a {size}x{size} kernel, found {entries}")
    masks = (sum(1 << tap for tap in kept) for kept in itertools.combinations(range(count), entries))
    return tuple(sorted(mask for mask in masks if not centred or mask >> count // 2 & 1))


# The four 2x2 corner blocks. They sum to 16 times the Gaussian [[1,2,1],[2,4,2],[1,2,1]]/16
# (paper, section 4).
GAUSSIAN: Library = (
    pattern("xx.", "xx.", "..."),
    pattern(".xx", ".xx", "..."),
    pattern("...", "xx.", "xx."),
    pattern("...", ".xx", ".xx"),
)

# The four T shapes. They sum to [[0,3,0],[3,4,3],[0,3,0]], four times the enhanced Laplacian of
# Gaussian's cross with p = 0.75 (paper, section 4).
ELOG: Library = (
    pattern(".x.", "xxx", "..."),
    pattern(".x.", "xx.", ".x."),
    pattern(".x.", ".xx", ".x."),
    pattern("...", "xxx", ".x."),
)

# The centre, two neighbouring arms of the cross, and the corner between the other two.
_Y_SHAPES: Library = (
    pattern("x..", ".xx", ".x."),
    pattern("..x", "xx.", ".x."),
    pattern(".x.", ".xx", "x.."),
    pattern(".x.", "xx.", "..x"),
)

# The paper extracts the libraries of the phases 1 and 3 from a trained VGG-16 and prints them in
# a figure only (section 7.1, figure 4), so these two are patc's defaults; whoever ran an extraction
# gives its masks instead. Phase 1 adds the Y shapes: they too sum to the Gaussian, and among the
# 4-entry patterns they and the 2x2 blocks are the only such fours that every rotation and mirror image
# maps to itself. Phase 3 keeps the ELoG half, which holds the taps nearest to the centre.
PHASE2: Library = GAUSSIAN + ELOG
PHASE1: Library = PHASE2 + _Y_SHAPES
PHASE3: Library = ELOG

LIBRARIES: dict[str, Library] = {
    "phase1": PHASE1,
    "phase2": PHASE2,
    "phase3": PHASE3,
    "gaussian": GAUSSIAN,
    "elog": ELOG,
}

# The same for 5x5 kernels, six entries a pattern (4.17x): what `theory.derive` finds for the filters of section 4
# convolved with themselves. The paper leaves the patterns of 5x5 kernels open.
GAUSSIAN_5X5: Library = (14784, 202944, 405888, 473088)
ELOG_5X5: Library = (14660, 201920, 414080, 4536320)
LIBRARIES_5X5: dict[str, Library] = {
    "phase2": GAUSSIAN_5X5 + ELOG_5X5,
    "gaussian": GAUSSIAN_5X5,
    "elog": ELOG_5X5,
}


def library(patterns: str | Iterable[int], size: int = 3) -> Library:
    """Return a library by its name, or the one made of the given masks.

    Args:
        patterns: a key of `LIBRARIES` (`LIBRARIES_5X5` where size is 5), or masks, all different and all of one
            number of entries. One mask of all taps, 511, keeps whole kernels: connectivity sparsity alone.
        size: height and width of the kernels, 3 or 5.

    Raises:
        PatcError: the name is unknown (the message lists the names), or a mask breaks a rule above.
    """
    known: Mapping[str, Library] = LIBRARIES if size == 3 else LIBRARIES_5X5
    if isinstance(patterns, str):
        if patterns not in known:
            kind = "pattern library" if size == 3 else f"{size}x{size} pattern library"
            raise PatcError(
                f"expected a {kind} out of {', '.join(known)}; found '{patterns}'{nearest(patterns, known)}"
            )
        return known[patterns]
    return own_library(patterns, (size, size))


def own_library(patterns: Iterable[int], kernel: tuple[int, int]) -> Library:
    """Return the library of the given masks, for kernels of a height and width; see `library` for the rules."""
    masks = tuple(_checked_mask(mask, kernel) for mask in patterns)
    _check_library(masks)
    return masks


def entries(masks: Sequence[int]) -> int:
    """Return how many taps each pattern of a library keeps: 4 for the paper's libraries."""
    return len(taps(masks[0]))


def _checked_mask(mask: object, kernel: tuple[int, int]) -> int:
    try:
        value = operator.index(mask)  # type: ignore[arg-type]
    except TypeError:
        raise PatcError(f"expected a pattern as a bit mask, found {mask!r}") from None
    most = (1 << kernel[0] * kernel[1]) - 1
    if not 0 < value <= most:
        raise PatcError(f"expected a {kernel[0]}x{kernel[1]} pattern mask from 1 to {most}, found {value}")
    return value


def _check_library(masks: Library) -> None:
    if not masks:
        raise PatcError("expected a pattern library of at least one mask, found none")
    for i, mask in enumerate(masks):
        if mask in masks[:i]:
            raise PatcError(f"expected a pattern library of different masks, found {mask} twice")
        if len(taps(mask)) != entries(masks):
            raise PatcError(
                f"expected patterns of {entries(masks)} entries like the first mask {masks[0]}, "
                f"found {mask} of {len(taps(mask))}"
            )
