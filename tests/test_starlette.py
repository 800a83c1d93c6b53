"""Starlette: its keywords for `SessionMiddleware`, and all the ways in which its applications reach a session."""

import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware as StarlettesOwn
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

from asgi_sessions import Config, Session, SessionManager
from asgi_sessions import SessionMiddleware as OurOwn
from asgi_sessions._extractors import Cookie
from asgi_sessions.errors import ConfigError, MiddlewareMissingError, ResponseStartedError, SessionWarning
from asgi_sessions.starlette import SessionMiddleware, session_from


def count(request: Request) -> Response:
    """Count this client's requests, in a plain function."""
    request.session["count"] = request.session.get("count", 0) + 1
    return JSONResponse(dict(request.session))


def show(request: Request) -> Response:
    """Show the session."""
    return JSONResponse(dict(request.session))


def log_out(request: Request) -> Response:
    """Log out, as Starlette applications do."""
    request.session.clear()
    return PlainTextResponse("bye")


def hello(_: Request) -> Response:
    """Ask for no session."""
    return PlainTextResponse("hello " * 200)


ROUTES = [Route("/count", count), Route("/show", show), Route("/logout", log_out), Route("/hello", hello)]


def serve(*routes: Route | WebSocketRoute | Mount, inside: tuple[Middleware, ...] = (), **keywords: Any) -> TestClient:
    """Return a client of an application that has a session in each request."""
    return visit(Starlette(routes=[*ROUTES, *routes], middleware=[Middleware(SessionMiddleware, **keywords), *inside]))


def visit(app: Starlette, **keywords: Any) -> TestClient:
    """Return a client that takes `Secure` cookies."""
    return TestClient(app, base_url="https://testserver", **keywords)


def made(**keywords: Any) -> Config:
    """Return the config that Starlette's keywords make."""
    return SessionMiddleware(Starlette(), **keywords).config


def the_cookie(config: Config) -> Cookie:
    """Return the one way of *config*, a cookie."""
    (way,) = config.sources
    assert isinstance(way, Cookie)
    return way


# Its keywords


def test_the_keywords_are_starlettes_own_in_its_order() -> None:
    """
    A call written for Starlette's middleware, by position or by name, means the same here.
    """
    theirs = list(inspect.signature(StarlettesOwn.__init__).parameters)

    ours = list(inspect.signature(SessionMiddleware.__init__).parameters)

    assert ours[: len(theirs)] == theirs


def install_by_list(keywords: dict[str, Any]) -> Starlette:
    """Install it as a member of a list."""
    return Starlette(routes=ROUTES, middleware=[Middleware(SessionMiddleware, **keywords)])


def install_by_method(keywords: dict[str, Any]) -> Starlette:
    """Install it by `add_middleware`."""
    app = Starlette(routes=ROUTES)
    app.add_middleware(SessionMiddleware, **keywords)
    return app


@pytest.mark.parametrize("install", [install_by_list, install_by_method])
def test_changing_the_import_is_the_whole_migration(install: Callable[[dict[str, Any]], Starlette]) -> None:
    """
    What was written for Starlette's middleware runs, and the cookie holds a token in place of the data.
    """
    client = visit(install({"secret_key": "not used", "session_cookie": "sid", "max_age": 3600, "https_only": True}))

    first, second = client.get("/count"), client.get("/count")

    assert [first.json(), second.json()] == [{"count": 1}, {"count": 2}]
    line = first.headers["set-cookie"]
    assert line.startswith("sid=")
    assert {"HttpOnly", "Secure", "SameSite=Lax", "Path=/"} <= set(line.split("; "))
    assert "set-cookie" not in second.headers


def test_a_secret_key_alone_gives_every_safe_default() -> None:
    """
    Nothing but the key written: the settings are those of a plain `Config`.
    """
    config, plain = made(secret_key="x"), Config()

    assert config.sources == plain.sources
    assert (config.idle_timeout, config.absolute_timeout) == (plain.idle_timeout, plain.absolute_timeout)
    assert the_cookie(config).name == "__Host-session"


