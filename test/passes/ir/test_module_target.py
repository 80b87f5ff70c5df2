"""The target as an attribute of the module: text and back, who reads it, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from torch_mlir import ir

from patc.context import make_context
from patc.costs import CoreCosts, GpuCosts
from patc.diagnostics import PatcError
from patc.passes.ir.targets import set_target, target_of
from patc.pipeline import Pipeline
from patc.targets import SPIRV_VULKAN, TARGETS, Target, get_target

NARROW = replace(TARGETS["x86-64-v3"], name="narrow", lanes=4, costs=CoreCosts(line_cycles=0.1 + 0.2, line_bytes=128))
NET = """
  func.func @main(%x: tensor<1x4x8x8xf32>, %w: tensor<4x4x3x3xf32>) -> tensor<1x4x8x8xf32> {
    %1 = "pattern.conv2d"(%x, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
      operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>}
      : (tensor<1x4x8x8xf32>, tensor<4x4x3x3xf32>) -> tensor<1x4x8x8xf32>
    return %1 : tensor<1x4x8x8xf32>
  }
"""


@pytest.fixture(scope="module")
def context() -> Iterator[ir.Context]:
    yield make_context()


def parse(context: ir.Context, attributes: str = "", body: str = "") -> ir.Module:
    return ir.Module.parse(f"module attributes {{{attributes}}} {{{body}}}", context)


@pytest.mark.parametrize(
    "target",
    [*TARGETS.values(), SPIRV_VULKAN, replace(SPIRV_VULKAN, costs=GpuCosts(workgroups=(32,))), NARROW, "host"],
    ids=lambda target: getattr(target, "name", target),
)
def test_targets_go_through_text(context: ir.Context, target: Target | str) -> None:
    module = parse(context)
    set_target(module, get_target(target))
    text = str(module)
    again = ir.Module.parse(text, context)
    assert target_of(again) == get_target(target)
    assert str(again) == text


def test_text_names_what_differs_from_the_defaults(context: ir.Context) -> None:
    module = parse(context)
    set_target(module, NARROW)
    assert "core_costs = {line_bytes = 128 : i64, line_cycles = 0.30000000000000004 : f64}" in str(module)
    assert "lanes = 4 : i64" in str(module) and "backend" not in str(module)


def test_modules_without_a_target_are_for_this_machine(context: ir.Context) -> None:
    assert target_of(parse(context)) == get_target("host")


def test_passes_read_the_module_and_options_override_it(context: ir.Context) -> None:
    found = []
    for options in ({}, {"target": "x86-64-v3"}):
        module = parse(context, body=NET)
        set_target(module, NARROW)
        pipeline = Pipeline().add("pattern-layout", **options).add("pattern-schedule", **options)
        pipeline.run(module)
        found.append(scheduled_lanes(module))
    assert found == [{4}, {8}]


def scheduled_lanes(module: ir.Module) -> set[int]:
    main = module.body.operations[0]
    ops = [op for op in main.regions[0].blocks[0].operations if "schedule" in op.attributes]
    return {op.attributes["schedule"].fields.maybe_downcast()["lanes"].value for op in ops}


def test_pipelines_set_the_target_of_modules(context: ir.Context) -> None:
    module = parse(context, body=NET)
    pipeline = Pipeline.named("host", target=NARROW).until("schedule")
    pipeline.run(module)
    assert target_of(module) == NARROW and scheduled_lanes(module) == {4}
    assert pipeline != Pipeline.named("host").until("schedule")
    assert Pipeline.named("spirv", target=SPIRV_VULKAN).target == SPIRV_VULKAN


FIELDS = (
    'name = "toy", triple = "x86_64-unknown-linux-gnu", cpu = "", lanes = 4 : i64, registers = 16 : i64, '
    "fma_lanes = 8 : i64, load_bytes = 16 : i64, pipes = 2 : i64, decoded = 4 : i64, cheap_shift = false"
)


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ('"x86-64-v3"', r"pattern.target to be #pattern.target<\{...\}>, got \"x86-64-v3\""),
        ("#pattern.target<3 : i32>", r"pattern.target to be #pattern.target<\{...\}>, got #pattern.target<3 : i32>"),
        ("#pattern.target<{}>", "the target is expected to have name, triple, cpu, lanes.*, got none"),
        (f"#pattern.target<{{{FIELDS}, lane = 4 : i64}}>", "the target has no field 'lane'; did you mean 'lanes'"),
        (f"#pattern.target<{{{FIELDS}, core_costs = 3 : i64}}>", "core_costs is expected to be a dictionary, got 3"),
        (f"#pattern.target<{{{FIELDS}, core_costs = {{}}, gpu_costs = {{}}}}>", "either core_costs or gpu_costs is"),
        (f"#pattern.target<{{{FIELDS}, core_costs = {{line_bytes = 0 : i64}}}}>", "CoreCosts expected line_bytes to"),
        (f"#pattern.target<{{{FIELDS.replace('lanes = 4', 'lanes = 3')}}}>", "target 'toy' expected lanes to be a pow"),
        (f"#pattern.target<{{{FIELDS}, features = [3 : i64]}}>", "features of the target is expected to be str, got 3"),
        (f'#pattern.target<{{{FIELDS}, features = ["a b"]}}>', "target 'toy' expected CPU and features as LLVM"),
        (f"#pattern.target<{{{FIELDS}, simd = 3 : i64}}>", "simd of the target is expected to be str, got 3"),
    ],
)
def test_attributes_that_are_no_targets_are_refused(context: ir.Context, attribute: str, message: str) -> None:
    module = parse(context, f"pattern.target = {attribute}")
    with pytest.raises(PatcError, match=f"'builtin.module' op expected .*{message}") as caught:
        Pipeline().run(module)
    assert "\n" not in str(caught.value)
