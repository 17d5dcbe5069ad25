"""The log: what happens, an event a line, on standard error. For programs; people have the progress.

FLEXRAY_LOG chooses:

    json   each event as one JSON object on a line of ASCII
    text   the same for reading
    off    nothing
    unset  warnings and errors of Ray's workers, as text; the command itself prints what matters

Workers follow the process that started the run. What they write is in Ray's log files of their node.
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
_LOGGER.addHandler(logging.NullHandler())  # else Python prints warnings of whoever has not chosen


@dataclass(frozen=True, kw_only=True, slots=True)
class RunLabel:
    """What log lines and metrics say of the run that they belong to; travels to Ray's workers."""

    fingerprint: str = ""
    """Its first digits."""
    started: str = ""
    """UTC: of this start, not of the run."""
    dataset: str
    log: Mode = ""

    @classmethod
    def of_start(cls, fingerprint: str, dataset: str) -> Self:
        """Of a run that starts now. Raises ConfigError if FLEXRAY_LOG has another value."""
        now = datetime.now(UTC)
        return cls(
            fingerprint=fingerprint[:12], started=f"{now:%Y%m%dT%H%M%SZ}", dataset=dataset, log=log_mode()
        )

    @property
    def run_id(self) -> str:
        """Tells one start from all others."""
        return f"{self.fingerprint}-{self.started}"


def log_mode() -> Mode:
    """What FLEXRAY_LOG says. Raises ConfigError for what it may not say."""
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
    """Writes events; `context` stands in each of them."""

    def __init__(self, **context: Any):
        self._context = context

    def info(self, event: str, **facts: Any) -> None:
        """Something went as it should."""
        self._write(logging.INFO, event, facts)

    def warning(self, event: str, **facts: Any) -> None:
        """Something went on in spite of a fault."""
        self._write(logging.WARNING, event, facts)

    def error(self, event: str, error: BaseException, **facts: Any) -> None:
        """Something ended by an error."""
        said = {"error": f"{type(error).__name__}: {error}"}
        lines = traceback.format_exception(error)
        self._write(logging.ERROR, event, facts | said | {"traceback": "".join(lines)})

    def _write(self, level: int, event: str, facts: dict[str, Any]) -> None:
        _LOGGER.log(level, event, extra={"facts": self._context | facts})


class _StandardError(logging.StreamHandler[Any]):
    """Standard error as it is when something is written: a progress bar puts itself in between."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stderr


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    """All that is known of an event, without credentials."""
    facts = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname,
        "event": record.getMessage(),
        **getattr(record, "facts", {}),
        "pid": record.process,
    }
    return {key: redact(value) for key, value in facts.items()}


class _Json(logging.Formatter):
    """One line of ASCII, so that nothing in it can end the line or control a terminal."""

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
