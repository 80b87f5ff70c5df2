"""Pattern libraries: which taps of a 3x3 kernel a pruned model may keep.

A pattern is a bit mask over the taps of the kernel, numbered row by row: bit 3*dy + dx. A library is a
tuple of masks; a mask's place in the tuple is the pattern's number. This file is plain Python, so that
passes can name a library without importing torch.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence

from patc.diagnostics import PatcError, nearest

Library = tuple[int, ...]

KERNEL = (3, 3)
TAPS = KERNEL[0] * KERNEL[1]


def pattern(*rows: str) -> int:
    """Return the mask drawn by three strings of three characters, `x` for a kept tap.

    >>> pattern("xx.", "xx.", "...")
    27

    Raises:
        PatcError: the drawing is not three rows of three `x` or `.`.
    """
    if len(rows) != KERNEL[0] or any(len(row) != KERNEL[1] or set(row) - set("x.") for row in rows):
        raise PatcError(f"expected a pattern of three rows of three 'x' or '.', found {rows}")
    return sum(1 << tap for tap, mark in enumerate("".join(rows)) if mark == "x")


def draw(mask: int) -> str:
    """Return a mask as one word, its rows parted by slashes: 27 -> "xx./xx./..."."""
    marks = "".join("x" if mask >> tap & 1 else "." for tap in range(TAPS))
    return "/".join(marks[row : row + KERNEL[1]] for row in range(0, TAPS, KERNEL[1]))


def taps(mask: int) -> tuple[int, ...]:
    """Return the numbers 3*dy + dx of the kept taps, ascending: 27 -> (0, 1, 3, 4)."""
    return tuple(tap for tap in range(TAPS) if mask >> tap & 1)


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


def library(patterns: str | Iterable[int]) -> Library:
    """Return a library by its name, or the one made of the given masks.

    Args:
        patterns: a key of `LIBRARIES`, or masks of 1 to 511, all different and all of one number of
            entries. One mask of 511 keeps whole kernels: connectivity sparsity alone.

    Raises:
        PatcError: the name is unknown (the message lists the names), or a mask breaks a rule above.
    """
    if isinstance(patterns, str):
        if patterns not in LIBRARIES:
            names = ", ".join(LIBRARIES)
            raise PatcError(
                f"expected a pattern library out of {names}; found '{patterns}'{nearest(patterns, LIBRARIES)}"
            )
        return LIBRARIES[patterns]
    masks = tuple(_checked_mask(mask) for mask in patterns)
    _check_library(masks)
    return masks


def entries(masks: Sequence[int]) -> int:
    """Return how many taps each pattern of a library keeps: 4 for the paper's libraries."""
    return len(taps(masks[0]))


def _checked_mask(mask: object) -> int:
    try:
        value = operator.index(mask)  # type: ignore[arg-type]
    except TypeError:
        raise PatcError(f"expected a pattern as a bit mask, found {mask!r}") from None
    if not 0 < value < 1 << TAPS:
        raise PatcError(f"expected a 3x3 pattern mask from 1 to {(1 << TAPS) - 1}, found {value}")
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
