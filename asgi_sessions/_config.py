"""
The settings.

Rule 1: a `Config` checks itself when it is made; what cannot work raises `ConfigError` with field, value and fix.
Rule 2: it owns the arithmetic of its timeouts; it knows no clock.
"""

import difflib
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, get_args

from asgi_sessions import _durations
from asgi_sessions._codec import AnyCodec, Codec
from asgi_sessions._extractors import Cookie, Extractor, Query, cookie, resolve
from asgi_sessions._record import Limit
from asgi_sessions._types import ASGIApp, Scope
from asgi_sessions.errors import ConfigError, SessionError, SessionWarning

if TYPE_CHECKING:
    from asgi_sessions._envelope import Terms
    from asgi_sessions.stores._base import Store

_SHORTEST = timedelta(milliseconds=1)
_LONGEST = timedelta(days=36500)  # keeps every sum of an instant and a timeout within what a datetime holds
_LONGEST_TOUCH_INTERVAL = timedelta(seconds=60)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*", re.ASCII)
_RESERVED = frozenset(  # what servers and frameworks keep in a scope
    (
        *("type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "query_string", "root_path"),
        *("headers", "client", "server", "state", "extensions", "subprotocols", "app", "router", "endpoint"),
        *("path_params", "route", "user", "auth"),
    )
)

Extractable = Extractor | str | Callable[[Scope], str | None]
WhenFull = Literal["end-oldest", "refuse"]
Load = Literal["eager", "lazy"]
Conflicts = Literal["merge", "raise"]
NoStore = Literal["bound", "token"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    How sessions behave. Every default is the safe choice; the reason stands beside it.

    Timeouts are `timedelta`. `Config.from_env()` reads the same fields from `SESSION_*` variables.
    """

    store: "Store | str" = "memory:"
    """A store, or its URL: `memory:`, `sqlite:///sessions.db`. Memory needs no set-up and forgets at a restart."""
    name: str = "session"
    """Names the cookie (`__Host-session`) and where handlers find it (`request.state.session`)."""
    extractors: Extractable | Sequence[Extractable] = field(default_factory=lambda: (cookie(),))
    """How tokens travel, tried in order. A cookie that scripts cannot read and other hosts cannot set."""
    idle_timeout: timedelta | None = timedelta(minutes=30)
    """Ends a session this long after its last request: the upper end of OWASP's advice for low-risk applications."""
    absolute_timeout: timedelta | None = timedelta(hours=24)
    """Ends it this long after log-in, however busy: the limit of NIST SP 800-63B-4 at AAL2."""
    touch_interval: timedelta | None = None
    """How stale `last_seen` may get, so that reading costs no write: a tenth of the idle timeout, at most 60 s."""
    first_life: timedelta = timedelta(minutes=15)
    """How long a new anonymous session lives if its client never returns the token: bots must not fill the store."""
    grace: timedelta = timedelta(seconds=10)
    """How long a replaced token still works, for the requests that were under way with it."""
    store_timeout: timedelta = timedelta(seconds=2)
    """Longest wait for a load and for a commit: after it the client gets a 503 rather than a blank page."""
    max_size: int = 256 * 1024
    """Longest payload in bytes, encoded: what is larger belongs in a database."""
    max_sessions_per_user: int | None = None
    """How many live sessions a user may have at once. None: any number."""
    when_full: WhenFull = "end-oldest"
    """A log-in beyond that ends the user's oldest session, or is refused."""
    load: Load = "eager"
    """"lazy" loads at `await session.load()` only, which the FastAPI dependency does."""
    skip: Callable[[Scope], bool] | Sequence[str] | None = None
    """Requests that get no session at all: path patterns such as `"/static/*"`, or a predicate of the scope."""
    codec: AnyCodec = field(default_factory=Codec)
    """Turns data into bytes. The default keeps the type of each value."""
    conflicts: Conflicts = "merge"
    """Two requests that changed one key: the later commit wins, or "raise" (409)."""
    no_store: NoStore = "bound"
    """`Cache-Control: no-store` where a user's session was used, or only where a "token" is sent."""
    on_error: Callable[[Scope, SessionError], ASGIApp] | None = None
    """Returns what answers in place of our plain 503, 409 or 403, such as a Starlette response."""
    on_gone: Callable[[Scope], ASGIApp] | None = None
    """Returns what answers a request whose session ended before it could commit. None: the handler's own answer."""

    sources: tuple[Extractor, ...] = field(init=False, repr=False, compare=False)
    """The extractors, resolved."""

    def __post_init__(self) -> None:
        """Refuse what cannot work, warn once of what is a risk."""
        self._check_name()
        self._check_times()
        self._check_choices()
        object.__setattr__(self, "sources", resolve(self.extractors, self.name))
        if self.absolute_timeout is None and any(isinstance(way, Cookie) and way.persistent for way in self.sources):
            _refuse("absolute_timeout", None, "cookie(persistent=True) lasts as long: set one, or leave persistent out")
        self._warn_of_risks()

    def _check_name(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name in _RESERVED:
            _refuse("name", self.name, "use letters, digits and '_', and none of the scope's own keys")
        if isinstance(self.store, str) and not self.store:
            _refuse("store", self.store, "use a store or a URL such as 'sqlite:///sessions.db'")

    def _check_times(self) -> None:
        for name in ("idle_timeout", "absolute_timeout", "touch_interval", "first_life", "grace", "store_timeout"):
            value = getattr(self, name)
            if value is None and name in ("idle_timeout", "absolute_timeout", "touch_interval"):
                continue
            check_span(name, value, least=timedelta(0) if name in ("grace", "touch_interval") else _SHORTEST)
        if self.idle_timeout is None and self.absolute_timeout is None:
            _refuse("idle_timeout", None, "a session must end some day: set idle_timeout or absolute_timeout")
        if self.touch_interval and self.idle_timeout and self.touch_interval >= self.idle_timeout:
            _refuse("touch_interval", self.touch_interval, f"use less than idle_timeout, {self.idle_timeout}")

    def _check_choices(self) -> None:
        for name, allowed in (("when_full", WhenFull), ("load", Load), ("conflicts", Conflicts), ("no_store", NoStore)):
            if getattr(self, name) not in get_args(allowed):
                _refuse(name, getattr(self, name), "use " + " or ".join(map(repr, get_args(allowed))))
        for name in ("max_size", "max_sessions_per_user"):
            value = getattr(self, name)
            if (value is not None or name == "max_size") and (type(value) is not int or value < 1):
                _refuse(name, value, "use a whole number from 1")
        for name in ("on_error", "on_gone"):
            if getattr(self, name) is not None and not callable(getattr(self, name)):
                _refuse(name, getattr(self, name), "use a function that returns an ASGI application")
        if isinstance(self.skip, str) or not (callable(self.skip) or isinstance(self.skip, (Sequence, NoneType))):
            _refuse("skip", self.skip, "use a list of patterns such as ['/static/*'], or a function of the scope")

    def _warn_of_risks(self) -> None:
        for way in self.sources:
            if isinstance(way, Query):
                _warn(f"query({way.name!r}): tokens in URLs end up in logs and histories; use a header")
            if isinstance(way, Cookie) and not way.secure:
                _warn(f"cookie {way.name!r} with secure=False travels in the clear: set secure=True where there is TLS")

    @property
    def limit(self) -> Limit | None:
        """How many sessions a user may have, for the store."""
        return None if self.max_sessions_per_user is None else Limit(self.max_sessions_per_user, self.when_full)

    @property
    def persistent(self) -> bool:
        """Whether tokens outlive the browser where a log-in does not say otherwise."""
        return any(isinstance(way, Cookie) and way.persistent for way in self.sources)

    def absolute_end(self, terms: "Terms", *, created_at: datetime, now: datetime) -> datetime | None:
        """Return when a session ends however busy it is. A beginning in the future counts as *now*."""
        if terms.absolute_end is not None or self.absolute_timeout is None:
            return terms.absolute_end
        return min(terms.authenticated_at or created_at, now) + self.absolute_timeout

    def expires_at(
        self, terms: "Terms", *, created_at: datetime, seen_at: datetime, now: datetime, unreturned: bool
    ) -> datetime:
        """Return when a session seen at *seen_at* ends, whichever clock runs out first."""
        idle = terms.idle_timeout or self.idle_timeout
        ends = [
            self.absolute_end(terms, created_at=created_at, now=now),
            seen_at + idle if idle else None,
            seen_at + self.first_life if unreturned else None,
        ]
        return min(end for end in ends if end is not None)

    def touch_is_due(self, terms: "Terms", *, seen_at: datetime, now: datetime) -> bool:
        """Return whether a session last seen at *seen_at* and again *now* is to be touched."""
        idle = terms.idle_timeout or self.idle_timeout
        interval = _LONGEST_TOUCH_INTERVAL if self.touch_interval is None else self.touch_interval
        if idle is not None and (self.touch_interval is None or terms.idle_timeout is not None):
            interval = min(interval, idle / 10)
        return now - seen_at >= interval

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> "Config":
        """
        Return a config from `SESSION_*` variables; *overrides* win.

        `SESSION_STORE=sqlite:///s.db`, `SESSION_IDLE_TIMEOUT=30m` (`ms`, `s`, `m`, `h`, `d`; a bare number is seconds;
        `none`), `SESSION_EXTRACTORS=cookie,header:X-Session`, `SESSION_SKIP=/static/*,/health`,
        `SESSION_MAX_SIZE=65536`. What takes code (`codec`, `on_error`, `on_gone`) is given here. A misspelt
        variable raises `ConfigError`.
        """
        environ = os.environ if environ is None else environ
        readers = _environment_readers()
        values: dict[str, Any] = {}
        for variable, text in environ.items():
            if variable in readers:
                name = variable.removeprefix("SESSION_").lower()
                try:
                    values[name] = readers[variable](text)
                except ValueError as error:
                    raise ConfigError(f"{variable}={text!r}: {error}") from None
            elif variable.startswith("SESSION_") and (near := difflib.get_close_matches(variable, readers, 1, 0.85)):
                raise ConfigError(f"{variable}: there is no such setting; did you mean {near[0]}?")
        return cls(**(values | overrides))


def check_span(name: str, value: object, *, least: timedelta = _SHORTEST) -> timedelta:
    """Return *value* if it is a timeout that can work, else raise `ConfigError`."""
    if not isinstance(value, timedelta):
        fix = f"timedelta(seconds={value})" if isinstance(value, (int, float)) else "timedelta(minutes=30)"
        _refuse(name, value, f"use a timedelta, such as {fix}")
    if not least <= value <= _LONGEST:
        _refuse(name, value, f"use something from {least} to {_LONGEST.days} days")
    return value


def _environment_readers() -> dict[str, Callable[[str], Any]]:
    kinds: tuple[tuple[str, Callable[[str], Any]], ...] = (
        ("timedelta", lambda text: None if text.lower() == "none" else _durations.parse(text)),
        ("int", lambda text: None if text.lower() == "none" else int(text)),
        ("Sequence", lambda text: tuple(part.strip() for part in text.split(",") if part.strip())),
    )
    readers: dict[str, Callable[[str], Any]] = {}
    for each in fields(Config):
        if not each.init or each.name in ("codec", "on_error", "on_gone"):
            continue
        readers[f"SESSION_{each.name.upper()}"] = next((read for kind, read in kinds if kind in str(each.type)), str)
    return readers


def _refuse(name: str, value: object, fix: str) -> NoReturn:
    raise ConfigError(f"{name}={value!r}: {fix}")


def _warn(message: str) -> None:
    warnings.warn(message, SessionWarning, stacklevel=5)
