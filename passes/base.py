"""What a pass is: a frozen dataclass whose fields are its options, and one method that rewrites a module.

Option text is MLIR's, `pattern-schedule{target=x86-64-v4 threads=2}`: parsing, printing and help all derive
from the dataclass fields. A field may say more about itself:

    threads: int = field(default=0, metadata={"help": "threads to use; 0 for all", "minimum": 0})
    split: str = field(default="filters", metadata={"choices": ("filters", "rows")})
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from types import UnionType
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar, get_args, get_type_hints

from patc.diagnostics import Diagnostic, PatcError, nearest
from patc.dialects.schedules import Buffer
from patc.parameters import ParameterStore
from patc.passes.ir.arena import WeightPool

if TYPE_CHECKING:  # `patc-opt --help` builds its text from passes without loading MLIR
    from torch_mlir import ir

    from patc.passes.cost.candidate import Candidate

# Returns the seconds that an op takes on this machine with each of some candidates.
Measure: TypeAlias = "Callable[[Any, Sequence[Candidate], PassState], Sequence[float]]"

# Writes the ranges of a module's tensors, as `pattern-quantize` reads them.
Calibrate: TypeAlias = "Callable[[ir.Module, PassState], None]"

AnyPass = TypeVar("AnyPass", bound="Pass")

_TYPE_WORDS = {int: "an integer", bool: "true or false", float: "a number", str: "text", tuple: "integers"}


@dataclass
class PassState:
    """What passes share beside the IR.

    Attributes:
        parameters: the arrays behind `pattern.parameter` ops.
        diagnostics: warnings and remarks so far, in the order of emission.
        measure: what to choose schedules by; None for the cost model.
        calibrate: what finds the ranges of activations, for layers to be quantised; None for those in the module.
        pool: what the constants of all modules that share them become.
        buffers: where activations are, as soon as memory is planned.
    """

    parameters: ParameterStore = field(default_factory=ParameterStore)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    measure: Measure | None = None
    pool: WeightPool = field(default_factory=WeightPool)
    buffers: tuple[Buffer, ...] = ()
    calibrate: Calibrate | None = None

    def clone(self) -> PassState:
        """Return a state of its own with the same arrays, which no pass changes in place."""
        return PassState(self.parameters.copy(), list(self.diagnostics), self.measure)

    def remark(self, op: Any, message: str) -> None:
        """Record something the user may want to know about one op."""
        self.diagnostics.append(Diagnostic("remark", message, op.location))


@dataclass(frozen=True)
class Option:
    """One option of a pass: a dataclass field and its text form.

    Attributes:
        name: as written in text, kebab-case.
        kind: int, bool, float, str, or tuple for a list of integers.
        default: the value when the option is not given; None is legal only as a default.
        help: one phrase for `--list-passes`.
        choices: the legal values; empty for no such limit.
        minimum, maximum: bounds of a number, both legal; None for no bound.
    """

    name: str
    kind: type
    default: Any
    help: str = ""
    choices: tuple[Any, ...] = ()
    minimum: float | None = None
    maximum: float | None = None

    @property
    def field_name(self) -> str:
        """The dataclass field of the option."""
        return self.name.replace("-", "_")

    @property
    def rule(self) -> str:
        """The legal values in words, as error messages say them."""
        if self.choices:
            return "one of " + ", ".join(map(str, self.choices))
        words = _TYPE_WORDS[self.kind]
        if self.minimum is not None and self.maximum is not None:
            return f"{words} from {self.minimum} to {self.maximum}"
        if self.minimum is not None:
            return f"{words} of {self.minimum} or more"
        return words if self.maximum is None else f"{words} of {self.maximum} or less"

    def check(self, value: Any) -> Any:
        """Return `value` as the option's type.

        Raises:
            ValueError: the value is of another type or outside the legal range.
        """
        if value is None and self.default is None:
            return None
        if self.kind is tuple:
            items = tuple(value) if isinstance(value, (tuple, list)) else (value,)
            return tuple(self._check_scalar(item, int) for item in items)
        return self._check_scalar(value, self.kind)

    def _check_scalar(self, value: Any, kind: type) -> Any:
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        right_type = type(value) is kind  # a bool is no integer here
        if not right_type:
            raise ValueError
        low = self.minimum is not None and value < self.minimum
        high = self.maximum is not None and value > self.maximum
        if low or high or (self.choices and value not in self.choices):
            raise ValueError
        return value

    def parse(self, text: str) -> Any:
        """Return the value that option text stands for.

        Raises:
            ValueError: the text is not of the option's type.
        """
        if self.kind is bool:
            return {"": True, "true": True, "1": True, "false": False, "0": False}[text.lower()]
        if self.kind is tuple:
            return tuple(int(item) for item in text.split(",")) if text else ()
        return self.kind(text)

    def print(self, value: Any) -> str:
        """Return the text that `parse` turns into `value`."""
        if self.kind is bool:
            return "true" if value else "false"
        if self.kind is tuple:
            return ",".join(map(str, value)) or "{}"
        text = repr(value) if self.kind is float else str(value)
        return text if text and not set(text) & set(" \t\n{}(),'\"") else "{" + text + "}"


@dataclass(frozen=True)
class Pass:
    """A transformation of a module.

    A subclass is a frozen dataclass: its fields are the options of the pass (`max_patterns: int = 8` is
    written `max-patterns=8`), its docstring is what `--list-passes` prints. It lives in the file of its name.

    Raises:
        PatcError: an option has a value of the wrong type or outside its range.
    """

    name: ClassVar[str]

    def __post_init__(self) -> None:
        for option in self.options():
            value = getattr(self, option.field_name)
            try:
                object.__setattr__(self, option.field_name, option.check(value))
            except ValueError:
                raise _bad_value(self.name, option, value) from None

    def run(self, module: ir.Module, state: PassState) -> None:
        """Rewrite `module` in place.

        Raises:
            PatcError: the module is not what the pass requires; the location is that of the op.
        """
        raise NotImplementedError

    @classmethod
    def options(cls) -> tuple[Option, ...]:
        """Return the options of the pass, in the order of its fields."""
        hints = get_type_hints(cls)
        return tuple(_option_of(item, hints[item.name]) for item in fields(cls))

    @classmethod
    def from_options(cls: type[AnyPass], values: Mapping[str, Any]) -> AnyPass:
        """Build the pass from option values; names in kebab or snake case.

        Raises:
            PatcError: an option is unknown, or its value is not legal.
        """
        return cls(**{cls._option(name).field_name: value for name, value in values.items()})

    @classmethod
    def from_text(cls: type[AnyPass], text: str) -> AnyPass:
        """Build the pass from option text, as in `target=x86-64-v4 threads=2`.

        Raises:
            PatcError: an option is unknown, or its value is not legal.
        """
        values = {}
        for name, value in split_options(text):
            option = cls._option(name)
            try:
                values[option.field_name] = option.parse(value)
            except (ValueError, KeyError):
                raise _bad_value(cls.name, option, value) from None
        return cls(**values)

    @classmethod
    def summary(cls) -> str:
        """Return the first sentence of the docstring."""
        paragraph = " ".join((cls.__doc__ or "").strip().split("\n\n")[0].split())
        return paragraph.split(". ")[0].rstrip(".") + "."

    @classmethod
    def _option(cls, name: str) -> Option:
        by_name = {option.name: option for option in cls.options()}
        found = by_name.get(name.replace("_", "-"))
        if found is None:
            hint = nearest(name, by_name) or "; it has " + (", ".join(by_name) or "no options")
            raise PatcError(f"pass '{cls.name}' has no option '{name}'{hint}")
        return found

    def __str__(self) -> str:
        """Return the pass as a pipeline names it, with the options that differ from their defaults."""
        texts = [
            f"{option.name}={option.print(value)}"
            for option in self.options()
            if (value := getattr(self, option.field_name)) != option.default
        ]
        return f"{self.name}{{{' '.join(texts)}}}" if texts else self.name


def fail(op: Any, expected: str, got: Any) -> PatcError:
    """Return the error `'<op>' op expected <rule>, got <value>` at the op's place."""
    return PatcError(f"'{op.operation.name}' op expected {expected}, got {got}", op.location)


