"""The log: one line for each event on standard error. It is for programs; people read the progress.

FLEXRAY_LOG chooses the format (docs/operations.md). Ray's workers use the setting of the process that started
the run; their log is in Ray's log files on their node.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Self, cast, get_args

from flexray.console.terminal import printable
from flexray.errors import ConfigError
from flexray.storage import redact

VARIABLE = "FLEXRAY_LOG"
Mode = Literal["", "json", "text", "off"]

_LOGGER = logging.getLogger("flexray")
_LOGGER.addHandler(logging.NullHandler())  # else Python itself prints warnings if nothing was chosen


@dataclass(frozen=True, kw_only=True, slots=True)
class RunLabel:
    """Identifies the run in log lines and metrics; sent to Ray's workers."""

    fingerprint: str = ""
    """The first digits of the run's fingerprint."""
    started: str = ""
    """UTC time of this start, not of the first start of the run."""
    dataset: str
    log: Mode = ""

    @classmethod
    def of_start(cls, fingerprint: str, dataset: str) -> Self:
        """The label of a run that starts now. Raises ConfigError if FLEXRAY_LOG has an unknown value."""
        now = datetime.now(UTC)
        return cls(
            fingerprint=fingerprint[:12], started=f"{now:%Y%m%dT%H%M%SZ}", dataset=dataset, log=log_mode()
        )

    @property
    def run_id(self) -> str:
        """A name for this start, different from that of any other start."""
        return f"{self.fingerprint}-{self.started}"


def log_mode() -> Mode:
    """The value of FLEXRAY_LOG. Raises ConfigError if it is unknown."""
    mode = os.environ.get(VARIABLE, "")
    if mode not in get_args(Mode):
        raise ConfigError(f"{VARIABLE}: unknown value {mode!r}. Set it to json, text or off, or not at all.")
    return cast(Mode, mode)


def start_logging(mode: Mode) -> None:
    """Write this process's events to standard error from now on; "": warnings and errors only, as text."""
    for handler in _LOGGER.handlers[:]:
        if isinstance(handler, _StandardError):
            _LOGGER.removeHandler(handler)
    if mode == "off":
        return
    handler = _StandardError()
    handler.setFormatter(_Json() if mode == "json" else _Text())
    _LOGGER.addHandler(handler)
    _LOGGER.setLevel(logging.INFO if mode else logging.WARNING)
    _LOGGER.propagate = False


class Log:
    """Writes events; `context` is part of each."""

    def __init__(self, **context: Any):
        self._context = context

    def info(self, event: str, **facts: Any) -> None:
        """Log a normal event."""
        self._write(logging.INFO, event, facts)

    def warning(self, event: str, **facts: Any) -> None:
        """Log a fault after which the work goes on."""
        self._write(logging.WARNING, event, facts)

    def error(self, event: str, error: BaseException, **facts: Any) -> None:
        """Log an error that ends the work."""
        trace = "".join(traceback.format_exception(error))
        about = {"error": f"{type(error).__name__}: {error}", "traceback": trace}
        self._write(logging.ERROR, event, facts | about)

    def _write(self, level: int, event: str, facts: dict[str, Any]) -> None:
        _LOGGER.log(level, event, extra={"facts": self._context | facts})


class _StandardError(logging.StreamHandler[Any]):
    """Looks up standard error at each write: a progress bar replaces it for a while."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stderr


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    """All fields of an event, without credentials."""
    facts = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname,
        "event": record.getMessage(),
        **getattr(record, "facts", {}),
        "pid": record.process,
    }
    return {key: redact(value) for key, value in facts.items()}


class _Json(logging.Formatter):
    """One line of ASCII: nothing in it can end the line or control a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(_facts(record))


class _Text(logging.Formatter):
    """`time level event key=value ..`, on one line."""

    def format(self, record: logging.LogRecord) -> str:
        facts = _facts(record)
        facts.pop("traceback", None)  # Ray and Python print it
        begin = [facts.pop(key) for key in ("time", "level", "event")]
        pairs = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in facts.items()]
        return printable(" ".join(map(str, [*begin, *pairs])))
