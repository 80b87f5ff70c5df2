"""What `patc prune` says while it trains, where the output is no terminal."""

from __future__ import annotations

import pytest

from patc.pruning.train_options import Phase
from patc.tools import prune


@pytest.mark.parametrize(
    ("silence", "lines"), [(0.0, ["epoch 3/7 dense    step 1 of 3", "epoch 3/7 dense    step 2 of 3"]), (1e9, [])]
)
def test_long_epochs_tell_their_steps(
    silence: float, lines: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune, "SILENCE", silence)
    tell = prune._Steps(7)
    for step in range(1, 4):
        tell(Phase("dense", 0, 4), 2, step, 3)
    assert capsys.readouterr().out.splitlines() == lines
