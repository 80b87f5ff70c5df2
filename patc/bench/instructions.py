"""AArch64 instructions as a scheduling model sees them: their kind, and the registers that they read and write.

Decoded by capstone; which operand is read and which written follows from the mnemonic here, because capstone calls
some that are only written read, and some that are only read written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from patc.bench.emulator import import_arm

STACK_POINTER, FLAGS, FIRST_VECTOR = 31, 32, 33  # numbers of registers behind x0 to x30
REGISTERS = FIRST_VECTOR + 32
_REGISTER, _MEMORY = 1, 3  # types of operands

_COMPARES = {"cmp", "cmn", "tst", "ccmp", "ccmn", "fcmp", "fcmpe", "fccmp"}
_SETS_FLAGS = _COMPARES | {"adds", "subs", "ands", "bics", "negs", "adcs", "sbcs"}
_READS_FLAGS = {
    "csel", "csinc", "csinv", "csneg", "cset", "csetm", "cinc", "cinv", "cneg", "fcsel", "ccmp", "ccmn", "fccmp",
    "adc", "sbc", "adcs", "sbcs",
}  # fmt: skip
_BRANCHES = {"b", "br", "ret", "cbz", "cbnz", "tbz", "tbnz"}
_CALLS = {"bl", "blr"}
_FMA = {"fmla", "fmls", "fmadd", "fmsub", "fnmadd", "fnmsub"}
_WIDENING_FMA = {"fmlal", "fmlal2", "fmlsl", "fmlsl2"}
_DOTS = {"sdot", "udot", "usdot", "sudot", "smmla", "ummla", "usmmla"}
_LONG_MACS = {"smlal", "smlal2", "umlal", "umlal2", "smlsl", "smlsl2", "umlsl", "umlsl2"}
_INTEGER_MACS = {"mla", "mls"} | _LONG_MACS
# They add products to their first operand, which they read late.
_PRODUCT_SUMS = _FMA | _WIDENING_FMA | _INTEGER_MACS | _DOTS
# The first operand is read as well as written; so it is where one lane is written.
_UPDATES = _PRODUCT_SUMS | {
    "movk", "bfi", "bfxil", "bfm", "bit", "bif", "bsl", "tbx", "sli", "sri", "ssra", "usra", "fcvtn2", "xtn2",
    "sqxtn2", "uqxtn2", "sqxtun2", "shrn2", "rshrn2", "sqshrn2", "sqrshrn2", "sqrshrun2", "uqrshrn2", "sadalp",
    "uadalp", "bfdot", "bfmmla", "fcmla", "ins",
}  # fmt: skip
_VECTOR_KINDS = {
    "fmul": "fmul", "fmulx": "fmul", "fnmul": "fmul", "fdiv": "fdiv", "fsqrt": "fdiv",
    "fcvtl": "fconvert", "fcvtl2": "fconvert", "fcvtn": "fconvert", "fcvtn2": "fconvert", "scvtf": "fconvert",
    "ucvtf": "fconvert", "fcvtzs": "fconvert", "fcvtzu": "fconvert", "fcvtns": "fconvert", "fcvtnu": "fconvert",
    "fcvtas": "fconvert", "fcvtau": "fconvert", "fcvtms": "fconvert", "fcvtmu": "fconvert", "fcvtps": "fconvert",
    "fcvtpu": "fconvert", "frecpe": "fconvert", "frsqrte": "fconvert",
    "frecps": "fma", "frsqrts": "fma", "fcvt": "fmul",
    "fmaxv": "freduce", "fminv": "freduce", "fmaxnmv": "freduce", "fminnmv": "freduce",
    "addv": "shift", "shl": "shift", "sshr": "shift", "ushr": "shift", "sshll": "shift", "ushll": "shift",
    "sshll2": "shift", "ushll2": "shift", "sshl": "shift", "ushl": "shift", "sli": "shift", "sri": "shift",
    "ssra": "shift", "usra": "shift", "shrn": "shift", "sxtl": "shift", "uxtl": "shift", "mul": "simd-mul",
    "sqdmulh": "simd-mul", "sqrdmulh": "simd-mul", "smull": "long-mul", "smull2": "long-mul", "umull": "long-mul",
    "umull2": "long-mul", "sadalp": "shift", "uadalp": "shift",
    **dict.fromkeys(("srshl", "urshl", "sqshl", "uqshl", "sqrshl", "uqrshl", "srshr", "urshr", "srsra"), "shift"),
    **{name + half: "shift" for half in ("", "2") for name in (
        "sqxtn", "uqxtn", "sqxtun", "rshrn", "sqshrn", "uqshrn", "sqrshrn", "uqrshrn", "sqshrun", "sqrshrun",
    )},
    **dict.fromkeys(_DOTS, "dot"), **dict.fromkeys(_LONG_MACS, "long-mul"), **dict.fromkeys(("mla", "mls"), "simd-mul"),
}  # fmt: skip
_INTEGER_KINDS = {
    "mul": "mul", "madd": "mul", "msub": "mul", "mneg": "mul", "smull": "mul", "umull": "mul", "smaddl": "mul",
    "umaddl": "mul", "smsubl": "mul", "umsubl": "mul", "smulh": "mul64", "umulh": "mul64", "sdiv": "div",
    "udiv": "div",
}  # fmt: skip


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        text: in assembly.
        mnemonic: its first word.
        kind: a key of `patc.bench.cores.KINDS`.
        reads: numbers of registers: 0 to 30, `STACK_POINTER`, `FLAGS`, and vector registers from `FIRST_VECTOR`.
        added_to: the register that products are added to, which some cores read late; None without one.
        writes: registers that the result goes to.
        moved: the address register that a load or store moves on, if it does.
        is_wide: whether it works on 128-bit registers.
    """

    text: str
    mnemonic: str
    kind: str
    reads: tuple[int, ...]
    added_to: int | None
    writes: tuple[int, ...]
    moved: int | None
    is_wide: bool

    @property
    def is_vector_fma(self) -> bool:
        """Whether it multiplies and adds vectors, of floats or of four bytes an element."""
        return self.mnemonic in ("fmla", "fmls", "sdot", "udot")

    @property
    def is_load(self) -> bool:
        """Whether it reads memory into registers."""
        return self.mnemonic.startswith("ld")


