"""What tests register, and have to forget."""

from __future__ import annotations

import pytest

from patc import targets
from patc.passes.cost import models
from patc.passes.vectors import families


def forget_registrations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let targets, cost models and families of vectors that are registered from now on be gone when the test ends."""
    for module, name in ((targets, "_registered"), (models, "_models"), (families, "_families")):
        monkeypatch.setattr(module, name, dict(getattr(module, name)))
