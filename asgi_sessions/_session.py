"""
The session a handler sees.

Rule 1: nothing in this file awaits; `SessionManager.commit` does, once.
Rule 2: nothing in this file knows about cookies, stores or ASGI.
Rule 3: a change is saved or refused where it is made. Reads and changes pass `_read` and `_change`, which know when.
"""

from collections.abc import Awaitable, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple, Protocol
from uuid import UUID

from asgi_sessions._changes import Operation
from asgi_sessions._config import Config, check_span
from asgi_sessions._envelope import Envelope, Standing, Terms
from asgi_sessions._record import Record
from asgi_sessions._token import Secret, new_id
from asgi_sessions._tracked import TrackedDict
from asgi_sessions.errors import ResponseStartedError, SessionClosedError

Status = Literal["unmodified", "modified", "destroyed"]
UserID = str | int | UUID
EndEvent = Literal["destroyed", "logout", "replaced"]

_FLASHES = "_flashes"
_LONGEST_USER_ID = 255  # fits an indexed column of every server


class Engine(Protocol):
    """What moves a session: the manager."""

    config: Config

    def save(self, session: "Session") -> Awaitable[str | None]:
        """Commit now; return the token if one was issued."""
        ...

    def reload(self, session: "Session") -> Awaitable[None]:
        """Drop this request's changes and read the record again."""
        ...

    def fill(self, session: "Session") -> Awaitable[None]:
        """Load a session that was deferred."""
        ...


class Known(NamedTuple):
    """What the store held of a session when this request saw it last."""

    record: Record
    envelope: Envelope
    secret: Secret | None
    """The half of the token that only the client has; None where the session was opened by its ID."""
    standing: Standing


Pending = tuple[str, Secret | None]


class Ended(NamedTuple):
    """A session that this request has ended, to be deleted when it commits."""

    known: Known
    event: EndEvent
    is_tried: bool = False
    """Whether a delete was sent whose answer did not come."""


class Flash(NamedTuple):
    """A message that is shown once."""

    message: str
    category: str


class Seal:
    """
    Stands in the storage of a session that cannot be read yet.

    C code reads a dict past its methods; this is in its way, so that such a session is never taken for an empty one.
    """

    def __repr__(self) -> str:
        """Say what is missing."""
        return "<session not loaded>"


