"""
Sessions as FastAPI parameters.

    @app.get("/")
    async def home(session: CurrentSession) -> dict: ...
"""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends
from fastapi.requests import HTTPConnection

from asgi_sessions._middleware import session_from
from asgi_sessions._session import Session

__all__ = ["CurrentSession", "current_session", "session_from"]


def current_session(name: str = "session") -> Callable[[HTTPConnection], Awaitable[Session]]:
    """
    Return a dependency on the session of that *name*: `Annotated[Session, Depends(current_session("admin"))]`.

    It serves HTTP and WebSocket routes, plain `def` ones too, and loads a session of `Config(load="lazy")`.
    """

    async def dependency(connection: HTTPConnection) -> Session:
        session = session_from(connection, name)
        await session.load()
        return session

    return dependency


CurrentSession = Annotated[Session, Depends(current_session())]
"""The session of this request, as a parameter."""
