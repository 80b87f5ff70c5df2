"""What may import what, what loads when, and that passes, files, classes and test folders go by one name."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from repository import ROOT

from patc.passes.base import Pass
from patc.passes.registry import PASS_NAMES, find_pass

FOLDERS = {"patc": ROOT / "patc", **{f"patc.{name}": ROOT / name for name in ("dialects", "passes", "tools")}}

# For each package: what its modules must not import.
FORBIDDEN = {
    "patc.pruning": ("torch_mlir", "patc.passes", "patc.dialects", "patc.frontend", "patc.codegen", "patc.runtime"),
    "patc.search": ("torch_mlir", "patc.passes", "patc.dialects", "patc.frontend", "patc.codegen", "patc.runtime"),
    "patc.robust": ("torch_mlir", "patc.passes", "patc.dialects", "patc.frontend", "patc.codegen", "patc.runtime"),
    "patc.dialects": ("torch", "patc.passes", "patc.frontend", "patc.pruning", "patc.codegen", "patc.runtime"),
    "patc.passes": ("torch", "patc.frontend", "patc.pruning", "patc.codegen", "patc.runtime", "patc.bench"),
    "patc.passes.ir": ("patc.passes.kernels", "patc.passes.cost", "patc.passes.algorithms", "patc.passes.layers"),
    "patc.passes.kernels": ("patc.passes.cost", "patc.passes.algorithms", "patc.passes.layers"),
    "patc.passes.cost": ("patc.passes.algorithms", "patc.passes.layers"),
    "patc.passes.algorithms": ("patc.passes.layers",),
    "patc.codegen": ("torch", "patc.frontend", "patc.pruning", "patc.bench"),
    "patc.runtime": ("torch_mlir", "patc.passes", "patc.dialects", "patc.frontend", "patc.pruning", "patc.bench"),
}

PLAIN_DATA = ("patc.dialects.schedules",)  # needs no MLIR, and reports hold it

# For each package: the only packages beside the standard library that its modules import.
ALLOWED = {"patc.dialects": ("torch_mlir", "numpy", "patc.dialects")}


def modules(package: str) -> Iterator[tuple[str, Path]]:
    """Yield name and file of each module of a package."""
    home = max((name for name in FOLDERS if f"{package}.".startswith(f"{name}.")), key=len)
    folder = FOLDERS[home] / package.removeprefix(home).lstrip(".").replace(".", "/")
    for path in sorted(folder.rglob("*.py")):
        inside = path.relative_to(folder).with_suffix("").parts
        if home != "patc" or not {"dialects", "passes", "tools"} & {*inside[:1]}:
            yield ".".join([package, *(part for part in inside if part != "__init__")]), path


def imports(name: str, path: Path) -> set[str]:
    """Return what a module imports, anywhere in it; `from a import b` counts as `a` and `a.b`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = name if path.name == "__init__.py" else name.rpartition(".")[0]
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return found


def within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("package", FORBIDDEN)
def test_layers_do_not_know_those_above(package: str) -> None:
    checked = list(modules(package))
    assert checked
    wrong = [
        f"{name} imports {found}"
        for name, path in checked
        for found in sorted(imports(name, path))
        if within(found, FORBIDDEN[package]) and not within(found, PLAIN_DATA)
    ]
    assert not wrong


def test_no_pass_imports_another_one() -> None:
    passes = {find_pass(name).__module__ for name in PASS_NAMES}
    wrong = [
        f"{name} imports {found}"
        for name, path in modules("patc.passes")
        for found in sorted(imports(name, path) & passes)
        if name != "patc.passes.registry"
    ]
    assert not wrong


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_with_few_dependencies(package: str) -> None:
    wrong = [
        f"{name} imports {found}"
        for name, path in modules(package)
        for found in sorted(imports(name, path))
        if found.partition(".")[0] not in sys.stdlib_module_names and not within(found, ALLOWED[package])
    ]
    assert not wrong


def test_nothing_imports_the_tools() -> None:
    wrong = [
        name
        for package in ("patc", "patc.dialects", "patc.passes")
        for name, path in modules(package)
        if any(within(found, ("patc.tools",)) for found in imports(name, path))
    ]
    assert not wrong


@pytest.mark.parametrize("package", ["dialects", "passes", "tools"])
def test_mapped_packages_have_one_name(package: str) -> None:
    """From the root of the repository they could be imported a second time, with all their ops."""
    found = {name for where in ("patc", *FOLDERS) for name, path in modules(where) for name in imports(name, path)}
    assert package not in {name.partition(".")[0] for name in found}
    run = run_python(f"import {package}")
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1] == (f"ImportError: import this package as 'patc.{package}', not as '{package}'")


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)


# What loads when


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import patc", ["torch", "torch_mlir", "llvmlite", "numpy"]),
        ("from patc.tools.patc_opt import main; main(['--help'])", ["torch", "torch_mlir", "llvmlite"]),
        ("from patc.tools.patc_opt import main; main(['--list-passes'])", ["torch", "llvmlite"]),
        ("from patc.tools.patc_opt import main; main(['--cse', '/dev/null'])", ["torch"]),
        ("import patc.loading, patc.runtime.native_model, patc.runtime.vulkan_model", ["torch", "torch_mlir"]),
        ("import patc.pruning", ["torch_mlir"]),
        ("import patc.search", ["torch", "optuna"]),
    ],
)
def test_what_is_not_needed_is_not_loaded(code: str, unwanted: list[str]) -> None:
    body = f"""
import sys
try:
    {code}
except SystemExit:
    pass
print("loaded:", *sorted(set({unwanted!r}) & set(sys.modules)))
"""
    run = run_python(body)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "loaded:"


# Names


@pytest.mark.parametrize("name", PASS_NAMES)
def test_a_pass_has_a_file_a_class_and_a_test_folder(name: str) -> None:
    stem = name.replace("-", "_")
    assert (ROOT / "passes" / f"{stem}.py").is_file()
    kind = find_pass(name)
    assert kind.__name__ == name.title().replace("-", "")
    assert kind.name == name
    assert issubclass(kind, Pass)
    tests = {path.stem for path in (ROOT / "test" / "passes" / name).glob("*.mlir")}
    assert {"basic", "invalid"} <= tests
    assert tests & {"no-op", "noop", "idempotent"}


@pytest.mark.parametrize("name", PASS_NAMES)
def test_a_pass_says_what_it_does(name: str) -> None:
    text = find_pass(name).__doc__ or ""
    assert find_pass(name).summary().endswith(".")
    assert "Requires:" in text and "Ensures:" in text
    assert all(option.help for option in find_pass(name).options())


def test_every_file_with_a_pass_is_registered() -> None:
    found = set()
    for path in (ROOT / "passes").glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            is_pass = isinstance(node, ast.ClassDef) and any(
                isinstance(base, ast.Name) and base.id == "Pass" for base in node.bases
            )
            if is_pass:
                found.add(path.stem.replace("_", "-"))
    assert found == set(PASS_NAMES)


def test_every_test_folder_mirrors_a_folder_or_a_module() -> None:
    """But for what tests share, and the fuzzer."""
    home = ROOT / "test"
    files = [path for suffix in ("py", "mlir") for path in home.rglob(f"*.{suffix}")]
    folders = {path.parent.relative_to(home) for path in files if path.parent.name != "Inputs"}
    found = {str(folder).replace("-", "_") for folder in folders if folder.parts[:1] not in (("support",), ("fuzz",))}
    assert not [name for name in found if not (ROOT / name).is_dir() and not (ROOT / f"{name}.py").is_file()]
