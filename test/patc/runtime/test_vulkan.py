"""Vulkan devices: which there are, running on one, what a call costs, and every error in one line."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gpu import WHY_NOT, compile_for_gpu, needs_device, needs_validator, require_valid
from native import Net
from networks import LIBRARY, pattern_weight
from torch import nn

import patc
from patc.diagnostics import PatcError
from patc.passes import pattern_map_to_gpu
from patc.runtime import artefact, vulkan, vulkan_device, vulkan_model
from patc.runtime import vulkan_structures as vk
from patc.runtime.gpu_code import GpuCode
from patc.runtime.spirv_module import FloatControls, ask_for
from patc.runtime.vulkan_device import FROM, STORAGE, TO, Device
from patc.runtime.vulkan_model import VulkanModel
from patc.spirv_files import write_spirv

SHAPE = (1, 3, 9, 10)


class Small(nn.Module):
    """A net of a few kinds of layers, pruned."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.conv.weight.data = torch.from_numpy(pattern_weight(rng, 8, 3, 0.9, LIBRARY))
        self.pool = nn.MaxPool2d(2)
        self.classes = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        features = self.pool(torch.relu(self.conv(x)))
        return {"scores": self.classes(features.mean((2, 3))), "features": features}


@pytest.fixture(scope="module")
def module() -> Small:
    torch.manual_seed(0)
    return Small().eval()


@pytest.fixture
def model(module: Small) -> VulkanModel:
    compiled = patc.compile(module, (torch.zeros(SHAPE),), target="spirv-vulkan")
    assert isinstance(compiled, VulkanModel)
    return compiled


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))


# Compiling needs no device


def test_compiles_and_saves_without_opening_a_device(
    module: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vulkan, "instance", lambda: pytest.fail("opened a device"))
    compiled = patc.compile(module, (torch.zeros(SHAPE),), target="spirv-vulkan")
    compiled.save(tmp_path / "net.patc")
    loaded = patc.load(tmp_path / "net.patc")
    assert loaded.layers == compiled.layers
    assert loaded.program.code == compiled.program.code
    assert "spirv-vulkan" in repr(loaded)


def test_equal_models_give_equal_files(module: Small, tmp_path: Path) -> None:
    for name in ("one", "other"):
        patc.compile(module, (torch.zeros(SHAPE),), target="spirv-vulkan").save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_code_in_one_piece(model: VulkanModel) -> None:
    assert GpuCode.from_bytes(model.program.code) == model.code
    assert model.code.capabilities == {"Shader"}


def test_damaged_code_is_one_line(model: VulkanModel, tmp_path: Path) -> None:
    parts = artefact.split(model.to_bytes())
    (tmp_path / "net.patc").write_bytes(artefact.join(replace(parts, code=b"none")))
    with pytest.raises(
        PatcError, match=r"net\.patc: expected a compiled model, found damaged data \(no code for a GPU\)"
    ):
        patc.load(tmp_path / "net.patc")


def test_a_device_for_a_model_of_a_cpu(module: Small, tmp_path: Path) -> None:
    patc.compile(module, (torch.zeros(SHAPE),)).save(tmp_path / "net.patc")
    with pytest.raises(PatcError, match="expected no device together with a model for target 'host', got 0"):
        patc.load(tmp_path / "net.patc", device=0)


# Devices


def test_no_loader_says_what_to_install() -> None:
    with pytest.raises(PatcError, match=r"expected a Vulkan loader, found none .*apt-get install libvulkan1") as caught:
        vulkan._load(["libnothing.so.1"])
    assert "\n" not in str(caught.value)