def test_the_cookie_is_called_exactly_as_written() -> None:
    """
    `session_cookie` is the name on the wire; handlers still find the session at `request.session`.
    """
    config = made(session_cookie="sid")

    assert the_cookie(config).name == "sid"
    assert config.name == "session"


def test_what_is_written_about_the_cookie_reaches_it() -> None:
    """
    `path`, `same_site`, `domain` and `partitioned` are attributes of the cookie.
    """
    config = made(session_cookie="s", path="/app", same_site="strict", domain="example.com", partitioned=True)

    assert the_cookie(config) == Cookie(
        "s", path="/app", samesite="strict", domain="example.com", partitioned=True, secure=True, persistent=False
    )


def test_the_strongest_prefix_that_fits_is_the_default_name() -> None:
    """
    A domain or a path rules `__Host-` out, and the cookie says so by its name.
    """
    assert the_cookie(made(domain="example.com")).name == "__Secure-session"
    assert the_cookie(made(path="/app")).name == "__Secure-session"


def test_https_only_false_is_obeyed_when_written_and_only_then() -> None:
    """
    Plain HTTP needs a word, and the word gets a warning.
    """
    with pytest.warns(SessionWarning, match="secure=False"):
        config = made(https_only=False)

    assert not the_cookie(config).secure
    assert the_cookie(config).name == "session"
    assert the_cookie(made()).secure


def test_max_age_is_the_idle_timeout_and_keeps_the_cookie() -> None:
    """
    Two weeks mean two weeks without a request, in a cookie that the browser keeps.
    """
    config = made(max_age=14 * 24 * 60 * 60)

    assert (config.idle_timeout, config.absolute_timeout) == (timedelta(days=14), timedelta(days=14))
    assert the_cookie(config).persistent


def test_a_short_max_age_does_not_end_busy_sessions() -> None:
    """
    A minute is the idle timeout alone: who is busy stays for the day that is the default.
    """
    config = made(max_age=60)

    assert (config.idle_timeout, config.absolute_timeout) == (timedelta(minutes=1), timedelta(hours=24))


def test_max_age_none_is_a_cookie_that_ends_with_the_browser() -> None:
    """
    None written says what is the default here.
    """
    client = serve(max_age=None)

    assert "Max-Age" not in client.get("/count").headers["set-cookie"]
    assert made(max_age=None).idle_timeout == Config().idle_timeout


def test_a_written_max_age_reaches_the_browser() -> None:
    """
    The browser keeps the cookie for as long as the session can last.
    """
    line = serve(max_age=172800).get("/count").headers["set-cookie"]

    (age,) = [int(part.removeprefix("Max-Age=")) for part in line.split("; ") if part.startswith("Max-Age=")]
    assert 172700 < age <= 172800


@pytest.mark.parametrize("max_age", [0, -1, "3600", True, nan, inf, 1e20, timedelta(hours=1)])
def test_a_max_age_that_cannot_work_is_refused_by_its_name(max_age: Any) -> None:
    """
    The error speaks of what was written, not of what it would have become.
    """
    with pytest.raises(ConfigError, match=r"^max_age="):
        made(max_age=max_age)


@pytest.mark.parametrize("broken", [{"https_only": False}, {"domain": "example.com"}, {"path": "/app"}])
def test_a_name_whose_prefix_is_broken_is_refused(broken: dict[str, Any]) -> None:
    """
    A `__Host-` cookie that browsers would drop never gets that far.
    """
    with pytest.raises(ConfigError, match="__Host-"):
        made(session_cookie="__Host-sid", **broken)


