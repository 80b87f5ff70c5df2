"""Whether others used the machine while something was timed."""

from __future__ import annotations

import os
import time
from pathlib import Path

TOLERABLE = 0.1  # of a core, on average
_PROC = Path("/proc")


class Watch:
    """Begins to watch the machine's processors."""

    def __init__(self) -> None:
        self._start = self._read()

    def others(self) -> float:
        """Return how many cores, on average since the watch began, were busy with others than this process and its
        children, or taken away by the host of a virtual machine; 0 where the system does not tell."""
        (others, now), (before, start) = self._read(), self._start
        return max(0.0, others - before) / max(now - start, 1e-9)

    def warning(self) -> str:
        """Return that others used the machine, in a line; "" if they did not."""
        others = self.others()
        said = f"other programs used {others:.1f} cores meanwhile: times may be too long"
        return said if others > TOLERABLE else ""

    @staticmethod
    def _read() -> tuple[float, float]:
        """Return the seconds that cores were busy with others so far, and those of a clock."""
        now = time.monotonic()
        try:
            total = (_PROC / "stat").read_text().split("\n", 1)[0].split()[1:]
            user, nice, system, _, _, interrupts, soft, stolen = (int(field) for field in total[:8])
            ticks = user + nice + system + interrupts + soft + stolen
            return (ticks - _ticks_of_tree()) / os.sysconf("SC_CLK_TCK"), now
        except (OSError, ValueError):
            return 0.0, now


def _ticks_of_tree() -> int:
    """Return the ticks of this process and of those that it started, those that have ended included."""
    times: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    for path in _PROC.glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # ended meanwhile
        process = int(path.parent.name)
        times[process] = sum(int(field) for field in fields[11:15])
        children.setdefault(int(fields[1]), []).append(process)
    found, left = 0, [os.getpid()]
    while left:
        process = left.pop()
        found += times.get(process, 0)
        left += children.get(process, [])
    return found
