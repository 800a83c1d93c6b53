"""What happens to sessions, for those who listen: counted, logged, and handed to callbacks. IDs only, never a token."""

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

EventName = Literal[
    "created",
    "login",
    "logout",
    "regenerated",
    "destroyed",
    "revoked",
    "expired",
    "gone",
    "conflict",
    "unknown_token",
    "ambiguous_token",
    "corrupt",
    "store_error",
]

logger = logging.getLogger("asgi_sessions")

_LEVELS = {
    "corrupt": logging.ERROR,
    "store_error": logging.ERROR,
    "ambiguous_token": logging.WARNING,
    "gone": logging.INFO,
}


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened."""

    name: EventName
    session_id: str | None = None
    """None where it concerns many, or none that is known."""
    user_id: str | None = None
    count: int = 1
    """How many sessions: more than one for `revoked` and `expired`."""


class Events:
    """Who listens, and how often each event came."""

    def __init__(self) -> None:
        """Begin without listeners."""
        self.counts: Counter[str] = Counter()
        self._listeners: dict[str, list[Callable[[Event], object]]] = {}

    def on(self, name: EventName, callback: Callable[[Event], object]) -> None:
        """Call *callback* with each event of this name from now on."""
        self._listeners.setdefault(name, []).append(callback)

    def emit(self, event: Event, detail: str = "", cause: BaseException | None = None) -> None:
        """Count, log and pass on. What a callback raises is logged: a listener never breaks a request."""
        self.counts[event.name] += event.count
        level = _LEVELS.get(event.name, logging.DEBUG)
        logger.log(
            level, "session %s: %s%s", event.session_id or "-", event.name, detail and f" ({detail})", exc_info=cause
        )
        for callback in self._listeners.get(event.name, ()):
            try:
                callback(event)
            except Exception:  # whatever a listener does wrong is its own
                logger.exception("a listener of %r failed", event.name)