@needs_device
def test_no_driver_says_what_to_install() -> None:
    environment = {**os.environ, "VK_DRIVER_FILES": "/nowhere.json", "VK_ICD_FILENAMES": "/nowhere.json"}
    command = [sys.executable, "-m", "patc.tools.patc", "devices"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 1
    (line,) = run.stderr.splitlines()
    assert line.startswith("patc: error: expected a Vulkan device, found none") and "mesa-vulkan-drivers" in line


@needs_device
def test_chooses_by_index_name_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = vulkan.find_device()
    assert chosen in vulkan.devices() and not chosen.shortcoming
    assert vulkan.find_device(chosen.index) == vulkan.find_device(str(chosen.index)) == chosen
    assert vulkan.find_device(chosen.name) == vulkan.find_device(chosen.name[:6].upper()) == chosen
    monkeypatch.setenv(vulkan.SELECT, "no such device")
    with pytest.raises(PatcError, match=r"expected a Vulkan device of .*, got 'no such device'"):
        vulkan.find_device()
    assert vulkan.find_device(chosen.index) == chosen


def make_instance(*devices: vulkan.PhysicalDevice) -> vulkan.Instance:
    instance = vulkan.Instance.__new__(vulkan.Instance)
    instance.devices = list(devices)
    return instance


@needs_device
def test_prefers_gpus_and_refuses_what_cannot_compute() -> None:
    cpu = replace(vulkan.find_device(), kind="CPU", index=0)
    small = replace(cpu, kind="integrated GPU", name="small", index=1)
    large = replace(cpu, kind="discrete GPU", name="large", index=2)
    old = replace(large, name="old", version=(1, 0), index=3)
    assert make_instance(cpu, small, large, old).choose().name == "large"
    assert make_instance(cpu, small, old).choose().name == "small"
    with pytest.raises(
        PatcError, match=r"expected a Vulkan device that computes, got 'old': Vulkan 1.0, and 1.1 is needed"
    ):
        make_instance(cpu, old).choose("old")
    with pytest.raises(PatcError, match=r"found 'old' \(Vulkan 1.0, .*\); install a Vulkan loader and a driver"):
        make_instance(old).choose()
    with pytest.raises(PatcError, match="got 'none': no queue for compute"):
        make_instance(replace(cpu, name="none", queue_family=None)).choose(0)


@needs_device
def test_limits_are_those_that_vulkan_guarantees() -> None:
    limits = vulkan.find_device().limits
    assert limits.storage_range >= 1 << 27 and limits.push_bytes >= 128 and limits.storage_buffers >= 4
    assert limits.shared_bytes >= 16384 and min(limits.group_counts) >= 65535 and limits.group_threads >= 128
    assert 0 < limits.nanoseconds < 1e6


# Calls


@needs_device
def test_computes_what_torch_does(module: Small, model: VulkanModel, x: torch.Tensor, tmp_path: Path) -> None:
    wanted = module.double()(x.double())
    module.float()
    model.save(tmp_path / "net.patc")
    for compiled in (model, patc.load(tmp_path / "net.patc", device=vulkan.find_device().index)):
        found = compiled(x)
        arrays = compiled(x.numpy())
        for name, value in wanted.items():
            assert (found[name] - value).abs().max() <= 1e-5 * value.abs().max()
            assert isinstance(arrays[name], np.ndarray) and np.array_equal(arrays[name], found[name].numpy())
    assert model.device == vulkan.find_device()


@needs_device
def test_one_call_is_one_submit(model: VulkanModel, x: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    model(x)
    api = vulkan.instance().api
    counts: dict[str, int] = {}
    for name in ("vkQueueSubmit", "vkAllocateMemory", "vkCreateBuffer", "vkBeginCommandBuffer", "vkCmdDispatch"):
        function = getattr(api, name)

        def counted(*arguments: Any, name: str = name, function: Any = function) -> None:
            counts[name] = counts.get(name, 0) + 1
            function(*arguments)

        monkeypatch.setattr(api, name, counted)
    model(x)
    assert counts == {"vkQueueSubmit": 1}


@needs_device
def test_profiles_each_layer(model: VulkanModel, x: torch.Tensor) -> None:
    times = model.profile(x, repetitions=3)
    assert [item.layer for item in times] == list(model.layers)
    assert all(item.seconds >= 0 for item in times) and sum(item.seconds for item in times) > 0
    assert len(model.profile(repetitions=1)) == len(times)
    with pytest.raises(PatcError, match="expected 1 repetition or more, got 0"):
        model.profile(repetitions=0)


@needs_device
def test_measures_what_a_dispatch_costs(model: VulkanModel, x: torch.Tensor) -> None:
    wanted = model(x)["scores"]
    overhead = model.overhead(repetitions=3)
    assert 0 <= overhead.submit < 1 and 0 <= overhead.dispatch < 0.1
    assert torch.equal(model(x)["scores"], wanted)
    with pytest.raises(PatcError, match="expected 1 repetition or more, got 0"):
        model.overhead(repetitions=0)


@needs_device
def test_says_where_there_are_no_time_stamps(
    model: VulkanModel, x: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vulkan_device, "_OPEN", {})
    monkeypatch.setattr(vulkan_model, "find_device", lambda device: replace(vulkan.find_device(device), stamp_bits=0))
    with pytest.raises(PatcError, match=r"expected a Vulkan device with time stamps, got '.*' without"):
        model.profile(x)


@needs_device
@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((), r"expected 1 input \('x' of shape \[1, 3, 9, 10\] float32\), got 0"),
        ((np.zeros((1, 3, 9, 9), np.float32),), r"expected input 'x' .*, got shape \[1, 3, 9, 9\] float32"),
        ((np.zeros(SHAPE),), r"expected input 'x' .*, got shape \[1, 3, 9, 10\] float64"),
    ],
)
def test_refuses_inputs_in_one_line(model: VulkanModel, inputs: tuple[Any, ...], message: str) -> None:
    with pytest.raises(PatcError, match=message):
        model(*inputs)


