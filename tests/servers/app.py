"""
The application that the tests of real servers run: whatever a request can do to a session, and when.

Rule 1: it waits for what a test tells it, never for a time.
"""

from collections import Counter
from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel
from fastapi import FastAPI, WebSocket
from fastapi.responses import StreamingResponse

from asgi_sessions import Config, SessionMiddleware
from asgi_sessions._types import ASGIApp, Receive, Scope, Send
from asgi_sessions.fastapi import CurrentSession

site = FastAPI()
site.add_middleware(SessionMiddleware, config=Config.from_env())


class Milestones:
    """What has happened in this process, for a test that waits for it."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._counts: Counter[str] = Counter()
        self._changed = anyio.Event()

    def reach(self, name: str) -> None:
        """Count one more of *name*."""
        self._counts[name] += 1
        self._changed.set()
        self._changed = anyio.Event()

    async def wait(self, name: str, count: int) -> None:
        """Return as soon as *name* was reached *count* times."""
        while self._counts[name] < count:
            await self._changed.wait()


milestones = Milestones()


class EndsNoticed:
    """Tells when the call of an application has ended: after that, nothing more is committed."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap *app*."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        try:
            await self.app(scope, receive, send)
        finally:
            milestones.reach(f"end of {scope.get('path')}")


app = EndsNoticed(site)


@site.get("/wait")
async def wait(name: str, count: int = 1) -> None:
    """Answer as soon as *name* was reached *count* times."""
    await milestones.wait(name, count)


@site.post("/release")
async def release() -> None:
    """Let the slow requests go on."""
    milestones.reach("release")


@site.post("/visit")
async def visit(session: CurrentSession) -> dict[str, object]:
    """Begin a session."""
    session["visited"] = True
    return session.copy()


@site.get("/session")
async def show(session: CurrentSession) -> dict[str, object]:
    """Return what the session holds."""
    return session.copy()


@site.post("/write/{key}/{value}")
async def write(session: CurrentSession, key: str, value: int) -> int:
    """Count, and set a key that no other client sets; return what that client had set before."""
    before: int = session.get(key, 0)
    session[key] = value
    session.increment("count")
    return before


@site.post("/slow/{key}")
async def slow(session: CurrentSession, key: str) -> None:
    """Change the session, and answer when released."""
    session[key] = True
    milestones.reach("slow")
    await milestones.wait("release", 1)


@site.post("/logout")
async def log_out(session: CurrentSession) -> None:
    """End the session."""
    session.logout()


@site.get("/stream")
async def stream(session: CurrentSession) -> StreamingResponse:
    """Change the session before the response starts, and two keys after it; then send without end."""

    async def body() -> AsyncIterator[bytes]:
        session["left"] = session["right"] = True
        while True:
            yield b"more"
            await anyio.lowlevel.checkpoint()

    session["asked"] = True
    return StreamingResponse(body())


@site.websocket("/socket")
async def socket(websocket: WebSocket, session: CurrentSession) -> None:
    """Keep each message in the session, and echo it."""
    await websocket.accept()
    async for message in websocket.iter_text():
        session.append("messages", message)
        await websocket.send_text(message)
