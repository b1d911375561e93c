"""Trials in a storage that any number of processes share, each trial done once.

Optuna keeps the trials and proposes settings. What a crowd of workers needs on top is here:

- Trials have an *index*, 0 ... N - 1. Whoever comes puts missing indices in the queue; taking a
  trial from the queue is atomic in every storage of Optuna. Of two trials with one index the first
  counts, and a worker that takes the second gives it back.
- A worker writes a *beat* into its trial every few seconds. A trial whose beat stands still for
  longer than `patience`, or whose worker was a process of this machine that is gone, is failed, and
  its index goes back into the queue with the same setting. Beats are compared with the reader's own
  clock, so clocks of machines need not agree.
- The first settings of a search, every third that follows, and all of a random search follow from
  the seed and the index alone, whoever does them.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from firstspike.tuning.space import Draws, RandomDraws
from firstspike.tuning.trial import Outcome

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

FORMAT = 1  # of what is stored
Sampler = Literal["tpe", "random"]
_TRIES = 3  # workers that a trial may end
_STARTUP = 10  # settings at random before the sampler learns
_RANDOM_EVERY = 3  # ... and afterwards, so that it does not settle (as in Falkner et al. 2018)
_POLL_S = 0.5


@dataclass(frozen=True)
class Done:
    """A finished trial: its index, the choices drawn, the setting as plain data, the outcome.

    Attributes:
        params: value of every choice of the trial.
    """

    index: int
    params: dict[str, Any]
    setting: dict[str, Any]
    outcome: Outcome


class Search:
    """A study of Optuna with a queue of numbered trials.

    Args:
        storage: a path (journal file), or a URL that SQLAlchemy knows, such as
            "postgresql://user@host/database"; None keeps trials in memory.
        name: of the study in the storage.
        facts: what the trials depend on; a study with other facts is refused.
        draw: makes a setting from what the sampler (or chance) decides.
        sampler: "tpe", or "random" for none.
        seed: of the sampler.
        beat: seconds between signs of life.
        patience: seconds without one after which a trial's worker counts as dead.

    Raises:
        ModuleNotFoundError: if Optuna is missing; names the command that installs it.
        ValueError: for a storage that cannot be read, or holds another study.
    """

    def __init__(
        self,
        storage: str | Path | None,
        name: str,
        facts: Mapping[str, Any],
        draw: Callable[[Draws], dict[str, Any]],
        *,
        sampler: Sampler = "tpe",
        seed: int = 0,
        objectives: int = 1,
        beat: float = 10.0,
        patience: float = 60.0,
    ) -> None:
        if sampler not in get_args(Sampler):
            raise ValueError(f"`sampler` must be 'tpe' or 'random', got {sampler!r}.")
        self.sampler, self.seed, self.draw = sampler, seed, draw
        self.beat, self.patience = beat, patience
        self._watched: dict[int, tuple[Any, float]] = {}
        self._storage = open_storage(storage)
        self.study = open_study(self._storage, storage, name, objectives)
        check_facts(self.study, {"format": FORMAT, **facts}, storage, name)

    def close(self) -> None:
        """Close the connections to a database; the search may still be read, which opens one."""
        close_storage(self._storage)

    # ---- reading --------------------------------------------------------------------------------
    def trials(self) -> dict[int, FrozenTrial]:
        """The trial that counts for each index: the first that has not failed."""
        from optuna.trial import TrialState

        found: dict[int, FrozenTrial] = {}
        for trial in self.study.get_trials(deepcopy=False):
            index = trial.user_attrs.get("index")
            if index is not None and trial.state != TrialState.FAIL:
                found.setdefault(index, trial)
        return found

    def done(self) -> list[Done]:
        """Finished trials by index."""
        made = []
        for index, trial in sorted(self.trials().items()):
            if trial.state.is_finished():
                kept = trial.user_attrs
                outcome = Outcome(**kept["outcome"])
                made.append(Done(index, dict(trial.params), kept["setting"], outcome))
        return made

    # ---- working --------------------------------------------------------------------------------
    def run(
        self,
        measure: Callable[[dict[str, Any]], Outcome],
        trials: int,
        values: Callable[[Outcome], tuple[Sequence[float] | None, Mapping[str, float]]],
        on_done: Callable[[Done], None] | None = None,
    ) -> None:
        """Work until trials 0 ... `trials` - 1 are finished, by this worker or by others.

        Args:
            measure: what a trial does with its setting.
            values: objectives (None where the trial ended before there was something to measure)
                and constraints (kept where not positive) of an outcome.
            on_done: called with each trial of this worker.
        """
        while True:
            self._bury()
            self._fill(trials)
            trial = self._take()
            if trial is None:
                if self._finished(trials):
                    return
                time.sleep(_POLL_S)  # others are at work
                continue
            done = self._work(trial, measure, values)
            if done is not None and on_done is not None:
                on_done(done)

    def _finished(self, trials: int) -> bool:
        found = self.trials()
        return all(i in found and found[i].state.is_finished() for i in range(trials))

    def _fill(self, trials: int) -> None:
        """Put missing indices in the queue, with the setting of a worker that died.

        Raises:
            RuntimeError: if a trial has killed its worker again and again.
        """
        from optuna.trial import TrialState

        known = self.trials()
        left: dict[int, list[FrozenTrial]] = {}
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.FAIL,)):
            if not trial.user_attrs.get("surplus"):
                left.setdefault(trial.user_attrs.get("index", -1), []).append(trial)
        for index in range(trials):
            if index in known:
                continue
            failed = left.get(index, [])
            if len([trial for trial in failed if not trial.user_attrs.get("stopped")]) >= _TRIES:
                raise RuntimeError(
                    f"trial {index} has ended {_TRIES} workers; its choices are "
                    f"{failed[-1].params}. Take them out of the space, or give workers more memory."
                )
            params = dict(failed[-1].params) if failed else self._given(index)
            self.study.enqueue_trial(params, user_attrs={"index": index})

    def _given(self, index: int) -> dict[str, Any]:
        """Choices that follow from seed and index alone; none where the sampler decides."""
        if self.sampler != "random" and index >= _STARTUP and index % _RANDOM_EVERY:
            return {}
        draws = RandomDraws(f"{self.seed}/{index}")
        self.draw(draws)
        return draws.params

    def _take(self) -> Trial | None:
        """A trial of the queue; None if there is none that is ours to do."""
        from optuna.trial import TrialState

        waiting = (TrialState.WAITING,)
        if not self.study.get_trials(deepcopy=False, states=waiting):
            return None
        begun = [trial for trial in self.trials().values() if trial.state not in waiting]
        self.study.sampler = self._new_sampler(len(begun))
        trial = self.study.ask()
        index = trial.user_attrs.get("index")
        counts = None if index is None else self.trials().get(index)
        if counts is None or counts.number != trial.number:  # others were quicker
            trial.set_user_attr("surplus", True)
            self.study.tell(trial, state=TrialState.FAIL)
            return None
        trial.set_user_attr("worker", [socket.gethostname(), os.getpid()])
        return trial

    def _new_sampler(self, begun: int) -> Any:
        """A sampler that goes on the same way after an interruption."""
        import optuna

        seed = (self.seed * 1_000_003 + begun) % 2**32
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `group` is said to be experimental
            if self.sampler == "random":
                return optuna.samplers.RandomSampler(seed=seed)
            return optuna.samplers.TPESampler(
                n_startup_trials=_STARTUP, multivariate=True, group=True, seed=seed
            )

    def _work(self, trial: Trial, measure: Any, values: Any) -> Done | None:
        """The trial done; None where others took this worker for dead meanwhile."""
        from optuna.trial import TrialState

        try:
            with self._beating(trial):
                setting = self.draw(trial)
                outcome = self._known(setting) or measure(setting)
            trial.set_user_attr("setting", setting)
            trial.set_user_attr("outcome", outcome.plain())
            objectives, constraints = values(outcome)
            for name, value in constraints.items():
                trial.set_constraint(name, value)
            if objectives is None:
                self.study.tell(trial, state=TrialState.PRUNED)
            else:
                self.study.tell(trial, list(objectives))
        except BaseException as error:
            if self.study.get_trials(deepcopy=False)[trial.number].state.is_finished():
                return None
            trial.set_user_attr("stopped", not isinstance(error, Exception))
            self.study.tell(trial, state=TrialState.FAIL)
            raise
        return Done(trial.user_attrs["index"], dict(trial.params), setting, outcome)

    def _known(self, setting: dict[str, Any]) -> Outcome | None:
        """The outcome of an earlier trial with the same setting."""
        return next((done.outcome for done in self.done() if done.setting == setting), None)

    @contextlib.contextmanager
    def _beating(self, trial: Trial) -> Iterator[None]:
        """Signs of life while the block runs."""
        over = threading.Event()

        def beat() -> None:
            count = 0
            while not over.wait(self.beat):
                count += 1
                trial.set_user_attr("beat", count)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _bury(self) -> None:
        """Fail the trials whose workers are dead."""
        from optuna.trial import TrialState

        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if self._dead(trial):
                self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)

    def _dead(self, trial: FrozenTrial) -> bool:
        host, process = trial.user_attrs.get("worker", (None, None))
        if host == socket.gethostname() and not _alive(process):
            return True
        sign = trial.user_attrs.get("beat", 0)
        known, since = self._watched.get(trial.number, (None, 0.0))
        now = time.monotonic()
        if known != sign:
            self._watched[trial.number] = (sign, now)
            return False
        return now - since > self.patience


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def open_storage(storage: str | Path | None) -> Any:
    """Optuna's storage for a path, a URL, or None.

    Raises:
        ModuleNotFoundError, ValueError: as `Search`.
    """
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "`optuna` must be installed for tuning. Run pip install 'firstspike[tune]'."
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if storage is None:
        return optuna.storages.InMemoryStorage()
    return _database(str(storage)) if "://" in str(storage) else _journal(Path(storage))


def close_storage(opened: Any) -> None:
    """Close the connections of a database; other storages have none."""
    if (engine := getattr(opened, "engine", None)) is not None:
        engine.dispose()


def open_study(opened: Any, storage: str | Path | None, name: str, objectives: int) -> Study:
    """The study `name` of a storage, made where it is missing.

    Raises:
        ValueError: as `Search`.
    """
    import optuna

    with _broken_storage(storage):
        return optuna.create_study(
            storage=opened,
            study_name=name,
            directions=["minimize"] * objectives,
            load_if_exists=True,
        )


def check_facts(
    study: Study, facts: Mapping[str, Any], storage: str | Path | None, name: str
) -> None:
    """Note what the trials of a new study depend on; refuse an old one with other facts."""
    stored = study.user_attrs.get("firstspike")
    if stored is None and study.get_trials(deepcopy=False):
        raise ValueError(
            f"the study {name!r} in {storage} is not one of firstspike's. Pass another name with "
            "`study`, or another storage."
        )
    if stored is None:
        study.set_user_attr("firstspike", dict(facts))
        return
    changed = [key for key in facts if stored.get(key) != facts[key]]
    if changed:
        differences = "; ".join(
            f"{key} was {_short(stored.get(key))}, is {_short(facts[key])}" for key in changed
        )
        raise ValueError(
            f"the study {name!r} in {storage} is of another search: {differences}. Restore these, "
            "or pass another name with `study`, or another storage."
        )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _journal(path: Path) -> Any:
    """Journal file, with a last line that a killed process left unfinished taken out."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lock = JournalFileOpenLock(str(path))
    backend = JournalFileBackend(str(path), lock_obj=lock)
    lock.acquire()
    try:
        _mend(path)
    finally:
        lock.release()
    with _broken_storage(path):
        return JournalStorage(backend)


def _mend(path: Path) -> None:
    with open(path, "rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)


def _database(url: str) -> Any:
    from optuna.storages import RDBStorage

    scheme, _, rest = url.partition("://")
    if scheme in ("postgresql", "postgres"):
        scheme = "postgresql+psycopg"
    with _broken_storage(url):
        try:
            return RDBStorage(f"{scheme}://{rest}", engine_kwargs={"pool_pre_ping": True})
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"the storage {scheme}:// needs {error.name}, which is not installed: "
                "pip install 'firstspike[tune]'."
            ) from error


@contextlib.contextmanager
def _broken_storage(storage: str | Path | None) -> Iterator[None]:
    """Say which storage cannot be read, and why."""
    try:
        yield
    except ModuleNotFoundError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"the storage {storage} cannot be read as a study: {reason[0]}. Nothing was changed: "
            "restore a copy, start the database, or pass another storage."
        ) from error
