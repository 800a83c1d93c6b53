"""
What uses `request.session` without knowing whose it is: Authlib, sqladmin, starlette-admin, and the habits of others.

Rule 1: the real libraries run here, with the code their users write; what they rely on is not imitated.
"""

import copy
import json
import pickle
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import msgspec
import orjson
import pytest
from authlib.integrations.starlette_client import OAuth, OAuthError  # type: ignore[import-untyped]
from sqladmin import Admin as SQLAdmin
from sqladmin.authentication import AuthenticationBackend
from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import StaticPool
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, SimpleUser, requires
from starlette.authentication import AuthenticationBackend as StarlettesBackend
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.testclient import TestClient
from starlette_admin.auth import AdminUser, AuthProvider
from starlette_admin.contrib.sqla import Admin as StarletteAdmin

from asgi_sessions import Config
from asgi_sessions.errors import NotLoadedError, SessionError
from asgi_sessions.starlette import SessionMiddleware, session_from

Read = Callable[[Any], Any]


def show(request: Request) -> Response:
    """Show the session."""
    return JSONResponse(dict(request.session))


def put(request: Request) -> Response:
    """Put the query's parameters into the session."""
    request.session.update(request.query_params)
    return Response()


def serve(*routes: Route | Mount, inside: tuple[Middleware, ...] = (), **keywords: Any) -> TestClient:
    """Return a client of an application with sessions, which follows no redirect."""
    app = Starlette(
        routes=[Route("/show", show), Route("/put", put), *routes],
        middleware=[Middleware(SessionMiddleware, **keywords), *inside],
    )
    return TestClient(app, base_url="https://testserver", follow_redirects=False)


# Authlib


@pytest.fixture
def provider() -> Starlette:
    """Return an OAuth 2 provider that grants a token for a code and its PKCE verifier."""

    async def token(request: Request) -> Response:
        form = await request.form()
        if not form.get("code_verifier"):
            return JSONResponse({"error": "invalid_grant"}, 400)
        return JSONResponse({"access_token": f"for {form['code']}", "token_type": "Bearer"})

    return Starlette(routes=[Route("/token", token, methods=["POST"])])


@pytest.fixture
def client(provider: Starlette) -> TestClient:
    """Return a client of an application whose users log in at *provider* through Authlib."""
    oauth = OAuth()
    oauth.register(
        "house",
        client_id="us",
        client_secret="ours",
        authorize_url="https://provider.example/authorize",
        access_token_url="https://provider.example/token",
        client_kwargs={"transport": httpx2.ASGITransport(provider), "code_challenge_method": "S256"},
    )

    async def log_in(request: Request) -> Any:
        return await oauth.house.authorize_redirect(request, str(request.url_for("callback")))

    async def callback(request: Request) -> Response:
        try:
            token = await oauth.house.authorize_access_token(request)
        except OAuthError as error:
            return PlainTextResponse(error.error, 400)
        session_from(request).login(token["access_token"])
        return RedirectResponse("/show", 303)

    return serve(Route("/login", log_in), Route("/callback", callback, name="callback"))


def state_of(answer: Any) -> str:
    """Return the state that a redirect to the provider carries."""
    location: str = answer.headers["location"]
    return parse_qs(urlsplit(location).query)["state"][0]


def test_authlib_logs_a_user_in(client: TestClient) -> None:
    """
    Its state waits in the session while the browser is at the provider, and is gone when it is back.
    """
    client.get("/put?cart=book")
    state = state_of(client.get("/login"))
    waiting = client.get("/show").json()

    answer = client.get(f"/callback?code=c0de&state={state}")

    assert f"_state_house_{state}" in waiting
    assert answer.status_code == 303
    assert client.get("/show").json() == {"cart": "book"}


def test_authlib_logs_a_stranger_in_under_a_new_token(client: TestClient) -> None:
    """
    The redirect to the provider begins the session, the log-in replaces its token.
    """
    state = state_of(client.get("/login"))
    before = client.cookies["__Host-session"]

    client.get(f"/callback?code=c0de&state={state}")

    assert client.cookies["__Host-session"] != before
    assert client.get("/show").json() == {}


