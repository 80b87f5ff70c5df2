"""Tests that take long, which PATC_LARGE_TESTS=1 adds."""

from __future__ import annotations

import os

import pytest

LARGE = os.environ.get("PATC_LARGE_TESTS") == "1"
needs_large = pytest.mark.skipif(not LARGE, reason="PATC_LARGE_TESTS")