def test_the_store_is_written_or_of_the_environment_or_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    A deployment chooses by `SESSION_STORE`; what stands in the code wins.
    """
    monkeypatch.delenv("SESSION_STORE", raising=False)
    assert made().store == "memory:"

    monkeypatch.setenv("SESSION_STORE", f"sqlite:///{tmp_path}/s.db")
    assert made().store == f"sqlite:///{tmp_path}/s.db"
    assert made(store="memory:").store == "memory:"


def test_several_workers_without_a_shared_store_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Cookies needed no shared store; who comes from there is told before users are logged out at random.
    """
    monkeypatch.setenv("WEB_CONCURRENCY", "4")

    with pytest.warns(SessionWarning, match="4 workers"), serve(secret_key="x"):
        pass


def test_a_config_or_a_manager_stands_in_place_of_the_keywords() -> None:
    """
    Who moves on to our own words keeps the import.
    """
    config = Config(name="other")
    manager = SessionManager(config)

    assert SessionMiddleware(Starlette(), config=config).config is config
    assert SessionMiddleware(Starlette(), manager=manager).manager is manager
    assert SessionMiddleware(Starlette(), secret_key="x", config=config).config is config


@pytest.mark.parametrize("written", [{"max_age": 60}, {"session_cookie": "sid"}, {"store": "memory:"}, {"path": "/a"}])
@pytest.mark.parametrize("beside", [{"config": Config()}, {"manager": SessionManager()}])
def test_two_sources_of_one_setting_are_refused(written: dict[str, Any], beside: dict[str, Any]) -> None:
    """
    A keyword beside a config is neither dropped nor merged in silence.
    """
    with pytest.raises(ConfigError, match="config or a manager"):
        made(**written, **beside)


@pytest.mark.parametrize("store", ["memory:", "sqlite:///{}/s.db"])
def test_each_request_may_have_an_event_loop_of_its_own(store: str, tmp_path: Path) -> None:
    """
    A TestClient that is not entered runs every request on a new loop, and no lifespan: the session goes along.
    """
    client = serve(store=store.format(tmp_path))

    counts = [client.get("/count").json()["count"] for _ in range(5)]
    client.get("/logout")

    assert counts == [1, 2, 3, 4, 5]
    assert client.get("/count").json() == {"count": 1}


def test_loops_that_have_ended_leave_no_thread_behind(tmp_path: Path) -> None:
    """
    What SQLite needed on the loop of one request is gone when the next one runs.
    """
    client = serve(store=f"sqlite:///{tmp_path}/s.db")
    before = set(threading.enumerate())
    client.get("/count")
    passing = [each for each in threading.enumerate() if each not in before]

    client.get("/count")

    for thread in passing:
        thread.join(timeout=10)
    assert passing
    assert not [each for each in passing if each.is_alive()]


def test_a_second_client_serves_beside_one_whose_loop_runs(tmp_path: Path) -> None:
    """
    Two users in one test: a client that is entered, and one that is not and has new loops.
    """
    first = serve(store=f"sqlite:///{tmp_path}/s.db")

    with first:
        second = TestClient(first.app, base_url="https://testserver")
        counts = [each.get("/count").json()["count"] for each in (first, second, second, first)]

    assert counts == [1, 1, 2, 2]


# Its requests


def test_all_ways_lead_to_one_object() -> None:
    """
    `request.session`, `request.state.session` and `session_from` are the same session.
    """
    seen: list[bool] = []

    def look(request: Request) -> Response:
        seen.append(request.session is request.state.session is session_from(request))
        seen.append(isinstance(request.session, Session))
        return Response()

    serve(Route("/look", look)).get("/look")

    assert seen == [True, True]


def test_a_page_that_asks_for_no_session_stays_cacheable() -> None:
    """
    `Vary` is for pages that depend on the session; Starlette's own access counts.
    """
    client = serve()
    client.get("/count")

    assert "vary" not in client.get("/hello").headers
    assert client.get("/show").headers["vary"] == "Cookie"