def test_authlib_refuses_the_state_of_another_browser(client: TestClient) -> None:
    """
    A callback with a state that this session does not hold is no log-in: what the state is for.
    """
    state = state_of(client.get("/login"))
    client.cookies.clear()
    client.get("/put?cart=book")

    answer = client.get(f"/callback?code=c0de&state={state}")

    assert (answer.status_code, answer.text) == (400, "mismatching_state")
    assert client.get("/show").json() == {"cart": "book"}


def test_authlib_keeps_the_state_of_the_last_attempt_only(client: TestClient) -> None:
    """
    It pops the keys of earlier attempts while it looks through them: the session holds one.
    """
    client.get("/login")
    state = state_of(client.get("/login"))

    assert list(client.get("/show").json()) == [f"_state_house_{state}"]


# sqladmin


class House(AuthenticationBackend):
    """Logs in as sqladmin's documentation says."""

    async def login(self, request: Request) -> bool:
        """Let everybody in by name."""
        form = await request.form()
        request.session.update({"user_id": form["username"]})
        return True

    async def logout(self, request: Request) -> bool:
        """Clear the session."""
        request.session.clear()
        return True

    async def authenticate(self, request: Request) -> bool:
        """Ask the session."""
        return "user_id" in request.session


@pytest.fixture
def engine() -> Engine:
    """Return a database in memory."""
    return create_engine("sqlite://", connect_args={"check_same_thread": False}, poolclass=StaticPool)


def sqladmin_with(backend: House, engine: Engine) -> TestClient:
    """Return a client of an application that has sqladmin inside."""
    client = serve()
    assert isinstance(client.app, Starlette)
    SQLAdmin(client.app, engine, authentication_backend=backend)
    return client


def is_inside(client: TestClient) -> bool:
    """Return whether the admin pages are open."""
    return client.get("/admin/").status_code == 200


def test_sqladmin_uses_the_applications_session(engine: Engine) -> None:
    """
    Without a middleware of its own the log-in of sqladmin is in the session around it, and ends with it.
    """
    backend = House("not used")
    backend.middlewares = []
    client = sqladmin_with(backend, engine)
    assert not is_inside(client)

    client.post("/admin/login", data={"username": "ada", "password": "x"})

    assert is_inside(client)
    assert client.get("/show").json() == {"user_id": "ada"}
    client.get("/admin/logout")
    assert not is_inside(client)
    assert set(client.cookies) == set()


def test_sqladmin_alone_may_have_sessions(engine: Engine) -> None:
    """
    Ours takes the place of Starlette's in the backend's list, for an application that has no sessions of its own.
    """
    backend = House("not used")
    backend.middlewares = [Middleware(SessionMiddleware, session_cookie="admin", path="/admin")]
    app = Starlette()
    SQLAdmin(app, engine, authentication_backend=backend)
    client = TestClient(app, base_url="https://testserver", follow_redirects=False)

    client.post("/admin/login", data={"username": "ada", "password": "x"})

    assert is_inside(client)
    assert set(client.cookies) == {"admin"}
    client.get("/admin/logout")
    assert not is_inside(client)


def test_sqladmin_with_starlettes_middleware_leaves_ours_alone(engine: Engine) -> None:
    """
    As it comes it has signed cookies of its own inside: it works, and the session around it is as it was.
    """
    client = sqladmin_with(House("a secret"), engine)
    client.get("/put?cart=book")
    ours = client.cookies["__Host-session"]

    client.post("/admin/login", data={"username": "ada", "password": "x"})

    assert is_inside(client)
    assert client.get("/show").json() == {"cart": "book"}
    client.get("/admin/logout")
    assert not is_inside(client)
    assert client.cookies["__Host-session"] == ours
    assert client.get("/show").json() == {"cart": "book"}


# starlette-admin


class Provider(AuthProvider):
    """Logs in as starlette-admin's documentation says."""

    async def login(self, username: str, password: str, remember_me: bool, request: Request) -> None:  # noqa: ARG002
        """Let everybody in by name."""
        request.session["username"] = username

    async def logout(self, request: Request) -> None:
        """Clear the session."""
        request.session.clear()

    async def authenticate(self, request: Request) -> AdminUser | None:
        """Ask the session."""
        username = request.session.get("username")
        return AdminUser(username=username) if username else None


