"""Where the trials of a search are kept: an Optuna study, which its own tools can open."""

from __future__ import annotations

import base64
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from polyfuse.core.errors import InputError, PolyfuseError, import_extra
from polyfuse.learners.learner import Array
from polyfuse.study.space import Drawn, Space

#: Name of the study in its file.
STUDY = "polyfuse"
#: What a digest of the table stands under.
TABLE = "table"
_MARK, _ROWS, _LOST = "polyfuse", "polyfuse_rows", "polyfuse_interrupted"
_SHOWN = 4  # differences that a message names
_ATTEMPTS = 30  # to draw something new
_INFORMED = 3  # of these, with a look at the trials before
_STARTING = 8  # trials that are drawn without a look at the others, and that none is ended before


def optuna() -> ModuleType:
    """Return Optuna.

    Raises:
        MissingExtra: it is not installed.
    """
    return import_extra("optuna", "tune", "polyfuse tune")


@contextmanager
def quiet() -> Iterator[None]:
    """Let Optuna say nothing as long as the block runs: what it does is shown here."""
    logging = optuna().logging
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=optuna().exceptions.ExperimentalWarning)
            yield
    finally:
        logging.set_verbosity(before)


class Kept:
    """The study of a search.

    Args:
        path: of the SQLite file, made where there is none; None keeps nothing.
        greater_is_better: of the metric.
        about: JSON values that another run must have in common with this one to go on in it, by what they are about.
        warmup: epochs before whose end no trial is ended early.

    Attributes:
        study: Optuna's own.

    Raises:
        InputError: the file is no study, or one of something else.
        MissingExtra: Optuna is not installed.
    """

    def __init__(
        self, path: Path | None, *, greater_is_better: bool, about: Mapping[str, Any], warmup: int = 1
    ) -> None:
        self.path = path
        direction = "maximize" if greater_is_better else "minimize"
        pruner = optuna().pruners.MedianPruner(n_startup_trials=_STARTING // 2, n_warmup_steps=warmup)
        self.study = _opened(path, direction, pruner)
        known = self.study.user_attrs.get(_MARK)
        if known is None and not self.study.trials:
            self.study.set_user_attr(_MARK, dict(about))
        else:
            _check_same(path, known or {}, about)
        self._recover()

    def rows(self, of: int) -> Array | None:
        """Return positions of the rows that the trials learn from, if a sample of so many was taken."""
        packed = self.study.user_attrs.get(_ROWS)
        if not packed:
            return None
        bits = np.frombuffer(base64.b64decode(packed), dtype=np.uint8)
        return np.flatnonzero(np.unpackbits(bits, count=of))

    def keep_rows(self, positions: Array, of: int) -> None:
        """Take note of which rows of so many the trials learn from."""
        mask = np.zeros(of, dtype=bool)
        mask[positions] = True
        self.study.set_user_attr(_ROWS, base64.b64encode(np.packbits(mask).tobytes()).decode())

    def begin(self, space: Space, seed: int) -> Any:
        """Begin the next trial and return it, its values set; None where nothing new is left to try.

        The first one has the values of the recipe as it stands. What others draw follows from the seed and from the
        trials before, so that a search which was interrupted goes on as if it had not been.
        """
        if not any(trial.state == _state("WAITING") for trial in self.study.trials):
            drawn = self._drawn(space, seed) if self.done else space.defaults()
            if drawn is None:
                return None
            self.study.enqueue_trial(drawn)
        return self.study.ask()

    def _drawn(self, space: Space, seed: int) -> Drawn | None:
        """Draw values that no trial had yet, in a study beside this one; None if there are none."""
        module, done = optuna(), self.done
        beside = module.create_study(direction=self.study.direction)
        beside.add_trials(done)
        for attempt in range(_ATTEMPTS):
            number = int(np.random.SeedSequence([seed, len(done), attempt]).generate_state(1)[0])
            # Who is drawn to the same place again and again has to look elsewhere.
            beside.sampler = (
                module.samplers.TPESampler(seed=number, n_startup_trials=_STARTING, multivariate=True, group=True)
                if attempt < _INFORMED
                else module.samplers.RandomSampler(seed=number)
            )
            trial = beside.ask()
            drawn = space.suggest(trial)
            if not any(drawn == before.params for before in done):
                return drawn
            beside.tell(trial, state=_state("FAIL"))
        return None

    def lose(self, trial: Any) -> None:
        """End a trial that was interrupted; it is made again when the search goes on."""
        self.study.tell(trial.number, state=_state("FAIL"))
        self.study.set_user_attr(_LOST, [*self._lost, trial.number])
        if trial.params:
            self.study.enqueue_trial(dict(trial.params))

    @property
    def done(self) -> list[Any]:
        """The trials that came to an end, pruned and failed ones included, interrupted ones not."""
        lost = set(self._lost)
        return [trial for trial in self.study.trials if trial.state.is_finished() and trial.number not in lost]

    @property
    def best(self) -> Any:
        """The trial with the best value; of those that were ended early only where no other came to an end.

        Raises:
            PolyfuseError: none has a value.
        """
        trials = [trial for trial in self.done if trial.value is not None and np.isfinite(trial.value)]
        whole = [trial for trial in trials if trial.state == _state("COMPLETE")]
        if not trials:
            told = {trial.user_attrs.get("note", "") for trial in self.done} - {""}
            raise PolyfuseError("no trial came to an end" + "".join(f"; {note}" for note in sorted(told)[:_SHOWN]))
        sign = -1.0 if self.study.direction == optuna().study.StudyDirection.MAXIMIZE else 1.0
        return min(whole or trials, key=lambda trial: sign * trial.value)

    def importance(self) -> dict[str, float]:
        """Return how much of the differences between trials each parameter explains, the most first; they sum to 1."""
        if sum(trial.state == _state("COMPLETE") for trial in self.done) < _STARTING // 2:
            return {}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that there are few trials: whoever looks sees how many
                found = optuna().importance.get_param_importances(self.study)
        except (ValueError, RuntimeError, ZeroDivisionError):
            return {}  # all alike
        return {name: float(share) for name, share in found.items() if np.isfinite(share)}

    @property
    def _lost(self) -> list[int]:
        return list(self.study.user_attrs.get(_LOST, []))

    def _recover(self) -> None:
        """Make those trials again that a process left unfinished when it was killed."""
        for trial in self.study.trials:
            if trial.state == _state("RUNNING"):
                self.lose(trial)


def _state(name: str) -> Any:
    return optuna().trial.TrialState[name]


def _opened(path: Path | None, direction: str, pruner: Any) -> Any:
    """Open or make a study."""
    module = optuna()
    if path is None:
        return module.create_study(study_name=STUDY, direction=direction, pruner=pruner)
    if path.is_dir():
        raise InputError(f"--study {path} is a folder; a study is a file: choose another name")
    # Braces are a template's to Optuna.
    url = f"sqlite:///{path.absolute()}".replace("{", "{{").replace("}", "}}")
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        study = module.create_study(
            storage=url, study_name=STUDY, direction=direction, pruner=pruner, load_if_exists=True
        )
    except Exception as error:  # of the database, of its driver, of the file system
        raise InputError(
            f"--study {path} cannot be opened as a study ({' '.join(str(error).split())[:200]}): name another file"
        ) from error
    if study.direction.name.lower() != direction:
        raise InputError(f"--study {path} holds a study of another metric: name another file")
    return study


def _check_same(path: Path | None, known: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Check that a study is one of the same table, recipe and space.

    Raises:
        InputError: it is of something else.
    """
    there, here = (_flat(json.loads(json.dumps(each))) for each in (known, about))
    names = [name for name in {**here, **there} if there.get(name) != here.get(name)]
    if not names:
        return
    told = [
        "the table is another one"
        if name == TABLE
        else f"{name} is {_shown(there.get(name))} there and {_shown(here.get(name))} here"
        for name in names[:_SHOWN]
    ]
    more = f"; and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    raise InputError(
        f"--study {path} is about something else: {'; '.join(told)}{more}. Go on with the same, or name another file"
    )


def _flat(data: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested mappings by dotted keys."""
    if not isinstance(data, Mapping):
        return {prefix.rstrip("."): data}
    found: dict[str, Any] = {}
    for key, value in data.items():
        found |= _flat(value, f"{prefix}{key}.")
    return found


def _shown(value: Any) -> str:
    return "not set" if value is None else f"{value!r:.60}"