class Decoder:
    """Decodes machine code.

    Raises:
        PatcError: capstone is not installed.
    """

    def __init__(self) -> None:
        capstone = import_arm("capstone")
        self._engine = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)
        self._engine.detail = True
        self._numbers: dict[int, int | None] = {}

    def decode(self, code: bytes, address: int = 0) -> list[Instruction]:
        """Return the instructions of `code`."""
        return [self._instruction(found) for found in self._engine.disasm(code, address)]

    def _instruction(self, found: Any) -> Instruction:
        mnemonic = found.mnemonic
        operands = [(operand, self._register(operand.reg)) for operand in found.operands if operand.type == _REGISTER]
        named = [number for _, number in operands if number is not None]
        memory = next((operand for operand in found.operands if operand.type == _MEMORY), None)
        address = [self._register(register) for register in (memory.mem.base, memory.mem.index)] if memory else []
        results = _results(mnemonic, operands)
        writes = [number for _, number in operands[:results] if number is not None]
        reads = [number for _, number in operands[results:] if number is not None]
        first = operands[0] if operands else None
        added_to = None
        if results and first is not None and first[1] is not None:
            if mnemonic in _PRODUCT_SUMS and len(operands) == 3:
                added_to = first[1]
            elif mnemonic in _FMA:
                added_to = reads.pop()
            elif mnemonic in _UPDATES or first[0].vector_index >= 0:
                reads += writes
        if mnemonic in _SETS_FLAGS:
            writes.append(FLAGS)
        if mnemonic in _READS_FLAGS or mnemonic.startswith("b."):
            reads.append(FLAGS)
        if mnemonic in _CALLS:
            writes.append(30)
        if mnemonic == "ret":
            reads.append(30)
        kind = _kind(found, named, operands)
        return Instruction(
            text=f"{mnemonic} {found.op_str}".rstrip(),
            mnemonic=mnemonic,
            kind=kind,
            reads=tuple(dict.fromkeys([*reads, *(number for number in address if number is not None)])),
            added_to=added_to,
            writes=tuple(writes),
            moved=address[0] if memory and found.writeback else None,
            is_wide=_is_wide(found.op_str) and kind != "vector-load-lane",
        )

    def _register(self, register: int) -> int | None:
        """Return the number of a register of capstone's; None for none and for the zero register."""
        if register not in self._numbers:
            self._numbers[register] = _number(self._engine.reg_name(register) or "")
        return self._numbers[register]


def _number(name: str) -> int | None:
    named = {"sp": STACK_POINTER, "wsp": STACK_POINTER, "lr": 30, "fp": 29, "nzcv": FLAGS}
    if name in named:
        return named[name]
    if not name[1:].isdecimal():
        return None
    return int(name[1:]) + (0 if name[0] in "xw" else FIRST_VECTOR)


