"""What is measured of a machine: kept, applied to its target, and compared with layers. Nothing here depends on time."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from patc.calibration import measure, probes, store
from patc.calibration.check import Checked
from patc.calibration.held_out import LAYERS, SCATTERED, HeldOut
from patc.calibration.measure import Bench, measure_core, wanted
from patc.calibration.store import Calibration, calibrated, calibration_file
from patc.costs import CoreCosts
from patc.diagnostics import PatcError
from patc.dialects.schedules import Schedule
from patc.targets import X86_64_V3, get_target, host, uncalibrated_host
from patc.tools import calibrate as tool

VALUES = {"fma_lanes": 8, "line_cycles": 2.5, "second_level_bytes": 512 * 1024}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder that is used."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("PATC_NO_CACHE")
    return tmp_path


def test_what_is_stored_decides_about_the_target(folder: Path) -> None:
    path = calibration_file("a CPU", X86_64_V3.lanes)
    assert calibrated(X86_64_V3, "a CPU") == X86_64_V3
    store.store(path, Calibration(VALUES, True))
    assert store.load(path) == Calibration(VALUES, True)
    costs = replace(X86_64_V3.costs, line_cycles=2.5, second_level_bytes=512 * 1024)
    assert calibrated(X86_64_V3, "a CPU") == replace(X86_64_V3, fma_lanes=8, costs=costs)
    assert calibrated(X86_64_V3, "another CPU") == X86_64_V3


def test_nothing_is_read_where_nothing_is_to_be_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.store(calibration_file("a CPU", X86_64_V3.lanes), Calibration(VALUES, False))
    monkeypatch.setenv("PATC_NO_CACHE", "1")
    assert calibrated(X86_64_V3, "a CPU") == X86_64_V3


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[" * 100_000,
        "{}",
        json.dumps({"format": 1, "values": {"line_cycles": "1"}, "shared": False}),
        json.dumps({"format": 1, "values": {"line_cycles": True}, "shared": False}),
        json.dumps({"format": 1, "values": {"line_cycles": float("nan")}, "shared": False}),
        json.dumps({"format": 1, "values": {"nonsense": 1}, "shared": False}),
        json.dumps({"format": 9, "values": {}, "shared": False}),
        json.dumps({"format": 1, "values": {}, "shared": 1}),
        json.dumps({"format": 1, "values": {"fma_lanes": 0}, "shared": False}),
        json.dumps({"format": 1, "values": {"fma_lanes": 1e300}, "shared": False}),
        json.dumps({"format": 1, "values": {"line_bytes": 48}, "shared": False}),
    ],
)
def test_damaged_files_are_a_line_and_ignored(folder: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = calibration_file("a CPU", X86_64_V3.lanes)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert calibrated(X86_64_V3, "a CPU") == X86_64_V3
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and printed.startswith("patc: warning: ")


def test_this_machine_is_what_its_table_says_without_a_file() -> None:
    assert host() == uncalibrated_host()


class FakeClock:
    """Each run takes a second more than the one before it."""

    def __init__(self) -> None:
        self.readings = 0

    def __call__(self) -> float:
        self.readings += 1
        return float(self.readings // 2 * 1000 + (self.readings % 2 == 0) * self.readings)


def test_the_fastest_run_counts() -> None:
    bench = Bench([probes.clock()], 1 << 12, now=FakeClock())
    # The first run of two says that there is no need of more turns.
    assert bench.seconds("probe_clock", least_turns=1, runs=3) == pytest.approx(1004 / probes.OPERATIONS, rel=0.01)


def test_probes_say_what_a_core_can_do() -> None:
    target = uncalibrated_host()
    core = measure_core(target, 1 << 20)
    values = core.values
    found = Calibration(values, core.is_shared).apply(target)
    assert values["fma_lanes"] % target.lanes == 0 and values["load_bytes"] % (4 * target.lanes) == 0
    assert isinstance(found.costs, CoreCosts) and found.costs.second_level_bytes == 1 << 20
    assert core.clock_hz > 1e6 and measure.SHARED > 0


def test_each_probe_has_a_name_of_its_own() -> None:
    names = [probe.name for probe in wanted(uncalibrated_host())]
    assert len(set(names)) == len(names) and all(name.startswith("probe_") for name in names)


def checked(modelled: float, measured: float, least: float) -> Checked:
    schedule = Schedule("dense-direct")
    return Checked(HeldOut(8, 8, 8), schedule, schedule, modelled, measured, least)


def test_errors_count_both_ways() -> None:
    assert checked(1.0, 2.0, 2.0).error == checked(2.0, 1.0, 1.0).error == 1.0
    assert checked(1.0, 1.05, 1.0).is_close and not checked(1.0, 1.06, 1.0).is_close
    said = tool.summarize([checked(1.0, 1.1, 1.1), checked(1.0, 2.0, 1.0), checked(1.0, 1.0, 1.0)])
    assert "10% in the median and 100% at worst" in said and "on 2 of 3 layers" in said


def test_held_out_layers_are_of_all_kinds() -> None:
    assert len({str(layer) for layer in LAYERS}) == len(LAYERS) >= 30
    assert {1, 3, 5, 7} <= {layer.kernel for layer in LAYERS} and {1, 2} == {layer.stride for layer in LAYERS}
    assert any(layer.groups > 1 for layer in LAYERS) and any(layer.pruned == SCATTERED for layer in LAYERS)
    assert str(HeldOut(96, 96, 40, pruned=2.5)) == "96 -> 96 at 40x40, 3x3, patterns, 2.5x"


def test_a_target_of_another_architecture_cannot_be_checked() -> None:
    from patc.calibration.check import check

    with pytest.raises(PatcError, match="expected a target whose code this machine runs, got 'spirv-vulkan'"):
        check(get_target("spirv-vulkan"), 1e9, layers=LAYERS[:1])
