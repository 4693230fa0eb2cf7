"""How good each model is at each task, as evals have measured it: a JSON file that they write and routes read.

`{"models": {"big": {"rag": {"quality": 0.82, "n": 120}}}}`; other keys are the evals' own. A file that is not there
means that nothing was measured yet. One that changes is read again within a second.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from graphs.errors import Invalid
from graphs.types import Task

log = logging.getLogger("pilothouse.gateway")

CHECK_S: Final = 1.0  # how often the file is looked at; a look costs some microseconds
MAX_FILE_BYTES: Final = 4 << 20


class ScorecardInvalid(Invalid):
    """The scorecard cannot be read; the message says why."""

    code = "scorecard_invalid"


class Score(BaseModel):
    """Mean quality over `n` cases, in [0, 1]."""

    model_config = ConfigDict(frozen=True, strict=True)

    quality: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    n: Annotated[int, Field(ge=1)]


class _File(BaseModel):
    model_config = ConfigDict(frozen=True)

    models: dict[str, dict[Task, Score]]


class Scorecard:
    """The scores in a file. Raises ScorecardInvalid when made; later a broken file keeps the scores that were good."""

    def __init__(self, path: Path, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._path, self._monotonic = path, monotonic
        self._seen = _stamp(path)
        self._scores = _read(path) if self._seen is not None else {}
        self._look_at = monotonic() + CHECK_S

    def __call__(self, model: str, task: Task) -> float | None:
        """The quality of a model at a task; None where it was never measured."""
        score = self.score(model, task)
        return None if score is None else score.quality

    def score(self, model: str, task: Task) -> Score | None:
        """The same with the number of cases behind it."""
        now = self._monotonic()
        if now >= self._look_at:
            self._look_at = now + CHECK_S
            self._look()
        return self._scores.get(model, {}).get(task)

    def _look(self) -> None:
        """Read the file again if it is another one."""
        stamp = _stamp(self._path)
        if stamp == self._seen:
            return
        self._seen = stamp
        if stamp is None:
            self._scores = {}
            return
        try:
            self._scores = _read(self._path)
        except ScorecardInvalid as error:
            log.warning("the scorecard is not read; the last good one holds", extra={"reason": error.message})


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes with the file; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read(path: Path) -> Mapping[str, Mapping[Task, Score]]:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ScorecardInvalid(f"the scorecard {path} has more than {MAX_FILE_BYTES} bytes")
        data = json.loads(path.read_text(encoding="utf-8"))
        return _File.model_validate(data).models
    except (OSError, ValueError, RecursionError) as error:
        raise ScorecardInvalid(f"the scorecard {path} cannot be read: {_told(error)}") from error


def _told(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error) or type(error).__name__
    first = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'] if part != '[key]') or 'the file'}: {first['msg']}"
