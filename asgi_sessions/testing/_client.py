"""
A test client that is logged in, without a log-in form.

Rule 1: the session is made by the manager and travels by its extractors: what a test sees is what a browser gets.
Rule 2: a token that the client would not send back is an error here, not a riddle in the test.
"""

from email.message import Message
from typing import Any, Protocol
from urllib.parse import urlsplit
from urllib.request import Request

from anyio.from_thread import BlockingPortal, start_blocking_portal

from asgi_sessions._extractors import Answers, Bearer
from asgi_sessions._manager import SessionManager
from asgi_sessions._session import UserID
from asgi_sessions._types import Headers
from asgi_sessions.errors import ConfigError


class TestingClient(Protocol):
    """What a client needs: Starlette's `TestClient` and the clients of httpx and httpx2 have it."""

    @property
    def base_url(self) -> Any:
        """Where its requests go."""
        ...

    @property
    def cookies(self) -> Any:
        """Its cookies: a `CookieJar`, or something that has one as `jar`."""
        ...

    @property
    def headers(self) -> Any:
        """What it sends with each request."""
        ...


def logged_in(client: TestingClient, manager: SessionManager, user_id: UserID, /, **data: Any) -> str:
    """
    Log *client* in as *user_id*, with *data* in the session; return the session ID.

    For a client whose calls do not await, such as Starlette's `TestClient`, inside of a `with` block or without one.
    *manager* is the one that the middleware has: `SessionMiddleware(app, manager=manager)`.

        client = TestClient(app, base_url="https://testserver")
        logged_in(client, manager, user.id, cart=["book"])
    """
    portal: BlockingPortal | None = getattr(client, "portal", None)
    made: tuple[str, str]
    if portal is not None:  # the application runs on its loop, and has opened the store there
        made = portal.call(_log_in, manager, user_id, data)
    else:
        with start_blocking_portal() as passing:  # as a client without a loop of its own does for each request
            made = passing.call(_log_in_passing, manager, user_id, data)
    session_id, token = made
    _hand_over(client, manager, token)
    return session_id


async def logged_in_async(client: TestingClient, manager: SessionManager, user_id: UserID, /, **data: Any) -> str:
    """
    Log *client* in as *user_id*, with *data* in the session; return the session ID.

    For a client whose calls await, such as an `AsyncClient` of httpx or httpx2 over `ASGITransport`.

        async with httpx2.AsyncClient(transport=ASGITransport(app), base_url="https://testserver") as client:
            await logged_in_async(client, manager, user.id, cart=["book"])
    """
    session_id, token = await _log_in(manager, user_id, data)
    _hand_over(client, manager, token)
    return session_id


async def _log_in(manager: SessionManager, user_id: UserID, data: dict[str, Any]) -> tuple[str, str]:
    """Store a new session; return its ID and its token."""
    await manager.store.open()  # the application may have opened it on another loop only
    async with manager.open() as session:
        session.update(data)
        session.login(user_id)
        token = await session.save()
        if token is None:
            raise ConfigError(f"user_id={user_id!r}: was revoked at this instant; let the clock go on before")
        return session.id, token


async def _log_in_passing(manager: SessionManager, user_id: UserID, data: dict[str, Any]) -> tuple[str, str]:
    """Do it on a loop that ends now, and leave nothing open there."""
    try:
        return await _log_in(manager, user_id, data)
    finally:
        if not getattr(manager.store, "never_waits", False):  # one in this process has nothing on a loop
            await manager.store.close()


def _hand_over(client: TestingClient, manager: SessionManager, token: str) -> None:
    """Give *client* the token as a response would."""
    sources = manager.config.sources
    answering = next((way for way in sources if isinstance(way, Answers)), None)
    headers: Headers = []
    if answering is not None:
        answering.attach(headers, token, None)
    elif any(isinstance(way, Bearer) for way in sources):
        headers.append((b"authorization", f"Bearer {token}".encode()))
    else:
        raise ConfigError("extractors: a client can hold the token of cookie(), header() and bearer(), of no other")
    for name, value in headers:
        if name.lower() == b"set-cookie":
            _set_cookie(client, value.decode("ascii"), token)
        else:
            client.headers[name.decode("ascii")] = value.decode("ascii")


class _Response:
    """As much of a response as a `CookieJar` reads."""

    def __init__(self, line: str) -> None:
        self._headers = Message()
        self._headers["Set-Cookie"] = line

    def info(self) -> Message:
        return self._headers


def _set_cookie(client: TestingClient, line: str, token: str) -> None:
    """
    Put a cookie where a `Set-Cookie` of the application would, which then replaces it.

    Set by hand it would belong to no host, and stand beside the next one: two tokens in one request are none.
    """
    jar = getattr(client.cookies, "jar", client.cookies)
    url = str(client.base_url)
    if not urlsplit(url).netloc:
        raise ConfigError(f'base_url={url!r}: a cookie belongs to a host; use base_url="https://testserver"')
    jar.extract_cookies(_Response(line), Request(url))  # noqa: S310 - never opened, and the client's own
    path = next((cookie.path for cookie in jar if cookie.value == token), "/")
    request = Request(f"{urlsplit(url).scheme}://{urlsplit(url).netloc}{path}")  # noqa: S310 - the same
    jar.add_cookie_header(request)
    if token not in (request.get_header("Cookie") or ""):
        shown = line.replace(token, "…")
        raise ConfigError(
            f"base_url={url!r}: the client would not send the cookie back ({shown}): a Secure one needs https, one "
            'with a Domain a host in it; use base_url="https://testserver" for most'
        )
