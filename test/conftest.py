"""Fixtures of several files."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

# What a command line compiled before must not hide what it does now; test_code_cache.py tests the cache.
os.environ["PATC_NO_CACHE"] = "1"


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