def test_starlette_admin_logs_in_and_out(engine: Engine) -> None:
    """
    Its log-in is in the session, though it keeps a database session at `request.state.session`.
    """
    client = serve()
    assert isinstance(client.app, Starlette)
    StarletteAdmin(engine, auth_provider=Provider(), secret_key="signs its CSRF tokens").mount_to(client.app)
    client.get("/put?cart=book")
    assert client.get("/admin/").status_code == 303
    form = client.get("/admin/login").text
    (csrf,) = re.findall(r'name="csrftoken" value="([^"]+)"', form)

    client.post("/admin/login", data={"username": "ada", "password": "x", "csrftoken": csrf})

    assert client.get("/admin/").status_code == 200
    assert client.get("/show").json() == {"cart": "book", "username": "ada"}
    client.post("/admin/logout", headers={"X-CSRFToken": csrf})
    assert client.get("/admin/").status_code == 303
    assert client.get("/show").json() == {}


class BindingProvider(Provider):
    """Binds the session to the user, too."""

    async def login(self, username: str, password: str, remember_me: bool, request: Request) -> None:
        """Do so."""
        await super().login(username, password, remember_me, request)
        session_from(request).login(username)


def test_starlette_admin_may_bind_the_session_to_a_user(engine: Engine) -> None:
    """
    `session_from` finds the session although `request.state.session` is the database's there.
    """
    client = serve()
    assert isinstance(client.app, Starlette)
    StarletteAdmin(engine, auth_provider=BindingProvider(), secret_key="signs its CSRF tokens").mount_to(client.app)
    (csrf,) = re.findall(r'name="csrftoken" value="([^"]+)"', client.get("/admin/login").text)

    client.post("/admin/login", data={"username": "ada", "password": "x", "csrftoken": csrf})

    assert client.get("/show").json() == {"username": "ada"}


# Starlette's own authentication


class FromSession(StarlettesBackend):
    """Takes the user from the session, as applications do."""

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser] | None:
        """Ask the session."""
        user = session_from(conn).user_id
        return None if user is None else (AuthCredentials(["authenticated"]), SimpleUser(user))


def test_starlettes_authentication_finds_the_user() -> None:
    """
    `AuthenticationMiddleware` inside of ours, and `@requires` on a handler.
    """

    @requires("authenticated")
    def private(request: Request) -> Response:
        return PlainTextResponse(request.user.display_name)

    def log_in(request: Request) -> Response:
        session_from(request).login("ada")
        return Response()

    client = serve(
        Route("/private", private),
        Route("/login", log_in),
        inside=(Middleware(AuthenticationMiddleware, backend=FromSession()),),
    )

    assert client.get("/private").status_code == 403
    client.get("/login")
    assert client.get("/private").text == "ada"


# Habits

DATA = {"user": {"name": "ada", "roles": ["admin"]}, "count": 1}


def holding(data: dict[str, Any], *routes: Route, **keywords: Any) -> TestClient:
    """Return a client whose session holds *data*."""

    def fill(request: Request) -> Response:
        request.scope["session"].update(data)
        return Response()

    client = serve(Route("/fill", fill), *routes, **keywords)
    client.get("/fill")
    return client


READS: dict[str, Read] = {
    "dict": dict,
    "unpacking": lambda session: {**session},
    "or": lambda session: session | {},
    "or from the right": lambda session: {} | session,
    "copy": lambda session: session.copy(),
    "copy.copy": copy.copy,
    "copy.deepcopy": copy.deepcopy,
    "pickle": lambda session: pickle.loads(pickle.dumps(session)),  # noqa: S301 - what it was given
    "items": lambda session: dict(session.items()),
    "keys": lambda session: {key: session[key] for key in session},
    "json": lambda session: json.loads(json.dumps(session)),
    "json, indented": lambda session: json.loads(json.dumps(session, indent=1)),
    "orjson": lambda session: orjson.loads(orjson.dumps(session)),
    "msgspec": lambda session: msgspec.json.decode(msgspec.json.encode(session)),
    "match": lambda session: DATA if matches(session) else None,
    "keyword arguments": lambda session: as_keywords(**session),
}


