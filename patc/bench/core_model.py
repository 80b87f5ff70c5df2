"""How many cycles straight pieces of AArch64 code take on cores that are not here. Modelled, never measured.

Each instruction enters the core in program order, `Core.decoded` a cycle, and leaves it in program order; between
the two it waits for its operands and for a free pipe of the right sort, out of order within a window, or in order on
the small cores. Registers are renamed. The model assumes

- that all data is in the first-level cache, and no load waits for a store before it,
- that every branch is predicted and none interrupts decoding,
- that nothing but the window limits how far a core looks ahead: no smaller queues, no bank conflicts.

Real cores are slower, most of all where data comes from further away. The model compares code with code, and shows
what limits a loop. Its numbers are those of `patc.bench.cores`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from patc.bench.cores import Core
from patc.bench.instructions import REGISTERS, Instruction
from patc.integers import ceil_div

_STEADY_ROUNDS, _STEADY_STEPS = 8, 800  # at least so many rounds of a loop, and instructions, for its steady state


@dataclass(frozen=True)
class Step:
    """An instruction as one core runs it; registers are numbered as in `patc.bench.instructions`.

    Attributes:
        reads: registers that must be there before it starts.
        added_to: the register of a sum that may come late; -1 for none.
        writes: registers of the result.
        moved: register that an address is moved on in; -1 for none.
        ports: for each micro-operation the pipes that can run it.
        latency: cycles until the result is there.
        early: cycles by which a product that is added to this result may start before that.
        busy: cycles for which the pipes can start nothing else.
    """

    reads: tuple[int, ...]
    added_to: int
    writes: tuple[int, ...]
    moved: int
    ports: tuple[tuple[int, ...], ...]
    latency: int
    early: int
    busy: int


def prepare(instructions: Iterable[Instruction], core: Core) -> list[Step]:
    """Return instructions as `core` runs them."""
    ports = core.ports()
    return [_step(instruction, core, ports) for instruction in instructions]


def _step(instruction: Instruction, core: Core, ports: dict[str, tuple[int, ...]]) -> Step:
    kind = core.kind(instruction.kind)
    letters = kind.pipes
    if instruction.is_wide:
        narrow = ("VFS" if core.vector_bits < 128 else "") + ("LA" if core.load_bits < 128 else "")
        letters = "".join(letter * (2 if letter in narrow else 1) for letter in letters)
    if instruction.moved is not None and "I" not in letters:
        letters += "I"
    return Step(
        reads=instruction.reads,
        added_to=-1 if instruction.added_to is None else instruction.added_to,
        writes=instruction.writes,
        moved=-1 if instruction.moved is None else instruction.moved,
        ports=tuple(ports[letter] for letter in letters),
        latency=kind.latency,
        early=kind.latency - kind.sum_latency if kind.sum_latency else 0,
        busy=kind.busy,
    )


class Simulation:
    """A core that runs one piece of code after the other, at first with nothing in it.

    Attributes:
        time: the cycle in which the results of everything so far are there.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._ready = [0] * REGISTERS  # cycle in which each register has its value
        self._early = [0] * REGISTERS  # the same for a product that is added to it
        pipes = 1 + max(max(ports) for ports in core.ports().values())
        self._used: list[set[int]] = [set() for _ in range(pipes)]
        self._full = [0] * pipes  # before this cycle a pipe has nothing free
        self._entered = 0  # in parts of a cycle, `decoded` of them
        self._left: list[int] = []  # cycle in which each instruction leaves
        self.time = 0

    def run(self, steps: Sequence[Step]) -> int:
        """Run steps behind all others and return `time`."""
        core, ready, early, left = self._core, self._ready, self._early, self._left
        decoded, window, entered, time = core.decoded, core.window, self._entered, self.time
        for step in steps:
            entered += 1
            if window and len(left) >= window and left[-window] * decoded > entered:
                entered = left[-window] * decoded
            start = entered // decoded
            for register in step.reads:
                if ready[register] > start:
                    start = ready[register]
            added_to = step.added_to
            if added_to >= 0 and early[added_to] > start:
                start = early[added_to]
            start = self._reserve(step, start)
            if not window and start * decoded > entered:
                entered = start * decoded
            done = start + step.latency
            for register in step.writes:
                ready[register] = done
                early[register] = done - step.early
            if step.moved >= 0:
                ready[step.moved] = early[step.moved] = start + 1
            if done > time:
                time = done
            left.append(time)
        self._entered, self.time = entered, time
        return time

    def _reserve(self, step: Step, earliest: int) -> int:
        """Take the pipes that a step needs, each as early as it is free, and return when the last one starts."""
        start = earliest
        for ports in step.ports:
            best = chosen = -1
            for port in ports:
                used = self._used[port]
                cycle = max(earliest, self._full[port])
                while cycle in used:
                    cycle += 1
                if best < 0 or cycle < best:
                    best, chosen = cycle, port
            used = self._used[chosen]
            used.update(range(best, best + step.busy))
            if best > start:
                start = best
            if best == self._full[chosen]:
                while best in used:
                    best += 1
                self._full[chosen] = best
        return start


def last_cycles(pieces: Sequence[Sequence[Step]], core: Core) -> float:
    """Return the cycles that the last one of some pieces of code takes behind the others.

    Pieces that go round and round, such as the body of a loop behind itself, are taken to do so for long: what comes
    out is the average of many rounds.
    """
    simulation = Simulation(core)
    for piece in pieces[:-1]:
        simulation.run(piece)
    period = _period(pieces)
    if period is None:
        before = simulation.time
        return simulation.run(pieces[-1]) - before
    simulation.run(pieces[-1])
    others, last = pieces[-period:-1], pieces[-1]
    steps = sum(map(len, pieces[-period:]))
    rounds = max(_STEADY_ROUNDS, ceil_div(_STEADY_STEPS, steps))
    total = 0
    for _ in range(rounds):
        for piece in others:
            simulation.run(piece)
        before = simulation.time
        total += simulation.run(last) - before
    return total / rounds


def _period(pieces: Sequence[Sequence[Step]]) -> int | None:
    """Return after how many pieces the same ones come again; None where they do not."""
    for period in range(1, len(pieces) // 2 + 1):
        if all(one is other for one, other in zip(pieces[period:], pieces, strict=False)):
            return period
    return None
