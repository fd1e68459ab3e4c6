"""The form of the daemon's own messages: lines of text, or of JSON with docker's keys."""

import json
import logging
import sys
from typing import Final

from sampan.clock import rfc3339nano

TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
NAMES: Final = {logging.CRITICAL: "fatal"}


class JsonFormatter(logging.Formatter):
    """One object a line, as logrus writes it: level, msg, time; and error, where there is an exception."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging."""
        level = NAMES.get(record.levelno) or record.levelname.lower()
        shown = {"level": level, "msg": record.getMessage(), "time": rfc3339nano(int(record.created * 1e9)), "logger": record.name}
        if record.exc_info:
            shown["error"] = self.formatException(record.exc_info)
        return json.dumps(shown, ensure_ascii=False)


def set_up(form: str, level: int) -> None:
    """Everything that is logged goes to stderr in this form ("text" or "json")."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else logging.Formatter(TEXT))
    logging.basicConfig(level=level, handlers=[handler])
