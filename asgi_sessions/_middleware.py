"""
The only file that knows ASGI messages.

Rule 1: it moves messages; what a session needs is the manager's to decide, how a token travels an extractor's.
Rule 2: a stranger costs no store call; a skipped request costs nothing at all.
"""

import fnmatch
import math
import re
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

import anyio

from asgi_sessions._config import Config
from asgi_sessions._draft import Issue
from asgi_sessions._events import Event, logger
from asgi_sessions._extractors import Answers, Cookie, Found, find
from asgi_sessions._headers import add_vary, forbid_storing
from asgi_sessions._manager import SessionManager
from asgi_sessions._session import Session
from asgi_sessions._types import ASGIApp, Headers, Message, Receive, Scope, Send
from asgi_sessions.errors import (
    CommitConflictError,
    ConfigError,
    MiddlewareMissingError,
    SessionError,
    SessionWarning,
    StoreUnavailableError,
    TooManySessionsError,
)

_RESPONSE_STARTS = frozenset(
    {"http.response.start", "websocket.accept", "websocket.http.response.start", "websocket.close"}
)
_STATUSES: tuple[tuple[type[SessionError], int], ...] = (
    (StoreUnavailableError, 503),
    (CommitConflictError, 409),
    (TooManySessionsError, 403),
)
_ANSWERED = tuple(kind for kind, _ in _STATUSES)
_TRY_AGAIN_LATER = 1013  # WebSocket close code, RFC 6455 registry
_SERVER_ERROR = 500
_ENDED = "The request has ended, and saved what it changed: `manager.open_id(id)` opens it again."