def split_options(text: str) -> list[tuple[str, str]]:
    """Return the (name, value) pairs of option text; a name alone has the value "".

    Pairs are separated by blanks outside braces and quotes, and a value in braces or quotes loses them.

    Raises:
        PatcError: a brace or quote is not closed.
    """
    words: list[str] = []
    closers: list[str] = []
    word = ""
    for char in text:
        if closers and char == closers[-1]:
            closers.pop()
        elif char in "{\"'" and not (closers and closers[-1] in "\"'"):
            closers.append("}" if char == "{" else char)
        elif char.isspace() and not closers:
            words.append(word)
            word = ""
            continue
        word += char
    if closers:
        raise PatcError(f"expected {closers[-1]} to close the options, found the end of '{text}'")
    pairs = [word.partition("=") for word in [*words, word] if word]
    return [(name, _unwrap(value)) for name, _, value in pairs]


def _unwrap(value: str) -> str:
    wrapped = len(value) > 1 and value[0] + value[-1] in ("{}", '""', "''")
    return value[1:-1] if wrapped else value


def _bad_value(pass_name: str, option: Option, value: Any) -> PatcError:
    return PatcError(f"pass '{pass_name}' expected option '{option.name}' to be {option.rule}, got {value!r}")


def _option_of(item: Field[Any], hint: Any) -> Option:
    kinds = set(get_args(hint)) - {type(None)} if isinstance(hint, UnionType) else {hint}
    kind = kinds.pop()
    kind = tuple if kind == tuple[int, ...] else kind
    if kinds or kind not in _TYPE_WORDS or item.default is MISSING:
        raise TypeError(f"option '{item.name}' must have a default and be int, bool, float, str or tuple[int, ...]")
    known = {key: item.metadata[key] for key in ("help", "minimum", "maximum") if key in item.metadata}
    choices = tuple(item.metadata.get("choices", ()))
    return Option(item.name.replace("_", "-"), kind, item.default, choices=choices, **known)
