"""The candidates of a search, kept in a file by Optuna, which several processes and machines may share."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from patc.diagnostics import PatcError
from patc.search.space import Choice, Point, Space, Value

if TYPE_CHECKING:
    from optuna import Study, Trial

JOURNAL = "search.journal"
_NAME = "search"
_LIMIT = "seconds over the limit"
_SEEDS = 1 << 32  # that NumPy takes


@dataclass(frozen=True)
class Candidate:
    """A candidate that was looked at.

    Attributes:
        point: what was chosen.
        seconds: that the cost model expects.
        score: None where that is over the limit, so that it was not trained.
    """

    point: Point
    seconds: float
    score: float | None

    @property
    def key(self) -> str:
        """What tells candidates apart."""
        return key_of(self.point)


def key_of(point: Point) -> str:
    return json.dumps(point)


class Records:
    """Candidates in the order in which they were chosen, and notes beside them.

    Args:
        folder: of the file, which is made if there is none.
        identity: what a search has to share to go on with the file.

    Raises:
        PatcError: Optuna is not there, or the file is damaged or of another search.
    """

    def __init__(self, folder: Path, space: Space, identity: Mapping[str, object], seed: int) -> None:
        self.space, self.seed = space, seed
        self._study = _open(folder / JOURNAL)
        self._check(identity, folder / JOURNAL)
        self._end_lost()

    # -- Candidates --------------------------------------------------------------------------------

    def ask(self) -> tuple[Trial, Point]:
        """Return the next candidate: random ones first, then such as the better ones were.

        What is drawn depends on the seed and the candidates so far, so that a search that was stopped goes on as it
        would have gone.
        """
        from optuna.samplers import TPESampler
        from optuna.trial import TrialState

        states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
        known = len(self._study.get_trials(deepcopy=False, states=states))
        self._study.sampler = TPESampler(seed=(100_000 * self.seed + known) % _SEEDS)
        trial = self._study.ask()
        trial.set_user_attr("worker", _worker())
        point = self.space.choose(lambda choice: _suggest(trial, choice))
        trial.set_user_attr("point", point)
        return trial, point

    def tell(self, trial: Trial, seconds: float, limit: float, score: float | None) -> None:
        """Keep what was found of a candidate; `score` is None where it was not trained."""
        from optuna.trial import TrialState

        trial.set_user_attr("seconds", seconds)
        trial.set_constraint(_LIMIT, seconds - limit)
        if score is None:
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            self._study.tell(trial, score)

    def drop(self, trial: Trial) -> None:
        """Keep that nothing was found of a candidate: it was interrupted."""
        from optuna.trial import TrialState

        self._study.tell(trial, state=TrialState.FAIL)

    def candidates(self) -> list[Candidate]:
        """Return those of which something was told."""
        from optuna.trial import TrialState

        trials = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        return [
            Candidate(trial.user_attrs["point"], trial.user_attrs["seconds"], trial.value if trial.values else None)
            for trial in trials
        ]

    # -- Notes -------------------------------------------------------------------------------------

    def note(self, name: str, value: Any) -> None:
        """Keep a value that is JSON."""
        self._study.set_user_attr(name, value)

    def noted(self, name: str, default: Any = None) -> Any:
        """Return a value that was kept."""
        return self._study.user_attrs.get(name, default)

    def _check(self, identity: Mapping[str, object], path: Path) -> None:
        known = self.noted("identity")
        if known is None:
            self.note("identity", dict(identity))
            return
        for name, value in json.loads(json.dumps(dict(identity))).items():
            if known.get(name) != value:
                expected = f"expected the search of {name.replace('_', ' ')} {value}"
                raise PatcError(
                    f"{expected}, found one of {known.get(name)}: another folder for another search", str(path)
                )

    def _end_lost(self) -> None:
        """End the candidates of processes of this machine that ended without a word."""
        from optuna.trial import TrialState

        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            host, _, process = str(trial.user_attrs.get("worker", "")).rpartition(":")
            if host == socket.gethostname() and not os.path.exists(f"/proc/{process}"):
                self._study.tell(trial.number, state=TrialState.FAIL)


def _open(path: Path) -> Study:
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError:
        raise PatcError("expected Optuna for a search: pip install 'patc[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        storage = JournalStorage(JournalFileBackend(str(path)))
        return optuna.create_study(storage=storage, study_name=_NAME, direction="maximize", load_if_exists=True)
    except (ValueError, KeyError, TypeError):  # of lines that are no records
        raise PatcError("expected the records of a search, found a damaged file", str(path)) from None
    except OSError as error:
        raise PatcError(f"cannot read the records of a search: {error.strerror or error}", str(path)) from None


def _suggest(trial: Trial, choice: Choice) -> Value:
    if choice.ordered:
        return choice.values[trial.suggest_int(choice.name, 0, len(choice.values) - 1)]
    return cast("Value", trial.suggest_categorical(choice.name, choice.values))


def _worker() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"
