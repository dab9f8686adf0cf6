"""Log lines on standard error: JSON for machines, plain text for people; facts as fields, not woven into prose.

Use: ``log.info("partition started", extra=facts(partition=3, offset=17))``.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal

log = logging.getLogger("tickcast")


def facts(**values: object) -> dict[str, Any]:
    """Wrap the facts of a log line for `extra`."""
    return {"facts": values}


def configure_logs(form: Literal["auto", "json", "text"], level: str, *, instance: str | None = None) -> None:
    """Send our lines to standard error, in the form asked for, and those of libraries from warnings on.

    Parameters
    ----------
    instance : stands in each JSON line, since the workers of one parent share its standard error
    """
    handler = logging.StreamHandler(sys.stderr)
    as_json = form == "json" or (form == "auto" and not sys.stderr.isatty())
    handler.setFormatter(JsonLines(instance) if as_json else TextLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    log.setLevel(level.upper())
    # The clients repeat each failure that we answer for with a line of our own.
    for client in ("kafka", "librdkafka"):
        logging.getLogger(client).setLevel(logging.CRITICAL)


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, instance, message, facts."""

    def __init__(self, instance: str | None = None) -> None:
        super().__init__()
        self._instance = {} if instance is None else {"instance": instance}

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        line: dict[str, Any] = {
            "time": _time(record).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            **self._instance,
            "message": record.getMessage(),
        }
        line |= getattr(record, "facts", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextLines(logging.Formatter):
    """Time, level, message, then the facts as name=value."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        found = "".join(f" {name}={value}" for name, value in getattr(record, "facts", {}).items())
        line = f"{_time(record):%H:%M:%S.%f}"[:-3] + f" {record.levelname.lower():7} {record.getMessage()}{found}"
        return printable(line) + ("\n" + self.formatException(record.exc_info) if record.exc_info else "")


def printable(text: str) -> str:
    """Escape what would end a line or steer a terminal: names and messages come from ticks, files and brokers."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _time(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)
