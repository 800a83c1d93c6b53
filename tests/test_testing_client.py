"""A client that is logged in before its first request, whatever it is made of and wherever it runs."""

import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import httpx
import httpx2
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from asgi_sessions import Config, SessionManager, SessionMiddleware, bearer, cookie, header, session_from
from asgi_sessions._extractors import Extractor
from asgi_sessions._types import ASGIApp
from asgi_sessions.errors import ConfigError, SessionWarning
from asgi_sessions.stores import MemoryStore
from asgi_sessions.testing import logged_in, logged_in_async

SECURE = "https://testserver"
ADA = {"user": "ada", "cart": ["book"]}


def me(request: Request) -> Response:
    """Show who asks, and what the session holds."""
    session = session_from(request)
    return JSONResponse({"user": session.user_id, **session})


def renew(request: Request) -> Response:
    """Replace the token."""
    session_from(request).regenerate()
    return Response()


def log_out(request: Request) -> Response:
    """End the session."""
    session_from(request).logout()
    return Response()


def app_with(manager: SessionManager) -> ASGIApp:
    """Return an application with the sessions of *manager*."""
    routes = [Route("/me", me), Route("/app/me", me), Route("/renew", renew), Route("/logout", log_out)]
    return Starlette(routes=routes, middleware=[Middleware(SessionMiddleware, manager=manager)])


