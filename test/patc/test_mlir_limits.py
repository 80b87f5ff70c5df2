"""Text that the bindings could not survive is refused in one line; what nests less goes through."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import fail

from patc.diagnostics import PatcError
from patc.mlir_limits import MOST_NESTED, MOST_OPERATORS, check_text
from patc.tools.patc_opt import main

DEEP = MOST_NESTED + 1


def nest(before: str, inside: str, after: str, depth: int = DEEP) -> str:
    return before * depth + inside + after * depth


def chain(first: str, next_: str, count: int, separator: str = "\n") -> str:
    """Return aliases that each use the one before: `next_` has {0} for the one to define and {1} for the other."""
    return separator.join([first, *(next_.format(i, i - 1) for i in range(1, count))]) + "\n"


TOO_DEEP = {
    "regions": "func.func @f(%c: i1) {\n" + nest("scf.if %c {\n", "", "}\n", 8000) + "return }",
    "attributes": "module attributes {x.a = " + nest("[", "", "]", 100_000) + "} {}",
    "dictionaries": "module attributes {x.a = " + nest("{a=", "1", "}") + "} {}",
    "tuples": "func.func private @f(" + nest("tuple<", "i1", ">", 100_000) + ")",
    "functions": "func.func private @f(" + nest("(", "i1", ") -> ()") + ")",
    "locations": "module {} loc(" + nest("fused[", '"a"', "]") + ")",
    "call sites": "module {} loc(" + nest('callsite("a" at ', '"a"', ")") + ")",
    "affine parentheses": "#m = affine_map<(d0) -> (" + nest("(", "d0", ")") + ")>",
    "elements": "module attributes {x.a = dense<" + nest("[", "1", "]") + "> : tensor<1xi8>} {}",
    "type aliases": chain("!a0 = tuple<i1>", "!a{} = tuple<!a{}>", DEEP),
    "aliases on one line": chain("!a0 = tuple<i1>", "!a{} = tuple<!a{}>", DEEP, " "),
    "aliases on many lines": chain("!a0 = tuple<i1>", "!a{} =\n tuple<\n!a{}>", DEEP),
    "attribute aliases": chain("#a0 = []", "#a{} = [#a{}]", DEEP),
    "locations that are defined later": "\n".join(f"#loc{i} = loc(fused[#loc{i + 1}])" for i in range(DEEP)),
    "after what looks like a string": r'module attributes {x.a = "\"", x.b = ' + nest("[", "", "]") + "} {}",
    "after closing brackets": ">>>>" * 400 + nest("[", "", "]"),
}  # fmt: skip


@pytest.mark.parametrize("text", TOO_DEEP.values(), ids=TOO_DEEP)
def test_text_that_nests_too_deeply_is_refused(text: str) -> None:
    with pytest.raises(PatcError, match=rf"^x.mlir: expected at most {MOST_NESTED} brackets in each other, found \d+ "):
        check_text(text.encode(), "x.mlir")


@pytest.mark.parametrize("name", [b"\x80", b"\\80", b"\\C3x", b'\\"\\FF'])
def test_names_that_are_not_utf8_are_refused(name: bytes) -> None:
    with pytest.raises(PatcError, match=r"^x: expected MLIR text with strings in UTF-8, found other bytes in line 2$"):
        check_text(b'// "\xff\nmodule attributes {x.a = "' + name + b'"} {}', "x")


@pytest.mark.parametrize("name", ["\u00e9", r"\C3\A9", r"\\80", r"\"\n\t", "80"])
def test_names_in_utf8_are_taken(name: str) -> None:
    check_text(f'module attributes {{x.a = "{name}"}} {{}}'.encode(), "x")


@pytest.mark.parametrize(
    "terms", ["d0" + " floordiv 3 + d1" * MOST_OPERATORS, "- " * (MOST_OPERATORS + 1) + "d0", "(d0) * " * 2000 + "1"]
)
def test_expressions_of_very_many_operators_are_refused(terms: str) -> None:
    with pytest.raises(PatcError, match=f"^x: expected expressions of at most {MOST_OPERATORS} operators, found "):
        check_text(f"#m = affine_map<(d0, d1) -> ({terms})>".encode(), "x")


def test_aliases_that_double_are_refused() -> None:
    with pytest.raises(PatcError, match=r"expected aliases of at most 1000000 parts, .*, found alias !a\d+ of \d+"):
        check_text(chain("!a0 = tuple<i1>", "!a{0} = tuple<!a{1}, !a{1}>", 60).encode(), "x")


@pytest.mark.parametrize(
    "numbers", ["[1, x]", "[9223372036854775808, 0]", "(1, 0)", "[1, 0", "[1 0]", "array<i64: 1, 0>"]
)
def test_lists_of_dimensions_that_are_none_are_refused(numbers: str) -> None:
    text = f"""func.func @f(%x: tensor<2x3xf32>, %e: tensor<3x2xf32>) {{
      %w = linalg.transpose ins(%x : tensor<2x3xf32>) outs(%e : tensor<3x2xf32>) permutation = {numbers}
      return
    }}"""
    with pytest.raises(
        PatcError, match=r"^x: expected a list of dimensions such as \[0, 1\] in line 2, found another$"
    ):
        check_text(text.encode(), "x")


@pytest.mark.parametrize(
    "text",
    [
        "module attributes {x.a = loc(unknown)} {}",
        'module attributes {x.a = [1, loc("a")]} {}',
        "module attributes {x.a = {b=loc (unknown)}} {}",
        "#loc = loc(unknown)\nmodule attributes {x.a = #loc} {}",
        '#loc7 = loc("a"(#loc))\n#loc = loc(unknown)\nmodule attributes {x.a = [#loc7]} {}',
    ],
)
def test_locations_as_attributes_are_refused(text: str) -> None:
    """Of which the bindings make no object, and end the process."""
    line = 1 + text.count("\n")
    expected = f"^x: expected attributes that are no locations, found one in line {line}$"
    with pytest.raises(PatcError, match=expected):
        check_text(text.encode(), "x")


@pytest.mark.parametrize(
    "location", ["#loc", 'fused<"meta">["a", #loc, #loc2]', 'callsite("a(b"(#loc) at #loc2)', '"x = loc("(#loc)']
)
def test_locations_of_ops_and_arguments_are_taken(location: str) -> None:
    text = f"""\
