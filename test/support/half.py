"""Tests whose code computes in f16 on this machine, which takes a CPU that does."""

from __future__ import annotations

import pytest

from patc.numerics import NUMERICS
from patc.targets import host

needs_half = pytest.mark.skipif(not host().computes_in(NUMERICS["f16"]), reason="this CPU has no f16")
HALF = pytest.param("f16", marks=needs_half)