class SessionMiddleware:
    """
    Gives each request its session: `scope["session"]`, `request.session`, `request.state.session`.

    Args:
        app: the application inside.
        config: the settings; all defaults where it is left out.
        manager: a manager made beforehand, where handlers or jobs use it, too; it brings its own config.
    """

    def __init__(self, app: ASGIApp, config: Config | None = None, *, manager: SessionManager | None = None) -> None:
        """Wrap *app*. The store is opened when the application starts, or by the first request that needs it."""
        if config is not None and manager is not None:
            message = "SessionMiddleware: give it a config or a manager, not both; SessionManager(config) takes one"
            raise ConfigError(message)
        self.app = app
        self.manager: SessionManager = manager or SessionManager(config)
        self.config: Config = self.manager.config
        self._skips = _predicate(self.config)
        self._vary = tuple(way.vary for way in self.config.sources if way.vary is not None)
        self._answering = {id(way): way for way in self.config.sources if isinstance(way, Answers)}
        self._has_warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif scope["type"] not in ("http", "websocket") or self._skips(scope):
            await self.app(scope, receive, send)
        else:
            found = find(self.config.sources, scope)
            session = self.manager.defer(found.token)
            if self.config.load == "eager":
                await self.manager.fill(session)
            if found.ambiguous:
                session._ambiguous = True
                self.manager.events.emit(Event("ambiguous_token"), "two tokens in one request; see `__Host-` cookies")
            self._expose(scope, session)
            await _Exchange(self, scope, receive, send, session, found).run()

    def _expose(self, scope: Scope, session: Session) -> None:
        name, state = self.config.name, scope.setdefault("state", {})
        for place, held in (("scope", scope), ("request.state", state)):
            if name in held:
                message = (
                    f"name={name!r}: {place} has a {type(held[name]).__name__} there, of another SessionMiddleware or "
                    "of the application; give this Config a name of its own"
                )
                raise ConfigError(message)
        scope[name] = state[name] = session

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Open the store before the application starts, sweep while it runs, close after it has stopped."""
        try:
            await self.manager.__aenter__()
        except ConfigError as error:
            await receive()
            await send({"type": "lifespan.startup.failed", "message": f"asgi_sessions: {error}"})
            return
        errors: list[Exception] = []
        sweeping = anyio.CancelScope()
        is_closed = False

        async def sweep() -> None:
            with sweeping:
                await self.manager.sweep_forever()

        async def send_after_close(message: Message) -> None:
            nonlocal is_closed
            if message["type"].startswith("lifespan.shutdown."):  # the server may end us as soon as it has this
                is_closed = True
                sweeping.cancel()
                await self.manager.__aexit__()
            await send(message)

        try:
            async with anyio.create_task_group() as group:
                group.start_soon(sweep)
                try:
                    await self.app(scope, receive, send_after_close)
                except Exception as error:  # noqa: BLE001 - raised below, where no task group wraps it
                    errors.append(error)
                sweeping.cancel()
        finally:
            if not is_closed:
                await self.manager.__aexit__()
        if errors:
            raise errors[0]

    def warn_if_dropped(self, way: object, scope: Scope) -> None:
        """Say once that a browser will drop a `Secure` cookie that comes over plain HTTP from another machine."""
        plain = scope.get("scheme") in ("http", "ws")
        if self._has_warned or not plain or not (isinstance(way, Cookie) and way.secure):
            return
        host = next((value.decode("latin-1") for key, value in scope["headers"] if key == b"host"), "")
        if not _is_loopback(host):
            self._has_warned = True
            message = (
                f"The cookie {way.name!r} is Secure, and this request to {host!r} came over plain http: the client "
                'drops it. In tests, use TestClient(app, base_url="https://testserver"); behind a proxy, make the '
                "server trust its forwarded headers; without TLS at all, use cookie(secure=False)."
            )
            warnings.warn(message, SessionWarning, stacklevel=2)


class _ReplacedError(OSError):
    """Ends a handler whose answer has been replaced by an error, as a vanished client would."""


class _Exchange:
    """One request on its way: what has been sent decides what can still be done."""

    def __init__(  # noqa: PLR0913, PLR0917 - what a request consists of
        self, middleware: SessionMiddleware, scope: Scope, receive: Receive, send: Send, session: Session, found: Found
    ) -> None:
        self.middleware, self.manager, self.config = middleware, middleware.manager, middleware.config
        self.scope, self.receive, self.raw_send = scope, receive, send
        self.session, self.found = session, found
        self.is_websocket = scope["type"] == "websocket"
        self.is_over = False
        self.has_failed = False
        self.replaced: _ReplacedError | None = None

    async def run(self) -> None:
        """Run the application, commit on the way, and settle what is left at its end."""
        session = self.session
        try:
            await self.middleware.app(self.scope, self.receive, self.send)
        except Exception as error:
            if self.replaced is not None and _stems_from(error, self.replaced):
                if error is not self.replaced:
                    logger.info("The handler ended with its answer, which had been replaced", exc_info=error)
                return
            told = _told(error)
            if told is not None and self._can_replace():
                if told is not error:
                    logger.error("A group of errors is answered as one of them", exc_info=error)
                await self.manager.abandon(session)
                await self._replace(told)
                return
            await self._settle()
            raise
        except BaseException:
            await self._settle()
            raise
        else:
            await self._settle()
        finally:
            session._closed = _ENDED

    async def send(self, message: Message) -> None:
        """Pass *message* on; before the one that starts the response, commit."""
        if self.replaced is not None:
            raise self.replaced
        if message["type"] in _RESPONSE_STARTS and not self.session._started:
            message = await self._start(message)
        if message["type"] == "websocket.close":
            self.is_over = True
        await self.raw_send(message)

    async def _start(self, message: Message) -> Message:
        session = self.session
        failure = session._seal
        if isinstance(failure, StoreUnavailableError) and session._accessed and _is_server_error(message):
            raise await self._replace(failure) from failure
        way = self._way()
        session._deliverable = way is not None and message["type"] != "websocket.close"
        try:
            answer = await self.manager.commit(session)
            self.has_failed = False
        except _ANSWERED as error:
            raise await self._replace(error) from error
        except SessionError:
            if not self.has_failed:
                self.has_failed = True
                raise
            await self.manager.abandon(session)  # this is the error page, which goes out without what cannot be saved
            answer, session._answer = session._answer, None
        if session._dropped and self.config.on_gone is not None:
            self.replaced = _ReplacedError("The session had ended, and the client has been told so.")
            await self._answer(self.config.on_gone(self.scope))
            raise self.replaced
        session._started = True
        if message["type"] == "websocket.close" or (answer is None and not session._accessed):
            return message
        headers: Headers = list(message.get("headers", ()))  # a copy: the response may be used again for someone else
        if answer is not None and way is not None:
            if isinstance(answer, Issue):
                self.middleware.warn_if_dropped(way, self.scope)
                way.attach(headers, answer.token, answer.max_age)
            else:
                way.expire(headers)
        add_vary(headers, self.middleware._vary)
        if answer is not None or (session._was_bound and self.config.no_store == "bound"):
            forbid_storing(headers)
        return {**message, "headers": headers}

    def _way(self) -> Answers | None:
        """Return how a token goes back: the way it came; a new session's, the first that can."""
        answering = self.middleware._answering
        return answering.get(id(self.found.way)) if self.session._came_known else next(iter(answering.values()), None)

    async def _settle(self) -> None:
        """Commit what was changed after the response had started; without a response only carry out what was ended."""
        session = self.session
        session._closed = _ENDED  # before the last commit: what comes during it would not be saved
        if self.replaced is not None or not session._started or self.has_failed:
            await self.manager.abandon(session)
            return
        session._deliverable = False
        with suppress(StoreUnavailableError):  # logged where it arose; nobody is left to tell
            await self.manager.commit(session)

    def _can_replace(self) -> bool:
        return not self.session._started or (self.is_websocket and not self.is_over)

    async def _replace(self, error: SessionError) -> _ReplacedError:
        """Answer with *error* in place of the handler, of whose answer nothing leaves; return what ends it."""
        self.replaced = replaced = _ReplacedError("The session could not be stored, and the client has been told so.")
        status = next(status for kind, status in _STATUSES if isinstance(error, kind))
        if self.config.on_error is not None:
            await self._answer(self.config.on_error(self.scope, error))
        else:
            await self._answer(_plain(status, str(error), math.ceil(self.config.store_timeout.total_seconds())))
        return replaced

    async def _answer(self, app: ASGIApp) -> None:
        if self.is_websocket and (
            self.session._started or "websocket.http.response" not in self.scope.get("extensions", {})
        ):
            await self.raw_send({"type": "websocket.close", "code": _TRY_AGAIN_LATER})
        else:
            await app(self.scope, self.receive, self._send_unstored)

    async def _send_unstored(self, message: Message) -> None:
        """Pass on what answers in place of the handler: it depends on the session, and is nobody else's."""
        if message["type"] in _RESPONSE_STARTS:
            headers: Headers = list(message.get("headers", ()))
            add_vary(headers, self.middleware._vary)
            forbid_storing(headers)
            message = {**message, "headers": headers}
        await self.raw_send(message)