class Session(TrackedDict):
    """
    A client's data, kept by the server: a `dict` that saves itself.

    Keys are text; values are whatever the codec keeps. Changes deep inside a value count. They are committed when the
    response starts. All methods but `save`, `reload` and `load` are plain calls.
    """

    __slots__ = (
        "_accessed",
        "_ambiguous",
        "_answer",
        "_came_known",
        "_closed",
        "_deliverable",
        "_dropped",
        "_ended",
        "_engine",
        "_gone",
        "_id",
        "_known",
        "_late",
        "_login",
        "_new",
        "_now",
        "_operations",
        "_pending",
        "_regenerate",
        "_seal",
        "_started",
        "_terms",
        "_touch",
        "_turn",
        "_unanswered",
        "_user_id",
        "_was_bound",
        "_was_ended",
    )

    def __init__(self, engine: Engine, now: datetime) -> None:
        """Make a stranger's session; the manager does this."""
        super().__init__()
        self._engine = engine
        self._now = now  # when the request began
        self._pending: Pending | None = None  # what is to be loaded, where that has not been done, or has failed
        self._unanswered: tuple[bytes, Known] | None = None  # a write of which nobody knows whether it arrived
        self._late: list[tuple[bytes, Known]] = []  # writes that had not arrived when looked for, and still may
        self._turn: Any = None  # a lock, where two tasks may commit at once
        self._known: Known | None = None
        self._ended: Ended | None = None
        self._id: str | None = None
        self._user_id: str | None = None
        self._terms = Terms()
        self._operations: list[Operation] = []
        self._login = self._regenerate = self._touch = False
        self._accessed = self._ambiguous = self._gone = self._dropped = False
        self._came_known = self._was_bound = self._was_ended = False
        self._new = self._deliverable = True
        self._started = False
        self._closed: str | None = None  # why it can no longer be changed
        self._seal: Exception | None = None  # why it cannot be read
        self._answer: Any = None  # what the client is to be told, until it was

    # What it is

    @property
    def id(self) -> str:
        """The public session ID, the same for life: safe to show and to log."""
        self._read()
        if self._id is None:
            self._id = new_id()
        return self._id

    @property
    def is_new(self) -> bool:
        """Whether the session begins with this request."""
        self._read()
        return self._new

    @property
    def is_gone(self) -> bool:
        """Whether the session ended elsewhere before this request could commit: its changes were dropped."""
        return self._gone

    @property
    def status(self) -> Status:
        """What a commit at this moment would find."""
        self._read()
        if self._was_ended and not dict.__len__(self) and not self._login:
            return "destroyed"
        return "modified" if self._is_modified() else "unmodified"

    @property
    def user_id(self) -> str | None:
        """Whose session, as text; None before log-in."""
        self._read()
        return self._user_id

    @property
    def created_at(self) -> datetime:
        """When the session began: for a new one, this request."""
        self._read()
        return self._known.record.created_at if self._known else self._now

    @property
    def last_seen(self) -> datetime:
        """When the client was seen before, to within the touch interval: for a new session, this request."""
        self._read()
        return self._known.record.seen_at if self._known else self._now

    @property
    def expires_at(self) -> datetime:
        """When it ends if no further request comes."""
        self._read()
        return self._engine.config.expires_at(
            self._terms, created_at=self.created_at, seen_at=self._now, now=self._now, unreturned=self._is_unreturned()
        )

    @property
    def authenticated_at(self) -> datetime | None:
        """When the user logged in last."""
        self._read()
        return self._terms.authenticated_at

    @property
    def idle_timeout(self) -> timedelta | None:
        """The idle timeout of this session: set it to override the `Config`'s, to None to return to that."""
        self._read()
        return self._terms.idle_timeout or self._engine.config.idle_timeout

    @idle_timeout.setter
    def idle_timeout(self, value: timedelta | None) -> None:
        self._change()
        self._terms = self._terms._replace(idle_timeout=None if value is None else check_span("idle_timeout", value))

    @property
    def absolute_end(self) -> datetime | None:
        """The instant at which this session ends however busy: set it to override what the `Config` makes it."""
        self._read()
        return self._engine.config.absolute_end(self._terms, created_at=self.created_at, now=self._now)

    @absolute_end.setter
    def absolute_end(self, value: datetime | None) -> None:
        if value is not None and value.tzinfo is None:
            raise ValueError(f"absolute_end={value!r}: use an aware datetime, such as datetime.now(UTC) + timedelta(1)")
        self._change()
        self._terms = self._terms._replace(absolute_end=value)

    # What becomes of it

    def login(self, user_id: UserID, *, remember: bool | timedelta | None = None) -> None:
        """
        Make this the session of *user_id*, under a new token.

        An anonymous session keeps its data; that of another user is ended, and this one begins empty. The absolute
        timeout starts anew.

        Args:
            user_id: kept as text.
            remember: True keeps the cookie when the browser closes; a `timedelta` does so for that long, in place of
                both timeouts; None does what the cookie extractor says.
        """
        user = user_text(user_id)
        lasts = None if remember is None or isinstance(remember, bool) else check_span("remember", remember)
        self._change(issues=True)
        if self._gone or self._user_id not in (None, user):
            self._restart("replaced")
        self._user_id = user
        self._login = True
        self._terms = Terms(
            authenticated_at=self._now,
            idle_timeout=lasts,
            absolute_end=self._now + lasts if lasts else None,
            remember=True if lasts else remember if isinstance(remember, bool) else None,
        )

    def logout(self) -> None:
        """End the session, as `destroy()` does, with an event of its own."""
        self._end("logout")

    def destroy(self) -> None:
        """End the session: its record is deleted, the client's token expired. What is written next begins another."""
        self._end("destroyed")

    def clear(self) -> None:
        """End the session: the way in which Starlette applications log out."""
        self._end("destroyed")

    def regenerate(self) -> None:
        """Replace the token; the session stays. Do it where rights grow; `login()` does it by itself."""
        self._change(issues=True)
        self._regenerate = True

    def touch(self) -> None:
        """Count this request as activity at once, even within the touch interval."""
        self._check_open()
        self._touch = True

    def save(self) -> Awaitable[str | None]:
        """Commit now, and await the outcome. Returns the token if one was issued."""
        return self._engine.save(self)

    def reload(self) -> Awaitable[None]:
        """Drop this request's changes and read the session as it is stored now."""
        return self._engine.reload(self)

    def load(self) -> Awaitable[None]:
        """Load the session, under `Config(load="lazy")`; where it is loaded already, do nothing."""
        return self._engine.fill(self)

    def mark_accessed(self) -> None:
        """Count as used: the response depends on the session. Starlette calls it at `request.session`."""
        self._accessed = True

    # Changes that add up

    def increment(self, key: str, by: float = 1) -> Any:
        """Add *by* to a number that starts at 0, and return it. Two at once count both."""
        self._operate(Operation("increment", key, by))
        return dict.__getitem__(self, key)

    def append(self, key: str, value: Any) -> None:
        """Append to a list that starts empty. Two at once append both."""
        self._operate(Operation("append", key, value))

    def add(self, key: str, value: Any) -> None:
        """Add to a set that starts empty. Two at once add both."""
        self._operate(Operation("add", key, value))

    def discard(self, key: str, value: Any) -> None:
        """Remove from a set, or once from a list, if it is there."""
        self._operate(Operation("discard", key, value))

    def flash(self, message: str, category: str = "message") -> None:
        """Leave a message for the next page that shows them."""
        self.append(_FLASHES, [message, category])

    def flashes(self) -> list[Flash]:
        """Return the messages left so far, oldest first, and forget them."""
        self._read()
        messages = [Flash(*each) for each in dict.get(self, _FLASHES, ())]
        for flash in messages:
            self._operate(Operation("take", _FLASHES, list(flash)))
        return messages

    def __repr__(self) -> str:
        """Return a form that is safe to log: no token, no data."""
        return f"<Session {self._id or 'new'}>"

    # Inside

    def _read(self) -> None:
        self._accessed = True
        if self._seal is not None:
            raise self._seal

    def _check_open(self) -> None:
        self._read()
        if self._closed is not None:
            raise SessionClosedError(self._closed)

    def _change(self, *, issues: bool = False) -> None:
        self._check_open()
        if self._started and (issues or (self._known is None and not self._gone)):
            raise ResponseStartedError("The response has started: a new token can no longer reach the client.")

    def _operate(self, operation: Operation) -> None:
        self._change()
        operation.apply(self)
        self._operations.append(operation)

    def _end(self, event: EndEvent) -> None:
        self._check_open()
        if self._gone:  # it is not this request's to end: a log-in may have made it another's
            dict.clear(self)
        else:
            self._restart(event)

    def _restart(self, event: EndEvent) -> None:
        written = self._unanswered[1] if self._unanswered is not None else None  # by another task, or so it may be
        if (known := self._known or written) is not None:
            self._ended = Ended(known, event)
            self._was_ended = True
            self._new = True
        self._become_stranger()

    def _become_stranger(self) -> None:
        dict.clear(self)
        self._operations.clear()
        self._known = self._id = self._user_id = self._seal = None
        self._terms = Terms()
        self._login = self._regenerate = self._touch = self._gone = False

    def _become(self, known: Known, data: Mapping[str, Any]) -> None:
        dict.clear(self)
        dict.update(self, data)
        self._adopt(known)
        self._new = False

    def _adopt(self, known: Known) -> None:
        self._known = known
        self._operations.clear()
        self._id = known.record.id
        self._user_id = known.record.user_id
        self._was_bound = self._was_bound or self._user_id is not None
        self._terms = known.envelope.terms
        self._seal = None
        self._login = self._regenerate = self._touch = self._was_ended = self._dropped = False

    def _hide(self, reason: Exception) -> None:
        dict.clear(self)
        storage: dict[Any, Any] = self
        dict.__setitem__(storage, Seal(), Seal())  # no key of an application's can be this one
        self._seal = reason

    def _encoded(self) -> bytes:
        """Return the data as bytes, none where there is no data."""
        return self._engine.config.codec.encode(dict(dict.items(self))) if dict.__len__(self) else b""

    def _is_unreturned(self) -> bool:
        """Return whether this is an anonymous session whose token no client has sent back yet."""
        known = self._known
        is_returned = known is not None and known.record.seen_at > known.envelope.issued_at
        return self._new and self._user_id is None and not is_returned

    def _is_modified(self) -> bool:
        if self._known is None:
            return self._login or dict.__len__(self) > 0
        return self._login or self._regenerate or self._terms != self._known.envelope.terms or self._data_is_modified()

    def _data_is_modified(self) -> bool:
        return self._known is not None and self._encoded() != self._known.envelope.payload


def user_text(user_id: UserID) -> str:
    """Return *user_id* as it is kept, or say what is wrong with it."""
    text = str(user_id)
    if isinstance(user_id, bool) or not isinstance(user_id, UserID):
        message = f"user_id is a {type(user_id).__name__}: use a str, an int or a UUID"
        raise TypeError(message)
    if not 0 < len(text) <= _LONGEST_USER_ID or "\0" in text or not _is_unicode(text):
        message = f"user_id: use 1 to {_LONGEST_USER_ID} characters of Unicode text without NUL"
        raise ValueError(message)
    return text


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)