def _results(mnemonic: str, operands: Sequence[Any]) -> int:
    """Return how many of the first register operands are written."""
    if mnemonic.startswith("st") or mnemonic.startswith(("b.", "prf")) or mnemonic in _COMPARES | _BRANCHES | _CALLS:
        return 0
    if mnemonic.startswith(("ldp", "ldnp")):
        return 2
    if mnemonic[:3] in ("ld1", "ld2", "ld3", "ld4"):
        return len(operands)
    return min(1, len(operands))


def _kind(found: Any, named: Sequence[int], operands: Sequence[Any]) -> str:
    """Return the kind of an instruction; `named` are the registers among its operands."""
    mnemonic = found.mnemonic
    if mnemonic in _CALLS:
        return "call"
    if mnemonic in _BRANCHES or mnemonic.startswith("b."):
        return "branch"
    if mnemonic.startswith("prf"):
        return "prefetch"
    vectors = [number >= FIRST_VECTOR for number in named]
    if mnemonic.startswith(("ld", "st")):
        return _memory_kind(found, bool(vectors and vectors[0]), len(operands))
    if not any(vectors):
        return _integer_kind(found)
    if not all(vectors):
        return _transfer_kind(mnemonic, vectors, operands)
    if mnemonic in _FMA:
        return "fma"
    if mnemonic in _WIDENING_FMA:
        return "fma-long"
    if mnemonic in _COMPARES:
        return "fcompare"
    if mnemonic.startswith("frint"):
        return "fconvert"
    if mnemonic in ("fadd", "fsub", "faddp", "fabd"):
        return "fadd"
    return _VECTOR_KINDS.get(mnemonic, "simd")


def _memory_kind(found: Any, is_vector: bool, registers: int) -> str:
    """Return the kind of a load or store."""
    mnemonic = found.mnemonic
    if not is_vector:
        if mnemonic.startswith("st"):
            return "store-pair" if mnemonic == "stp" else "store"
        return "load-pair-signed" if mnemonic == "ldpsw" else "load"
    if mnemonic[:3] in ("ld1", "ld2", "ld3", "ld4", "st1", "st2", "st3", "st4"):
        is_lane = found.operands[0].vector_index >= 0
        if mnemonic.startswith("st"):
            return "vector-store" if is_lane or registers == 1 else f"vector-store-{registers}"
        if is_lane or mnemonic.endswith("r"):
            return "vector-load-lane"
        shuffled = "-mixed" if mnemonic != "ld1" else ""
        return "vector-load" if registers == 1 else f"vector-load-{registers}{shuffled}"
    is_quad = found.op_str.startswith("q")
    if mnemonic in ("stp", "stnp"):
        return "quad-store-pair" if is_quad else "vector-store-2"
    if mnemonic.startswith("st"):
        return "quad-store" if is_quad else "vector-store"
    if mnemonic in ("ldp", "ldnp"):
        return "quad-load-pair" if is_quad else "vector-load"
    return "vector-load"


def _integer_kind(found: Any) -> str:
    mnemonic = found.mnemonic
    if mnemonic in ("nop", "isb", "dsb", "dmb", "hint", "yield"):
        return "nothing"
    if mnemonic in _INTEGER_KINDS:
        kind = _INTEGER_KINDS[mnemonic]
        # 64-bit products take longer; those of 32-bit factors do not.
        is_long = mnemonic in ("mul", "madd", "msub", "mneg") and found.op_str.startswith("x")
        return "mul64" if is_long else kind
    last = found.operands[-1] if found.operands else None
    if last is not None and last.type == _REGISTER and mnemonic in ("add", "sub", "adds", "subs", "cmp", "cmn"):
        is_cheap = last.ext == 0 and (last.shift.value == 0 or (last.shift.type == 1 and last.shift.value <= 4))
        return "alu" if is_cheap else "shifted-alu"
    return "alu"


def _transfer_kind(mnemonic: str, vectors: Sequence[bool], operands: Sequence[Any]) -> str:
    """Return the kind of what takes integers into vectors or back."""
    if not vectors[0]:
        return "to-integer"
    if mnemonic in ("scvtf", "ucvtf"):
        return "insert-integer"
    return "insert-integer" if operands[0][0].vector_index >= 0 else "from-integer"


def _is_wide(text: str) -> bool:
    """Return whether operands in assembly name a whole vector register."""
    return text.startswith("q") or any(form in text for form in (".4s", ".2d", ".8h", ".16b"))
