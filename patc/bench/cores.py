"""AArch64 cores as numbers: which pipes they have, and what instructions need of them.

Pipes and latencies of Cortex-A76 and Neoverse N1, which are the same core, are those that LLVM's scheduling model and
OSACA's tables have from Arm's Neoverse N1 Software Optimization Guide; where the two differ, the slower one. The other
cores have this table too, but for their widths (`patc.cpus`) and the latencies that matter most to convolutions, as
published by Arm and, for Apple's M1, as others measured them. Those are coarser: compare code with code there, not core
with core. Cortex-X2 to X4 and M2 to M4 have windows and latencies of the first of their kind.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from patc.diagnostics import PatcError


@dataclass(frozen=True)
class Kind:
    """What instructions of one kind need.

    Attributes:
        pipes: one letter for each micro-operation: I any integer pipe, M one that multiplies, B branches, L loads,
            A store addresses, D store data, V any vector pipe, F the first half of them, S the second half.
        latency: cycles from the operands to the result.
        sum_latency: cycles from the sum that a product is added to, where that sum comes from such a product as well;
            0 for no difference.
        busy: cycles for which a pipe can start nothing else.
    """

    pipes: str
    latency: int
    sum_latency: int = 0
    busy: int = 1


KINDS = {
    "nothing": Kind("", 0),
    "branch": Kind("B", 1),
    "call": Kind("BI", 1),
    "alu": Kind("I", 1),
    "shifted-alu": Kind("M", 2),
    "mul": Kind("M", 2),
    "mul64": Kind("M", 4, busy=3),
    "div": Kind("M", 12, busy=5),
    "load": Kind("L", 4),
    "load-pair-signed": Kind("IL", 5),
    "prefetch": Kind("L", 4),
    "store": Kind("AD", 1),
    "store-pair": Kind("AAD", 1),
    "vector-load": Kind("IL", 5),
    "quad-load-pair": Kind("ILL", 7),
    "vector-load-lane": Kind("LV", 7),
    "vector-load-2": Kind("LL", 5),
    "vector-load-3": Kind("LLL", 6),
    "vector-load-4": Kind("LLLL", 6),
    "vector-load-2-mixed": Kind("LLVV", 7),
    "vector-load-3-mixed": Kind("LLLVVV", 8),
    "vector-load-4-mixed": Kind("LLLLVVVV", 10),
    "vector-store": Kind("AV", 2),
    "quad-store": Kind("AAV", 2),
    "quad-store-pair": Kind("AAAAVV", 3),
    "vector-store-2": Kind("AAVV", 3),
    "vector-store-3": Kind("AAAVVV", 4),
    "vector-store-4": Kind("AAAAVVVV", 5),
    "fma": Kind("V", 4, sum_latency=2),
    "fma-long": Kind("V", 5, sum_latency=2),
    "fmul": Kind("V", 3),
    "fadd": Kind("V", 2),
    "fdiv": Kind("F", 10, busy=7),
    "fconvert": Kind("FF", 4),
    "fcompare": Kind("F", 2),
    "freduce": Kind("V", 5),
    "simd": Kind("V", 2),
    "simd-mul": Kind("FF", 5, sum_latency=2),
    "long-mul": Kind("F", 4, sum_latency=1),
    "dot": Kind("V", 2, sum_latency=1),
    "shift": Kind("S", 2),
    "from-integer": Kind("M", 3),
    "insert-integer": Kind("MV", 5),
    "to-integer": Kind("S", 2),
}


@dataclass(frozen=True)
class Core:
    """A core by its widths.

    Attributes:
        decoded: instructions that enter it in one cycle.
        window: instructions between the one that leaves next and the last one that can start, by the size of the
            reorder buffer or, where that is far larger, of the schedulers; 0 where each starts no earlier than the
            one before it.
        pipes: how many there are of the letters of `Kind.pipes`; M is a part of I, A a part of L.
        vector_bits: width of a vector pipe; 128-bit operations take two pipes of 64 bits.
        load_bits: the same for loads and stores.
        kinds: what differs from `KINDS`.
    """

    decoded: int
    window: int
    pipes: dict[str, int]
    vector_bits: int = 128
    load_bits: int = 128
    kinds: dict[str, Kind] = field(default_factory=dict)

    @property
    def fma_peak(self) -> float:
        """128-bit multiply-adds that can start in one cycle."""
        return self.pipes["V"] * self.vector_bits / 128

    def kind(self, name: str) -> Kind:
        """Return what instructions of a kind need here."""
        return self.kinds.get(name, KINDS[name])

    def ports(self) -> dict[str, tuple[int, ...]]:
        """Return the numbers of the pipes behind each letter."""
        found: dict[str, tuple[int, ...]] = {}
        end = 0
        for letter in "BIDLV":
            found[letter] = tuple(range(end, end + self.pipes[letter]))
            end += self.pipes[letter]
        half = self.pipes["V"] // 2
        found["F"], found["S"] = found["V"][:half], found["V"][half:]
        found["M"], found["A"] = found["I"][-self.pipes["M"] :], found["L"][: self.pipes["A"]]
        return found


_WHOLE_STORES = {"quad-store": Kind("AV", 2), "quad-store-pair": Kind("AAVV", 2)}
_N1 = Core(4, 128, {"B": 1, "I": 3, "M": 1, "D": 2, "L": 2, "A": 2, "V": 2})
_A55 = Core(
    decoded=2,
    window=0,
    pipes={"B": 1, "I": 2, "M": 1, "D": 1, "L": 1, "A": 1, "V": 2},
    vector_bits=64,
    load_bits=64,
    kinds={
        **_WHOLE_STORES,
        "load": Kind("L", 3),
        "vector-load": Kind("L", 3),
        "quad-load-pair": Kind("LL", 4),
        "vector-load-lane": Kind("L", 3),
        "fma": Kind("V", 4),
        "fmul": Kind("V", 4),
        "fadd": Kind("V", 4),
        "fconvert": Kind("V", 4),
        "simd-mul": Kind("V", 4, sum_latency=1),
        "long-mul": Kind("V", 4, sum_latency=1),
        "dot": Kind("V", 4, sum_latency=1),
        "shift": Kind("V", 3),
    },
)
_X1 = Core(
    decoded=5,
    window=160,
    pipes={"B": 2, "I": 4, "M": 2, "D": 2, "L": 3, "A": 2, "V": 4},
    kinds={**_WHOLE_STORES, "dot": Kind("V", 3, sum_latency=1)},
)
_M1 = Core(
    decoded=8,
    window=160,
    pipes={"B": 2, "I": 6, "M": 2, "D": 2, "L": 3, "A": 2, "V": 4},
    kinds={
        **_WHOLE_STORES,
        "fma": Kind("V", 4),
        "fmul": Kind("V", 4),
        "fadd": Kind("V", 3),
        "dot": Kind("V", 3),
    },
)
CORES = {
    "cortex-a76": _N1,
    "neoverse-n1": _N1,
    "cortex-a55": _A55,
    "cortex-a53": replace(_A55, kinds={**_A55.kinds, "fma": Kind("V", 8, sum_latency=4)}),
    "cortex-a72": Core(
        decoded=3,
        window=128,
        pipes={"B": 1, "I": 3, "M": 1, "D": 1, "L": 1, "A": 1, "V": 2},
        vector_bits=64,
        kinds={
            **_WHOLE_STORES,
            "fma": Kind("V", 7, sum_latency=3),
            "fmul": Kind("V", 4),
            "fadd": Kind("V", 4),
            "simd": Kind("V", 3),
        },
    ),
    "cortex-a78": replace(_N1, pipes={**_N1.pipes, "L": 3}),
    **{f"cortex-x{number}": replace(_X1, decoded=decoded) for number, decoded in enumerate((5, 5, 6, 10), 1)},
    **{f"apple-m{number}": replace(_M1, decoded=decoded) for number, decoded in enumerate((8, 8, 9, 10), 1)},
}


def find_core(cpu: str) -> Core:
    """Return the model of a CPU.

    Raises:
        PatcError: there is none; the message lists those there are.
    """
    if cpu not in CORES:
        raise PatcError(f"expected a CPU that has a model ({', '.join(CORES)}), got '{cpu}'")
    return CORES[cpu]