#loc = loc("a":1:2)
func.func @f(%x: i32 loc({location}), %y: i32 loc(#loc)) -> i32 {{
  return {{x.loc = "loc("}} %x : i32 loc({location})
}} loc(#loc2)
#loc2 = loc({location.replace("#loc2", "#loc")})
"""
    check_text(text.encode(), "x")


def test_bytecode_is_refused() -> None:
    with pytest.raises(PatcError, match="x: expected MLIR text, found bytecode"):
        check_text(b"ML\xefR\x06", "x")


@pytest.mark.parametrize(
    "text",
    [
        'module attributes {x.a = "' + "[" * 1000 + '"} {}',
        "// " + "[" * 1000 + "\nmodule {}",
        "func.func private @f() -> ()\n" * 1000,
        "#s = affine_set<(d0) : (d0 >= 0, d0 - 5 <= 0, d0 == 3)>\n" * 1000,
        "%0 = arith.addi %a, %b : i32\n" * 5000,
        "module attributes {x.a = dense<[" + ", ".join(["-1"] * 5000) + "]> : tensor<5000xi8>} {}",
        '#loc = loc("a")\n' + "".join(f'#loc{i} = loc("a"(#loc))\n' for i in range(1, 3000)),
        "!a = !a\n#b = #c\n#c = #b\n",
        '"unterminated',
        "",
    ],
)
def test_other_text_is_left_to_the_parser(text: str) -> None:
    check_text(text.encode(), "x.mlir")


@pytest.mark.parametrize(
    "text",
    ['"' + r"\"" * 300_000, "!a = i1" + "\n" * 300_000, "!a = i1\n" + "// a comment\n" * 300_000],
    ids=["a string without an end", "empty lines", "comments"],
)
def test_long_text_is_read_once(text: str) -> None:
    """Whatever reads the rest again at each line or quote takes hours."""
    check_text(text.encode(), "x.mlir")


def test_text_that_nests_as_deeply_as_allowed_goes_through(tmp_path: Path) -> None:
    path = tmp_path / "x.mlir"
    body = nest("scf.if %c {\n", "func.call @g() : () -> ()\n", "}\n", 250)
    path.write_text(f"func.func private @g()\nfunc.func @f(%c: i1) {{\n{body}return }}")
    assert main(["--canonicalize", "--cse", "--inline", str(path), "-o", str(tmp_path / "y.mlir")]) == 0


def test_both_tools_refuse_it_in_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "x.mlir"
    path.write_text(TOO_DEEP["regions"])
    line = f"expected at most {MOST_NESTED} brackets in each other, found 8001 (too many from line 257 on)\n"
    for words in ([str(path)], ["--split-input-file", str(path)]):
        assert main(words) == 1
        assert capsys.readouterr().err == f"{path}: error: {line}"
    assert f"{fail(capsys, 'compile', path, '-o', tmp_path / 'x.patc')}\n" == f"{path}: {line}"
    assert [name.name for name in tmp_path.iterdir()] == ["x.mlir"]


def test_tensors_whose_bytes_cannot_be_counted_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "x.mlir").write_text("""func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
  %e = tensor.empty() : tensor<4x9223372036854775807xf32>
  return %x : tensor<4xf32>
}""")
    said = "x.mlir:2:8: error: 'tensor.empty' op expected at most 1099511627776 elements, got tensor<4x92233"
    assert main([str(tmp_path / "x.mlir")]) == 1
    assert said in capsys.readouterr().err
    error = fail(capsys, "compile", tmp_path / "x.mlir", "-o", tmp_path / "x.patc")
    assert said.replace("error: ", "") in error and "\n" not in error