@needs_device
def test_threads_take_turns(model: VulkanModel) -> None:
    inputs = [torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)) for seed in range(8)]
    wanted = [model(x)["scores"] for x in inputs]
    found: list[Any] = [None] * len(inputs)

    def call(number: int) -> None:
        for _ in range(5):
            found[number] = model(inputs[number])["scores"]

    threads = [threading.Thread(target=call, args=(number,)) for number in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


@needs_device
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_is_refused(model: VulkanModel, x: torch.Tensor, tmp_path: Path) -> None:
    model(x)
    model.save(tmp_path / "small.patc")
    uses = [lambda: model(x.numpy()), lambda: patc.load(tmp_path / "small.patc")(x.numpy())]
    with model._lock:  # as another thread does while it calls the model
        texts = [in_a_fork(use) for use in uses]
    expected = "expected a call in the process that opened Vulkan, got one in a fork of it"
    assert all(text.startswith(expected) for text in texts), texts
    model(x)


def in_a_fork(use: Callable[[], Any]) -> str:
    """Return the error that `use` ends with in a forked process."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        try:
            use()
            text = "computed"
        except PatcError as error:
            text = str(error)
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        text = stream.read().decode()
    os.waitpid(child, 0)
    return text


@needs_device
@needs_validator
@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_kernels_ask_for_nan_to_be_kept_and_for_rounding_to_nearest(module: Small, x: torch.Tensor, dtype: str) -> None:
    code = patc.compile(module, (x,), target="spirv-vulkan", dtype=dtype).code
    for controls in (
        FloatControls(frozenset({16, 32})),
        FloatControls(frozenset({32}), True),
        FloatControls(rounds=True),
    ):
        asking = {name: ask_for(data, controls) for name, data in code.modules.items()}
        require_valid(replace(code, modules=asking))
        assert all(len(asking[name]) > len(data) for name, data in code.modules.items())
    assert {name: ask_for(data, FloatControls()) for name, data in code.modules.items()} == code.modules


# Errors of the device: one line, and the process goes on


@needs_device
def test_a_lost_device_is_opened_again(model: VulkanModel, x: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = model(x)["scores"]
    before = model._session

    def lose(*arguments: Any) -> None:
        raise vulkan.VulkanError("Vulkan failed in vkQueueSubmit: device lost", vulkan.DEVICE_LOST)

    with monkeypatch.context() as patch:
        patch.setattr(vulkan.instance().api, "vkQueueSubmit", lose)
        with pytest.raises(PatcError) as caught:
            model(x)
    name = vulkan.find_device().name
    assert str(caught.value) == f"Vulkan device '{name}' was lost during a call; the next call opens it again"
    assert torch.equal(model(x)["scores"], wanted)
    assert model._session is not before


@needs_device
def test_out_of_memory_is_one_line(model: VulkanModel, x: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    physical = vulkan.find_device()
    endless = replace(physical, limits=replace(physical.limits, storage_range=1 << 62))
    model.program = replace(model.program, arena_bytes=1 << 46)
    monkeypatch.setattr(vulkan_model, "find_device", lambda device: endless)
    with pytest.raises(PatcError) as caught:
        model(x)
    size = "70368744 MB"
    assert str(caught.value) == f"Vulkan device '{physical.name}' is out of memory while it takes a net of {size}"


@needs_device
def test_missing_features_are_named(module: Small, x: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    halves = patc.compile(module, (x,), target="spirv-vulkan", dtype="f16")
    name, words = refusal(halves, x, {"Float16"}, monkeypatch)
    assert words == (
        f"expected a Vulkan device with storageBuffer16BitAccess, as compiled for, got '{name}' without: "
        "compile with dtype f32, or choose another device"
    )


@needs_device
def test_devices_without_dot_products_are_named(
    module: Small, x: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    integers = patc.quantize(module, x, target="spirv-vulkan:dotprod")
    name, words = refusal(integers, x, set(), monkeypatch)
    assert words == (
        f"expected a Vulkan device with shaderIntegerDotProduct, as compiled for, got '{name}' without: "
        "compile for target spirv-vulkan, or choose another device"
    )


def refusal(model: Any, x: torch.Tensor, has: set[str], monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Return the name of the device as if it had nothing but some capabilities, and how it refuses a model."""
    physical = replace(vulkan.find_device(), capabilities=frozenset(has))
    monkeypatch.setattr(vulkan_device, "_OPEN", {})
    monkeypatch.setattr(vulkan_model, "find_device", lambda device: physical)
    with pytest.raises(PatcError) as caught:
        model(x)
    return physical.name, str(caught.value)


LIMITS = [
    ({"storage_range": 1024}, r"expected a Vulkan device with \d+ bytes in a storage buffer, for activations, got '.*' with 1024"),
    ({"storage_buffers": 1}, "expected a Vulkan device with 2 storage buffers for a stage, got '.*' with 1"),
    ({"push_bytes": 8}, r"expected a Vulkan device with \d+ bytes of push constants, got '.*' with 8"),
    ({"shared_bytes": 128}, r"expected a Vulkan device with \d+ bytes of workgroup memory, got '.*' with 128"),
    ({"group_threads": 16}, r"expected a Vulkan device with \d+ threads in a workgroup, got '.*' with 16"),
    ({"group_counts": (65535, 4, 65535)}, r"expected a Vulkan device with \d+ workgroups along y, got '.*' with 4"),
]  # fmt: skip


@needs_device
@pytest.mark.parametrize(("limits", "message"), LIMITS)
def test_limits_are_checked(
    model: VulkanModel, x: torch.Tensor, monkeypatch: pytest.MonkeyPatch, limits: dict[str, Any], message: str
) -> None:
    physical = vulkan.find_device()
    small = replace(physical, limits=replace(physical.limits, **limits))
    monkeypatch.setattr(vulkan_model, "find_device", lambda device: small)
    with pytest.raises(PatcError, match=message):
        model(x)


@needs_device
def test_weights_larger_than_a_device_binds(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    head = [nn.Flatten(), nn.Linear(8 * 16, 300), nn.ReLU(), nn.Linear(300, 203), nn.Linear(203, 7)]
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.PReLU(8), nn.MaxPool2d(2), *head).eval()
    binds = 40000  # bytes
    weights = pattern_map_to_gpu.Weights
    monkeypatch.setattr(pattern_map_to_gpu, "Weights", lambda largest, _, pool: weights(largest, binds, pool))
    compiled = patc.compile(net, (torch.zeros(2, 3, 8, 8),), target="spirv-vulkan")
    windows, dispatches = compiled.code.windows, compiled.code.dispatches
    assert compiled.program.weights.nbytes > 5 * binds and max(size for _, size in windows) <= binds
    assert len({dispatch.window for dispatch in dispatches}) == len(windows) > 5
    assert len(dispatches) > len(compiled.layers), "layers in parts"
    physical = vulkan.find_device()
    small = replace(physical, limits=replace(physical.limits, storage_range=binds))
    monkeypatch.setattr(vulkan_model, "find_device", lambda device: small)
    x = torch.randn(2, 3, 8, 8)
    wanted = net.double()(x.double())
    assert (compiled(x) - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@needs_device
def test_buffers_and_pipelines_are_given_back(
    model: VulkanModel, x: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = vulkan.instance().api
    alive: set[str] = set()
    made = api.create

    def create(function: str, *arguments: Any) -> int:
        handle = made(function, *arguments)
        alive.add(f"{function.removeprefix('vkCreate').removeprefix('vkAllocate')} {handle}")
        return handle

    monkeypatch.setattr(api, "create", create)
    for destroy in ("vkDestroyBuffer", "vkFreeMemory", "vkDestroyPipelineLayout", "vkDestroyDescriptorPool", "vkDestroyFence", "vkDestroyDescriptorSetLayout", "vkDestroyShaderModule", "vkDestroyQueryPool"):  # fmt: skip
        function = getattr(api, destroy)

        def counted(device: int, handle: int, allocator: Any, destroy: str = destroy, function: Any = function) -> None:
            alive.discard(f"{destroy.removeprefix('vkDestroy').removeprefix('vkFree')} {handle}")
            function(device, handle, allocator)

        monkeypatch.setattr(api, destroy, counted)
    model.profile(x, repetitions=1)
    assert alive
    model._session = None
    assert not alive


# Files that others drive


@needs_device
def test_the_manifest_suffices(model: VulkanModel, x: torch.Tensor, tmp_path: Path) -> None:
    """Run a net from its files alone, as another program would."""
    write_spirv(model.program, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    device = Device(vulkan.find_device(), manifest["features"])
    arena, weights = (
        device.allocate(buffer["bytes"], STORAGE | FROM | TO, on_host=True) for buffer in manifest["buffers"]
    )
    blob = (tmp_path / "out" / manifest["buffers"][1]["file"]).read_bytes()
    ctypes.memmove(weights.address, blob, len(blob))
    ctypes.memmove(
        arena.address + manifest["inputs"][0]["offset"], x.numpy().ctypes.data, manifest["inputs"][0]["bytes"]
    )
    descriptors = device.descriptor_layout(2)
    layout = device.pipeline_layout(descriptors, manifest["limits"]["maxPushConstantsSize"])
    (window,) = manifest["windows"]
    parts = [(arena, 0, arena.size), (weights, window["offset"], window["bytes"])]
    sets = vk.Handle(device.bind(device.descriptor_pool(2, 1), descriptors, parts))
    pipelines = {
        kernel["name"]: device.pipeline((tmp_path / "out" / kernel["file"]).read_bytes(), kernel["entry_point"], layout)
        for kernel in manifest["kernels"]
    }

    def write(commands: int) -> None:
        api = device.api
        api.vkCmdBindDescriptorSets(commands, 1, layout, 0, 1, ctypes.byref(sets), 0, None)
        for dispatch in manifest["dispatches"]:
            numbers = dispatch["push_constants"]
            data = (ctypes.c_int32 * len(numbers))(*numbers)
            api.vkCmdBindPipeline(commands, 1, pipelines[dispatch["kernel"]])
            api.vkCmdPushConstants(commands, layout, 0x20, 0, 4 * len(numbers), data)
            api.vkCmdDispatch(commands, *dispatch["workgroups"])
            barrier = vk.MemoryBarrier(srcAccessMask=0x40, dstAccessMask=0x2060)
            api.vkCmdPipelineBarrier(commands, 0x800, 0x4800, 0, 1, ctypes.byref(barrier), 0, None, 0, None)

    device.submit(device.record(write), device.create("vkCreateFence", vk.FenceCreateInfo()))
    wanted = model(x)
    names = {tuple(value.shape): value.numpy() for value in wanted.values()}
    for output in manifest["outputs"]:
        data = ctypes.string_at(arena.address + output["offset"], output["bytes"])
        found = np.frombuffer(data, np.float32).reshape(output["shape"])
        np.testing.assert_array_equal(found, names[tuple(output["shape"])])
    assert [dispatch["layer"] for dispatch in manifest["dispatches"]] == [layer.name for layer in model.layers]


def test_a_folder_that_cannot_be_made(model: VulkanModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PatcError, match="file/out: cannot make the folder"):
        write_spirv(model.program, tmp_path / "file" / "out")


# Others


@needs_device
def test_nets_share_a_device(model: VulkanModel, x: torch.Tensor) -> None:
    net = Net((1, 2, 4, 4))
    other = compile_for_gpu(net.build(net.activate(net.input)), net.copy_parameters())
    model(x)
    other(np.zeros((1, 2, 4, 4), np.float32))
    assert model._session is not None and other._session is not None
    assert model._session.device is other._session.device


def test_there_is_a_reason_where_there_is_no_device() -> None:
    assert not WHY_NOT or "install" in WHY_NOT