@pytest.fixture(params=["memory:", "sqlite:///{}/sessions.db"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Name each store that comes with the package."""
    text: str = request.param
    return text.format(tmp_path)


def test_a_test_client_is_logged_in_before_its_first_request(url: str) -> None:
    """
    The session is bound to the user and holds the data, under the ID that is returned.
    """
    manager = SessionManager(Config(store=url))
    client = TestClient(app_with(manager), base_url=SECURE)

    id = logged_in(client, manager, "ada", cart=["book"])

    assert client.get("/me").json() == ADA
    assert len(id) == 22
    assert client.cookies["__Host-session"].startswith(f"{id}.")


def test_an_entered_test_client_is_logged_in_on_its_own_loop(url: str) -> None:
    """
    Inside of `with` the application has opened the store on the client's loop, and goes on using it there.
    """
    manager = SessionManager(Config(store=url))

    with TestClient(app_with(manager), base_url=SECURE) as client:
        logged_in(client, manager, "ada", cart=["book"])
        assert client.get("/me").json() == ADA


def test_another_client_may_be_logged_in_beside_an_entered_one(url: str) -> None:
    """
    A client that is not entered has no loop of the application's: its log-in opens the store on one of its own.
    """
    manager = SessionManager(Config(store=url))
    app = app_with(manager)

    with TestClient(app, base_url=SECURE) as client:
        other = TestClient(app, base_url=SECURE)
        id = logged_in(other, manager, "ada", cart=["book"])
        client.cookies.set("__Host-session", other.cookies["__Host-session"], domain="testserver.local")
        assert client.get("/me").json() == ADA
        assert id in client.cookies["__Host-session"]


def test_nothing_stays_open_on_a_loop_that_has_ended(tmp_path: Path) -> None:
    """
    The connections that the log-in has opened are closed with the loop they were opened on.
    """
    manager = SessionManager(Config(store=f"sqlite:///{tmp_path}/sessions.db"))
    before = set(threading.enumerate())

    logged_in(TestClient(app_with(manager), base_url=SECURE), manager, "ada")

    left = [each for each in threading.enumerate() if each not in before]
    for thread in left:
        thread.join(timeout=10)
    assert not [each for each in left if each.is_alive()]


def test_a_sync_client_may_be_logged_in_from_an_async_test(url: str) -> None:
    """
    A running loop in this thread is not in the way.
    """

    async def scenario() -> Any:
        manager = SessionManager(Config(store=url))
        client = TestClient(app_with(manager), base_url=SECURE)
        logged_in(client, manager, "ada", cart=["book"])
        return client.get("/me").json()

    assert anyio.run(scenario) == ADA


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("library", [httpx, httpx2])
async def test_an_async_client_is_logged_in(library: Any, url: str) -> None:
    """
    With httpx and httpx2 over their `ASGITransport`, where no lifespan runs.
    """
    manager = SessionManager(Config(store=url))
    transport = library.ASGITransport(app_with(manager))

    async with library.AsyncClient(transport=transport, base_url=SECURE) as client:
        await logged_in_async(client, manager, "ada", cart=["book"])
        assert (await client.get("/me")).json() == ADA

    await manager.store.close()


async def test_an_async_client_is_logged_in_on_either_loop() -> None:
    """
    The memory store serves trio, too.
    """
    manager = SessionManager()

    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app_with(manager)), base_url=SECURE) as client:
        await logged_in_async(client, manager, 7)
        assert (await client.get("/me")).json() == {"user": "7"}


def test_the_applications_own_cookie_replaces_it() -> None:
    """
    A new token takes the place of ours, and a log-out empties the jar: never two cookies of one name.
    """
    manager = SessionManager()
    client = TestClient(app_with(manager), base_url=SECURE)
    logged_in(client, manager, "ada", cart=["book"])
    ours = client.cookies["__Host-session"]

    client.get("/renew")

    assert client.cookies["__Host-session"] != ours
    assert len(client.cookies) == 1
    assert client.get("/me").json() == ADA
    client.get("/logout")
    assert not client.cookies
    assert client.get("/me").json() == {"user": None}


def test_a_second_log_in_replaces_the_first() -> None:
    """
    A test may change users.
    """
    manager = SessionManager()
    client = TestClient(app_with(manager), base_url=SECURE)

    logged_in(client, manager, "ada")
    logged_in(client, manager, "bob")

    assert client.get("/me").json() == {"user": "bob"}


@pytest.mark.parametrize(
    ("way", "base_url"),
    [
        (cookie("sid"), SECURE),
        (cookie(domain="example.com"), "https://www.example.com"),
        (cookie(path="/app"), SECURE),
        (cookie(persistent=True), SECURE),
        (header("X-Session"), SECURE),
        (header("X-Session"), "http://testserver"),
        (bearer(), SECURE),
    ],
)
def test_the_token_is_where_the_config_looks_for_it(way: Extractor, base_url: str) -> None:
    """
    A cookie of any form, a header, `Authorization`.
    """
    manager = SessionManager(Config(extractors=way))
    client = TestClient(app_with(manager), base_url=base_url)

    logged_in(client, manager, "ada")

    assert client.get("/app/me").json() == {"user": "ada"}


def test_a_cookie_without_secure_is_for_plain_http() -> None:
    """
    Who tests over `http://testserver` and has said so gets no error.
    """
    with pytest.warns(SessionWarning, match="secure=False"):
        manager = SessionManager(Config(extractors=cookie(secure=False)))
    client = TestClient(app_with(manager))

    logged_in(client, manager, "ada")

    assert client.get("/me").json() == {"user": "ada"}


def test_the_first_way_that_answers_is_the_one() -> None:
    """
    With several ways the token goes where a response would have put it.
    """
    manager = SessionManager(Config(extractors=(bearer(), header("X-Session"), cookie())))
    client = TestClient(app_with(manager), base_url=SECURE)

    logged_in(client, manager, "ada")

    assert "x-session" in client.headers
    assert "authorization" not in client.headers
    assert not client.cookies


@pytest.mark.parametrize("base_url", ["http://testserver", "http://127.0.0.1:8000"])
def test_a_secure_cookie_over_plain_http_is_an_error_that_names_the_fix(base_url: str) -> None:
    """
    The client would keep it and never send it: the test would fail far from the cause. No token is shown.
    """
    manager = SessionManager()
    client = TestClient(app_with(manager), base_url=base_url)

    with pytest.raises(ConfigError, match=r'use base_url="https://testserver"') as caught:
        logged_in(client, manager, "ada")

    assert "__Host-session=…" in str(caught.value)


def test_a_host_outside_of_the_cookies_domain_is_an_error() -> None:
    """
    The same for a domain that does not fit.
    """
    manager = SessionManager(Config(extractors=cookie(domain="example.com")))
    client = TestClient(app_with(manager), base_url=SECURE)

    with pytest.raises(ConfigError, match="would not send the cookie back"):
        logged_in(client, manager, "ada")


def test_a_client_without_a_host_is_an_error() -> None:
    """
    A cookie belongs to a host, and a client without `base_url` has none.
    """
    with httpx2.Client() as client, pytest.raises(ConfigError, match="a cookie belongs to a host"):
        logged_in(client, SessionManager(), "ada")


def test_a_way_that_a_client_cannot_hold_is_an_error() -> None:
    """
    A function may look anywhere, and there is nothing to be set.
    """
    manager = SessionManager(Config(extractors=lambda _: None))

    with pytest.raises(ConfigError, match="of no other"):
        logged_in(TestClient(app_with(manager), base_url=SECURE), manager, "ada")


async def test_a_log_in_at_the_instant_of_a_revocation_is_an_error() -> None:
    """
    Where a test's clock stands still, a user who was just revoked cannot log in: the test is told to let it go on.
    """
    noon = datetime(2030, 1, 1, 12, tzinfo=UTC)
    manager = SessionManager(Config(store=MemoryStore(clock=lambda: noon)), clock=lambda: noon)
    await manager.revoke(user_id="ada")

    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app_with(manager)), base_url=SECURE) as client:
        with pytest.raises(ConfigError, match="let the clock go on"):
            await logged_in_async(client, manager, "ada")
