"""Fixtures of several files."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

# What a command line compiled before must not hide what it does now; test_code_cache.py tests the cache.
os.environ["PATC_NO_CACHE"] = "1"
# Several processes of tests have a CPU each; two threads of PyTorch in each would wait for each other.
if int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1:
    os.environ["OMP_NUM_THREADS"] = "1"


def pytest_collection_finish() -> None:
    if "torch" in sys.modules:
        from quick_export import hasten

        hasten()


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """PyTorch takes one thread.

    Sums in another order have other bits; and two threads wait for each other for long when another process has one of
    two cores.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def compiled_anew() -> Iterator[None]:
    """What `torch.compile` remembers of a test's models: it compiles one `forward`, such as that of nn.Sequential, eight
    times in a process, and then runs it as it is."""
    yield
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is not None and hasattr(dynamo, "reset"):
        dynamo.reset()


@pytest.fixture(autouse=True)
def numbers_of_its_own(request: pytest.FixtureRequest) -> None:
    """What a test draws from its module's `RNG` depends on no other test: not on how many run before it, nor on what
    Hypothesis draws there, which differs from run to run."""
    rng = getattr(request.module, "RNG", None)
    if hasattr(rng, "bit_generator"):
        rng.bit_generator.state = type(rng.bit_generator)(0).state
