"""What an emulated program executes: its blocks of straight code, how often, and in which order.

A block that runs after others finds a core that is still busy with them, so blocks are counted with what ran before
them: a `Path` is a block and its context. Where a program is in a loop, the same few paths come again and again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from patc.bench.emulator import EmulatedProgram
from patc.diagnostics import PatcError

# Blocks that ran before count until there are so many instructions or so many of them; more than cores look ahead.
CONTEXT_INSTRUCTIONS = 256
CONTEXT_BLOCKS = 16

Block = tuple[int, int]  # address and size in bytes


@dataclass(frozen=True)
class LayerTrace:
    """What one layer executed: how often each path, the block itself being the last one of the path."""

    paths: dict[tuple[Block, ...], int] = field(default_factory=dict)

    def blocks(self) -> dict[Block, int]:
        """Return how often each block ran."""
        counts: dict[Block, int] = {}
        for path, count in self.paths.items():
            counts[path[-1]] = counts.get(path[-1], 0) + count
        return counts


def trace_layers(
    program: EmulatedProgram, inputs: Sequence[np.ndarray], layers: int
) -> tuple[list[np.ndarray], list[LayerTrace]]:
    """Run a program and return its outputs, and what each of its layers executed.

    Layers are told apart by the time stamps that the program writes before the first one and after each. Of layers that
    take turns in a loop, band by band, the stamps are sums of their turns, written behind it: the first one gets what
    all of them executed.

    Raises:
        PatcError: as `EmulatedProgram`, or the program took another number of stamps.
    """
    recorder = _Recorder(program)
    outputs = recorder.run(lambda: program(*inputs))
    if len(recorder.parts) != layers + 2:
        raise PatcError(f"expected {layers + 1} time stamps, one more than layers, found {len(recorder.parts) - 1}")
    return outputs, [part.trace() for part in recorder.parts[1:-1]]


class _State(dict[int, "_State"]):
    """A path that has run: how often, and the states that followed, by the addresses of their blocks."""

    __slots__ = ("count", "path")

    def __init__(self, path: tuple[Block, ...]) -> None:
        self.count = 0
        self.path = path


class _Part:
    """The states between two time stamps."""

    def __init__(self) -> None:
        self.start = _State(())
        self.states: dict[tuple[Block, ...], _State] = {}

    def trace(self) -> LayerTrace:
        return LayerTrace({path: state.count for path, state in self.states.items()})


class _Recorder:
    """Counts paths while an emulator runs.

    Attributes:
        parts: what ran before the first time stamp, between them and after the last one.
    """

    def __init__(self, program: EmulatedProgram) -> None:
        self._program = program
        self.parts = [_Part()]
        self._state = self.parts[0].start
        self._last_stamp = -1

    def run(self, function: Any) -> Any:
        """Call a function that runs the emulator."""
        import unicorn

        engine, stamps = self._program.emulator.engine, self._program.stamps
        hooks = [
            engine.hook_add(unicorn.UC_HOOK_BLOCK, self._on_block),
            engine.hook_add(unicorn.UC_HOOK_MEM_WRITE, self._on_stamp, begin=stamps[0], end=stamps[-1]),
        ]
        engine.ctl_flush_tb()  # code that was translated before has no hooks
        try:
            return function()
        finally:
            for hook in hooks:
                engine.hook_del(hook)
            engine.ctl_flush_tb()

    def _on_block(self, engine: Any, address: int, size: int, data: Any) -> None:
        # Called once for each block that runs, millions of times.
        try:
            self._state = self._state[address]
        except KeyError:
            self._state = self._follow(address, size)
        self._state.count += 1

    def _on_stamp(self, engine: Any, access: int, address: int, size: int, value: int, data: Any) -> None:
        if address <= self._last_stamp:  # one of layers that took turns, corrected
            return
        self._last_stamp = address
        self.parts.append(_Part())
        self._state = self.parts[-1].start

    def _follow(self, address: int, size: int) -> _State:
        """Return the state after a block that the present one was not followed by before."""
        path = _shorten((*self._state.path, (address, size)))
        states = self.parts[-1].states
        state = states.get(path)
        if state is None:
            state = states[path] = _State(path)
        self._state[address] = state
        return state


def _shorten(path: tuple[Block, ...]) -> tuple[Block, ...]:
    """Return a path without the beginning that does not matter."""
    path = path[-CONTEXT_BLOCKS - 1 :]
    while len(path) > 2 and sum(size for _, size in path[1:-1]) >= 4 * CONTEXT_INSTRUCTIONS:
        path = path[1:]
    return path
