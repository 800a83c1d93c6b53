"""What the core's tests share: a clock that stands still, a store that can be watched, a client that speaks ASGI."""

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from asgi_sessions import Config, Issue, Limit, Record, SessionManager
from asgi_sessions._types import ASGIApp, Message, Receive, Scope, Send
from asgi_sessions.stores import MemoryStore

T0 = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Clock:
    """The time, where a test sets it."""

    def __init__(self) -> None:
        self.now = T0

    def __call__(self) -> datetime:
        """Return it."""
        return self.now

    def advance(self, **span: float) -> None:
        """Let it go on."""
        self.now += timedelta(**span)


class TappedStore:
    """
    A memory store whose calls can be counted, held up and cut, as those over a network can.

    `before[verb]` is awaited ahead of a call, `after[verb]` when it has been carried out; both may raise. It waits, so
    that the manager gives it a deadline and a shield.
    """

    limits_users = True

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self.inner = MemoryStore(clock=clock)
        self.calls: Counter[str] = Counter()
        self.before: dict[str, Callable[[], Awaitable[object]]] = {}
        self.after: dict[str, Callable[[], Awaitable[object]]] = {}

    async def _call(self, verb: str, call: Awaitable[Any]) -> Any:
        self.calls[verb] += 1
        try:
            if hook := self.before.get(verb):
                await hook()
        except BaseException:
            call.close()  # type: ignore[attr-defined]
            raise
        result = await call
        if hook := self.after.get(verb):
            await hook()
        return result

    async def open(self) -> None:
        """Open it."""
        if hook := self.before.get("open"):
            await hook()
        await self.inner.open()

    async def close(self) -> None:
        """Close it."""
        await self.inner.close()

    async def ping(self) -> None:
        """Answer."""
        await self.inner.ping()

    async def load(self, id: str) -> Record | None:
        """Call `load`."""
        found: Record | None = await self._call("load", self.inner.load(id))
        return found

    async def load_many(self, ids: Sequence[str]) -> list[Record | None]:
        """Call `load_many`."""
        found: list[Record | None] = await self._call("load_many", self.inner.load_many(ids))
        return found

    async def create(self, record: Record, *, limit: Limit | None = None) -> bool:
        """Call `create`."""
        stands: bool = await self._call("create", self.inner.create(record, limit=limit))
        return stands

    async def update(self, record: Record, *, expected: int, limit: Limit | None = None) -> Record | None:
        """Call `update`."""
        held: Record | None = await self._call("update", self.inner.update(record, expected=expected, limit=limit))
        return held

    async def touch(self, id: str, *, expires_at: datetime, seen_at: datetime, expected: int) -> bool:
        """Call `touch`."""
        call = self.inner.touch(id, expires_at=expires_at, seen_at=seen_at, expected=expected)
        touched: bool = await self._call("touch", call)
        return touched

    async def delete(self, id: str, *, expected: int | None = None) -> bool:
        """Call `delete`."""
        deleted: bool = await self._call("delete", self.inner.delete(id, expected=expected))
        return deleted

    def records(self, *, user_id: str | None = None) -> AsyncGenerator[Record]:
        """Call `records`."""
        self.calls["records"] += 1
        return self.inner.records(user_id=user_id)

    async def delete_user(self, user_id: str, *, keep: str | None = None) -> int:
        """Call `delete_user`."""
        count: int = await self._call("delete_user", self.inner.delete_user(user_id, keep=keep))
        return count

    async def delete_all(self) -> int:
        """Call `delete_all`."""
        count: int = await self._call("delete_all", self.inner.delete_all())
        return count

    async def sweep(self, *, limit: int) -> int:
        """Call `sweep`."""
        count: int = await self._call("sweep", self.inner.sweep(limit=limit))
        return count


def broken(error: Exception | None = None) -> Callable[[], Awaitable[object]]:
    """Return a hook that raises, as a driver does whose server is gone."""

    async def hook() -> None:
        raise error or ConnectionResetError("the server is gone")

    return hook


@asynccontextmanager
async def opened(config: Config, clock: Clock) -> AsyncIterator[SessionManager]:
    """Open a manager whose clock is the test's."""
    async with SessionManager(config, clock=clock) as manager:
        yield manager


@dataclass
class Reply:
    """What an application sent."""

    messages: list[Message] = field(default_factory=list)

    @property
    def status(self) -> int:
        """The status of the one response there must be."""
        (start,) = (each for each in self.messages if each["type"].endswith("http.response.start"))
        status: int = start["status"]
        return status

    @property
    def body(self) -> bytes:
        """The whole body."""
        return b"".join(each.get("body", b"") for each in self.messages if each["type"].endswith("http.response.body"))

    def header(self, name: str) -> list[str]:
        """Return every value of a response header."""
        return [
            value.decode("latin-1")
            for message in self.messages
            for key, value in message.get("headers", ())
            if key.decode().lower() == name.lower()
        ]

    @property
    def token(self) -> str | None:
        """The token of the one session cookie sent; "" where it was expired, None where none was sent."""
        lines = self.header("set-cookie")
        assert len(lines) <= 1, lines
        return lines[0].partition(";")[0].partition("=")[2] if lines else None


def http_scope(token: str | None = None, *, headers: Sequence[tuple[bytes, bytes]] = (), **more: Any) -> Scope:
    """Return the scope of a GET over TLS."""
    cookies = [(b"cookie", f"__Host-session={token}".encode())] if token else []
    scope = {
        "type": "http",
        "scheme": "https",
        "method": "GET",
        "path": "/",
        "query_string": b"",
        "headers": [(b"host", b"testserver"), *cookies, *headers],
    }
    return scope | more


async def call(app: ASGIApp, scope: Scope, *incoming: Message) -> Reply:
    """Run *app* once and return what it sent; it receives *incoming*, then a disconnect."""
    reply, pending = Reply(), list(incoming)
    last = "websocket.disconnect" if scope["type"] == "websocket" else "http.disconnect"

    async def receive() -> Message:
        return pending.pop(0) if pending else {"type": last, "code": 1000}

    async def send(message: Message) -> None:
        reply.messages.append(message)

    await app(scope, receive, send)
    return reply


def handler(work: Callable[[Any], Any]) -> ASGIApp:
    """Return an application that answers 200 "ok" when *work* has been done on its session."""

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        outcome = work(scope["session"])
        if isinstance(outcome, Awaitable):
            await outcome
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"ok"})

    return app


async def begin(manager: SessionManager, user: str | None = None, **data: Any) -> str:
    """Make a session and return its token; no call of it is counted."""
    session = await manager.load()
    session.update(data)
    if user is not None:
        session.login(user)
    answer = await manager.commit(session)
    assert isinstance(answer, Issue)
    store: Any = manager.store
    store.calls.clear()
    return answer.token


async def read(manager: SessionManager, token: str) -> dict[str, Any] | None:
    """Return the data that *token* opens now, None if it opens nothing."""
    session = await manager.load(token)
    return None if session.is_new or session.is_gone else session.copy()
