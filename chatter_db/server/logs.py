"""Logs as JSON, one object a line, with the correlation id; no message text, no secret."""

import json
import logging
from datetime import UTC, datetime
from typing import Any

from chatter_db.server import correlation


class JsonLines(logging.Formatter):
    """`time`, `level`, `logger`, `message`, `correlation_id`, and `error` with its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (correlation_id := correlation.current.get()) is not None:
            line["correlation_id"] = correlation_id
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": JsonLines}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
    # They tell every address that is asked, with its query. OpenAI's client asks by httpx2.
    "loggers": {"httpx": {"level": "WARNING"}, "httpx2": {"level": "WARNING"}},
}
"""For logging.config.dictConfig."""