class _HasScope(Protocol):
    @property
    def scope(self) -> Any: ...


def session_from(connection: _HasScope, name: str = "session") -> Session:
    """
    Return the session of a request or WebSocket, of Starlette, FastAPI or whatever has a `scope`.

    Counts as access, as `request.session` does. *name* is the `Config`'s.
    """
    session = connection.scope.get(name)
    if not isinstance(session, Session):  # what runs inside may have put its own there
        session = connection.scope.get("state", {}).get(name)
    if not isinstance(session, Session):
        message = (
            f"There is no session {name!r} in this request. Add SessionMiddleware to the application to use sessions: "
            "outside of every middleware that uses them, which with `add_middleware` means after them; "
            "and see that `skip` does not name this path."
        )
        raise MiddlewareMissingError(message)
    session.mark_accessed()
    return session


def _predicate(config: Config) -> Callable[[Scope], bool]:
    skip = config.skip
    if skip is None:
        return lambda _: False
    if callable(skip):
        return skip
    matches = re.compile("|".join(fnmatch.translate(pattern) for pattern in skip) or r"(?!)").match
    return lambda scope: matches(scope["path"]) is not None


def _plain(status: int, text: str, retry_after: int) -> ASGIApp:
    """Return an application that answers with *text*, and when to try again."""
    body = f"{text}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", str(retry_after).encode()),
    ]

    async def answer(scope: Scope, _: Receive, send: Send) -> None:
        prefix = "websocket." if scope["type"] == "websocket" else ""
        await send({"type": f"{prefix}http.response.start", "status": status, "headers": headers})
        await send({"type": f"{prefix}http.response.body", "body": body})

    return answer


def _is_server_error(message: Message) -> bool:
    return int(message.get("status", 0)) >= _SERVER_ERROR


def _is_loopback(host: str) -> bool:
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
    return name in ("localhost", "[::1]") or name.endswith(".localhost") or name.startswith("127.")


def _told(error: BaseException) -> SessionError | None:
    """Return the error that a client is told of: *error*, or one in the group that it is."""
    if isinstance(error, BaseExceptionGroup):
        return next((found for found in map(_told, error.exceptions) if found is not None), None)
    return error if isinstance(error, _ANSWERED) else None


def _stems_from(error: BaseException, origin: BaseException) -> bool:
    """Return whether *error* is *origin*, or was raised because of it, alone or in a group."""
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        each = pending.pop()
        if each is origin:
            return True
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            pending += [each.__cause__, each.__context__, *getattr(each, "exceptions", ())]
    return False
