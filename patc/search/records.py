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
        scores: of the rungs that it was trained on; none where the seconds are over the limit.
        diverged: whether its training behind these did.
    """

    point: Point
    seconds: float
    scores: tuple[float, ...] = ()
    diverged: bool = False

    @property
    def key(self) -> str:
        """What tells candidates apart."""
        return key_of(self.point)


def key_of(point: Point) -> str:
    return json.dumps(point)


def _score_of(rung: int) -> str:
    return f"score on rung {rung}"


def _worker_of(rung: int) -> str:
    return f"worker on rung {rung}"


class Records:
    """Candidates in the order in which they were chosen, what was found of each later, and notes beside them.

    Args:
        folder: of the file, which is made if there is none.
        identity: what a search has to share to go on with the file.

    Raises:
        PatcError: Optuna is not there, or the file is damaged or of another search; in all methods: it cannot be read
            or written.
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
        trial.set_user_attr("diverged", score is None and seconds <= limit)
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
        later = self._later_scores()
        found = []
        for trial in trials:
            point, seconds = trial.user_attrs["point"], trial.user_attrs["seconds"]
            first = [trial.value] if trial.values else [None] if trial.user_attrs["diverged"] else []
            scores = [*first, *later.get(key_of(point), ())]
            found.append(Candidate(point, seconds, tuple(s for s in scores if s is not None), None in scores))
        return found

    def _later_scores(self) -> dict[str, list[float | None]]:
        """Return the scores of the second rung and of those after it, by the candidate's key."""
        found: dict[str, list[float | None]] = {}
        rung = 1
        while scores := self.facts(_score_of(rung)):
            for key, score in scores.items():
                found.setdefault(key, []).append(score)
            rung += 1
        return found

    # -- What was found of a candidate later -------------------------------------------------------

    def keep_score(self, key: str, rung: int, score: float | None) -> None:
        """Keep what a candidate reached on the second rung (1) or a later one; None of training that diverged."""
        self.keep(_score_of(rung), key, score)

    def keep(self, fact: str, key: str, value: Any) -> None:
        """Keep a value of a candidate, which is JSON; where another machine was faster, its value stays."""
        if key not in self.facts(fact):
            self.note(f"{fact} {key}", value)

    def facts(self, fact: str) -> dict[str, Any]:
        """Return the values that were kept, by the candidates' keys."""
        start = f"{fact} "
        attributes = self._study.user_attrs
        return {name.removeprefix(start): value for name, value in attributes.items() if name.startswith(start)}

    def claim(self, key: str, rung: int) -> None:
        """Keep that this process trains a candidate."""
        self.note(f"{_worker_of(rung)} {key}", _worker())

    def claimed(self, rung: int) -> set[str]:
        """Return the keys of the candidates that other processes train, or trained, or began to."""
        return {key for key, worker in self.facts(_worker_of(rung)).items() if worker != _worker()}

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

        from patc.search.journal import Journal
    except ImportError:
        raise PatcError("expected Optuna for a search: pip install 'patc[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        storage = JournalStorage(Journal(path))
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