def as_keywords(**values: Any) -> dict[str, Any]:
    """Return what it was called with."""
    return values


def matches(session: Any) -> bool:
    """Return whether a pattern finds the user's name."""
    match session:
        case {"user": {"name": "ada"}}:
            return True
    return False


@pytest.mark.parametrize("habit", READS)
def test_it_is_read_like_any_dict(habit: str) -> None:
    """
    Each way to read gives the whole of the data, plain, changes nothing, and counts as access.
    """
    results: list[Any] = []

    def read(request: Request) -> Response:
        results.append(READS[habit](request.session))
        return Response()

    client = holding(DATA, Route("/read", read))

    answer = client.get("/read")

    assert results == [DATA]
    assert type(results[0]) is dict
    assert answer.headers["vary"] == "Cookie"
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("habit", READS)
def test_a_session_that_is_not_loaded_is_never_taken_for_an_empty_one(habit: str) -> None:
    """
    Under `load="lazy"` each way to read fails before `await session.load()`, C code that looks past methods, too.
    """
    results: list[Any] = []

    def read(request: Request) -> Response:
        results.append(READS[habit](request.session))
        return Response()

    async def fill(request: Request) -> Response:
        session = session_from(request)
        await session.load()
        session.update(DATA)
        return Response()

    client = serve(Route("/begin", fill), Route("/read", read), config=Config(load="lazy"))
    client.get("/begin")

    with pytest.raises((SessionError, TypeError)) as caught:
        client.get("/read")

    assert results == []
    assert caught.type is NotLoadedError or habit in ("orjson", "msgspec")


CHANGES: dict[str, tuple[Callable[[Any], Any], dict[str, Any]]] = {
    "deep inside a dict": (lambda s: s["user"].update(name="bob"), {"user": {"name": "bob", "roles": ["admin"]}}),
    "deep inside a list": (lambda s: s["user"]["roles"].pop(), {"user": {"name": "ada", "roles": []}}),
    "setdefault, then append": (lambda s: s.setdefault("cart", []).append(1), {"cart": [1]}),
    "augmented": (lambda s: s.__ior__({"count": 2}), {"count": 2}),
    "update by keywords": (lambda s: s.update(count=3), {"count": 3}),
    "a value of another type that is equal": (lambda s: s.update(count=True), {"count": True}),
}


@pytest.mark.parametrize("habit", CHANGES)
def test_it_is_changed_like_any_dict(habit: str) -> None:
    """
    No flag to set, no `modified = True`: a change inside of a value is saved like one at the top.
    """
    change, changed = CHANGES[habit]

    def do(request: Request) -> Response:
        change(request.session)
        return Response()

    client = holding(DATA, Route("/do", do))
    client.get("/do")

    after = client.get("/show").json()

    assert json.dumps(after, sort_keys=True) == json.dumps(DATA | changed, sort_keys=True)


def test_keys_are_removed_as_from_any_dict() -> None:
    """
    `pop` with a default, `del`, `popitem`: also while one goes through a copy of the keys.
    """

    def do(request: Request) -> Response:
        session = request.session
        taken = [session.pop("a"), session.pop("a", None), session.popitem()]
        del session["b"]
        for key in list(session.keys()):
            if key.startswith("_old_"):
                session.pop(key)
        return JSONResponse(taken)

    client = holding({"a": 1, "b": 2, "_old_1": 3, "_old_2": 4, "c": 5, "last": 6}, Route("/do", do))

    assert client.get("/do").json() == [1, None, ["last", 6]]
    assert client.get("/show").json() == {"c": 5}


def test_clear_logs_out() -> None:
    """
    The cookie is deleted and the old token opens nothing, wherever it was kept.
    """

    def log_out(request: Request) -> Response:
        request.session.clear()
        return RedirectResponse("/show")

    client = holding(DATA, Route("/logout", log_out))
    kept = client.cookies["__Host-session"]

    client.get("/logout")

    assert not client.cookies
    client.cookies.set("__Host-session", kept)
    assert client.get("/show").json() == {}