def test_a_web_socket_shares_the_session_of_the_pages() -> None:
    """
    It reads what a page wrote, and what it writes after it was accepted is saved when it ends.
    """

    async def listen(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_json(dict(websocket.session))
        websocket.session["heard"] = await websocket.receive_text()
        await websocket.close()

    client = serve(WebSocketRoute("/ws", listen))
    client.get("/count")

    with client.websocket_connect("wss://testserver/ws") as socket:
        before = socket.receive_json()
        socket.send_text("hi")
        assert socket.receive()["type"] == "websocket.close"

    assert before == {"count": 1}
    assert client.get("/show").json() == {"count": 1, "heard": "hi"}


def test_a_web_socket_hands_out_a_token_as_it_is_accepted() -> None:
    """
    A stranger who writes before `accept` gets the cookie with it.
    """

    async def greet(websocket: WebSocket) -> None:
        websocket.session["greeted"] = True
        await websocket.accept()
        await websocket.close()

    client = serve(WebSocketRoute("/ws", greet))

    with client.websocket_connect("wss://testserver/ws") as socket:
        headers: Any = socket.extra_headers

    assert dict(headers)[b"set-cookie"].startswith(b"__Host-session=")


class Stamp(BaseHTTPMiddleware):
    """Writes to the session before the handler and after it."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Write twice."""
        request.session["before"] = True
        response = await call_next(request)
        request.session["after"] = True
        return response


def test_a_base_http_middleware_inside_may_write_before_and_after() -> None:
    """
    The answer has not left when `call_next` returns: both changes are saved, and seen with the handler's.
    """
    client = serve(inside=(Middleware(Stamp),))

    first = client.get("/count").json()

    assert first == {"before": True, "count": 1}
    assert client.get("/show").json() == {"before": True, "after": True, "count": 1}


class Around(BaseHTTPMiddleware):
    """Wraps everything, sessions too."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Add a header."""
        response = await call_next(request)
        response.headers["x-around"] = "yes"
        return response


def test_a_base_http_middleware_around_lets_the_cookie_through() -> None:
    """
    A session inside of a `BaseHTTPMiddleware` is committed, sent and found again.
    """
    client = visit(Starlette(routes=ROUTES, middleware=[Middleware(Around), Middleware(SessionMiddleware)]))

    first = client.get("/count")

    assert first.headers["x-around"] == "yes"
    assert client.get("/count").json() == {"count": 2}


class TooEarly(BaseHTTPMiddleware):
    """Asks for the session before the session middleware has had its turn."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Ask."""
        session_from(request)
        return await call_next(request)


def test_the_wrong_order_is_told_with_the_right_one() -> None:
    """
    With `add_middleware` the last one added is the outermost: one added after ours has no session yet.
    """
    app = Starlette(routes=ROUTES)
    app.add_middleware(SessionMiddleware)
    app.add_middleware(TooEarly)

    with pytest.raises(MiddlewareMissingError, match="which with `add_middleware` means after them"):
        visit(app).get("/hello")


@pytest.mark.parametrize("gzip_is_outside", [True, False])
def test_compressed_answers_carry_the_session_in_either_order(gzip_is_outside: bool) -> None:
    """
    Both middlewares add to `Vary`, and neither loses what the other has said.
    """

    def long(request: Request) -> Response:
        request.session["seen"] = True
        return PlainTextResponse("long " * 500)

    both = [Middleware(GZipMiddleware), Middleware(SessionMiddleware)]
    client = visit(Starlette(routes=[Route("/", long), *ROUTES], middleware=both if gzip_is_outside else both[::-1]))

    answer = client.get("/")

    assert answer.text == "long " * 500
    assert answer.headers["content-encoding"] == "gzip"
    assert {part.strip() for part in answer.headers["vary"].split(",")} == {"Accept-Encoding", "Cookie"}
    assert client.get("/show").json() == {"seen": True}


def test_a_redirect_after_log_in_carries_the_cookie() -> None:
    """
    Post, redirect, get: the page after the log-in knows the user.
    """

    def log_in(request: Request) -> Response:
        session_from(request).login("ada")
        return RedirectResponse("/me", 303)

    def me(request: Request) -> Response:
        return PlainTextResponse(str(session_from(request).user_id))

    client = serve(Route("/login", log_in, methods=["POST"]), Route("/me", me))

    answer = client.post("/login")

    assert answer.text == "ada"
    assert answer.headers["cache-control"] == "no-store"


# After the response has started


def later(action: Callable[[Request], None]) -> Route:
    """Return a route whose background task does *action*."""

    def endpoint(request: Request) -> Response:
        return Response(background=BackgroundTask(action, request))

    return Route("/later", endpoint)


def write(request: Request) -> None:
    """Change the session."""
    request.session["later"] = True


def test_a_background_task_changes_a_session_that_is_there() -> None:
    """
    The change is committed when the task has ended.
    """
    client = serve(later(write))
    client.get("/count")

    client.get("/later")

    assert client.get("/show").json() == {"count": 1, "later": True}


def test_a_background_task_cannot_begin_a_session() -> None:
    """
    The token of a stranger's session could no longer be sent: the task is told so where it writes.
    """
    client = serve(later(write))

    with pytest.raises(ResponseStartedError):
        client.get("/later")


def test_a_background_task_of_a_stranger_may_pop_what_is_not_there() -> None:
    """
    As in Starlette, to pop a key that is not there changes nothing, and nothing is refused.
    """
    client = serve(later(lambda request: request.session.pop("message", None)))

    assert client.get("/later").status_code == 200


def test_a_background_task_may_end_a_session() -> None:
    """
    Log-out in the background: the session is gone, though the client keeps its token.
    """
    client = serve(later(lambda request: request.session.clear()))
    client.get("/count")

    answer = client.get("/later")

    assert "set-cookie" not in answer.headers
    assert client.get("/show").json() == {}


def test_a_streamed_body_may_change_the_session_while_it_runs() -> None:
    """
    A change is saved at the end of the stream, or at once where the stream asks for it.
    """

    async def endpoint(request: Request) -> Response:
        async def body() -> AsyncIterator[str]:
            yield "a"
            request.session["during"] = 1
            await session_from(request).save()
            yield "b"
            request.session["at_end"] = 2

        return StreamingResponse(body())

    client = serve(Route("/stream", endpoint))
    client.get("/count")

    assert client.get("/stream").text == "ab"
    assert client.get("/show").json() == {"count": 1, "during": 1, "at_end": 2}


def test_what_a_handler_wrote_before_it_streams_is_sent_with_the_headers() -> None:
    """
    A stranger's session begins before the stream does.
    """

    def endpoint(request: Request) -> Response:
        def body() -> Iterator[str]:
            yield str(request.session["begun"])

        request.session["begun"] = "yes"
        return StreamingResponse(body())

    client = serve(Route("/stream", endpoint))

    assert client.get("/stream").text == "yes"
    assert client.get("/show").json() == {"begun": "yes"}


# When a handler raises


class Refusal(Exception):  # noqa: N818 - an application's own word
    """What an application raises to be answered by a handler of its own."""


def failing(error: Exception) -> Callable[[Request], Response]:
    """Return an endpoint that writes, and raises."""

    def endpoint(request: Request) -> Response:
        request.session["tried"] = True
        raise error

    return endpoint


def test_an_http_exception_is_an_answer_and_commits() -> None:
    """
    A failed log-in counts its attempts: a 403 is no accident.
    """
    client = serve(Route("/fail", failing(HTTPException(403))))

    assert client.get("/fail").status_code == 403
    assert client.get("/show").json() == {"tried": True}


def test_an_exception_handler_shares_the_session() -> None:
    """
    What an application's handler turns into an answer commits, with what the handler adds.
    """

    def answer(request: Request, _: Exception) -> Response:
        request.session["answered"] = True
        return Response(status_code=400)

    app = Starlette(
        routes=[Route("/fail", failing(Refusal())), *ROUTES],
        middleware=[Middleware(SessionMiddleware)],
        exception_handlers={Refusal: answer},
    )
    client = visit(app)

    assert client.get("/fail").status_code == 400
    assert client.get("/show").json() == {"tried": True, "answered": True}


def test_an_unhandled_exception_drops_the_changes() -> None:
    """
    Half of a request's work is not kept, and a stranger gets no session from it.
    """
    client = visit(serve(Route("/fail", failing(ValueError()))).app, raise_server_exceptions=False)  # type: ignore[arg-type]
    client.get("/count")

    answer = client.get("/fail")

    assert answer.status_code == 500
    assert "set-cookie" not in answer.headers
    assert client.get("/show").json() == {"count": 1}


def test_an_unhandled_exception_keeps_a_log_out() -> None:
    """
    Who asked to be logged out is, whatever broke afterwards.
    """

    def endpoint(request: Request) -> Response:
        request.session.clear()
        raise ValueError

    client = visit(serve(Route("/fail", endpoint)).app, raise_server_exceptions=False)  # type: ignore[arg-type]
    client.get("/count")

    assert client.get("/fail").status_code == 500
    assert client.get("/show").json() == {}


# Applications in applications


def test_a_mounted_application_shares_the_session() -> None:
    """
    One middleware around serves everything that is mounted inside.
    """
    client = serve(Mount("/sub", Starlette(routes=ROUTES)))
    client.get("/count")

    assert client.get("/sub/count").json() == {"count": 2}


def test_a_mounted_application_may_have_a_session_of_its_own() -> None:
    """
    A middleware with another name inside gives a second session, in a cookie of its own.
    """

    def endpoint(request: Request) -> Response:
        session_from(request, "admin")["power"] = True
        request.session["count"] = 7
        return JSONResponse([dict(session_from(request, "admin")), dict(request.session)])

    inner = Starlette(
        routes=[Route("/", endpoint)], middleware=[Middleware(SessionMiddleware, config=Config(name="admin"))]
    )
    client = serve(Mount("/admin", inner))

    answer = client.get("/admin/")

    assert answer.json() == [{"power": True}, {"count": 7}]
    assert set(client.cookies) == {"__Host-admin", "__Host-session"}
    assert client.get("/show").json() == {"count": 7}


def test_a_mounted_application_alone_may_have_sessions() -> None:
    """
    A middleware inside of a mount serves that mount; around it there is none.
    """

    def endpoint(request: Request) -> Response:
        session_from(request)
        return Response()

    inner = Starlette(routes=ROUTES, middleware=[Middleware(SessionMiddleware)])
    client = visit(Starlette(routes=[Mount("/sub", inner), Route("/", endpoint)]))

    assert client.get("/sub/count").json() == {"count": 1}
    assert client.get("/sub/count").json() == {"count": 2}
    with pytest.raises(MiddlewareMissingError):
        client.get("/")


def test_two_middlewares_of_one_name_are_refused() -> None:
    """
    The inner one would hide the outer one's session: the error says how to name it.
    """
    client = serve(Mount("/sub", Starlette(routes=ROUTES, middleware=[Middleware(OurOwn)])))

    with pytest.raises(ConfigError, match="name of its own"):
        client.get("/sub/count")


def test_starlettes_own_middleware_around_ours_is_refused() -> None:
    """
    It would sign our session into its cookie: the error says to give one of them another name.
    """
    inner = Starlette(routes=ROUTES, middleware=[Middleware(SessionMiddleware)])
    app = Starlette(routes=[Mount("/sub", inner)], middleware=[Middleware(StarlettesOwn, secret_key="x")])

    with pytest.raises(ConfigError, match="name"):
        visit(app).get("/sub/count")


def test_a_state_of_the_applications_own_is_not_replaced_in_silence() -> None:
    """
    Lifespans often leave an HTTP client or a database session under this name.
    """

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[dict[str, object]]:
        yield {"session": "of the database"}

    app = Starlette(routes=ROUTES, middleware=[Middleware(SessionMiddleware)], lifespan=lifespan)

    with visit(app) as client, pytest.raises(ConfigError, match="name"):
        client.get("/show")
