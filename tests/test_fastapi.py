"""FastAPI: sessions as parameters."""

from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.testclient import TestClient

from asgi_sessions import Config, Session, SessionMiddleware
from asgi_sessions.errors import MiddlewareMissingError, NotLoadedError, ResponseStartedError
from asgi_sessions.fastapi import CurrentSession, current_session, session_from


@pytest.fixture
def app() -> FastAPI:
    """Return an application with sessions, and two routes that every test may use."""
    app = FastAPI()
    app.add_middleware(SessionMiddleware)
    add_routes(app)
    return app


def add_routes(app: FastAPI) -> None:
    """Add a route that writes and one that reads."""

    @app.post("/count")
    async def count(session: CurrentSession) -> int:
        return int(session.increment("count"))

    @app.get("/show")
    async def show(session: CurrentSession) -> dict[str, Any]:
        return session


@pytest.fixture
def client(app: FastAPI) -> TestClient:
    """Return a client that takes `Secure` cookies."""
    return visit(app)


def visit(app: FastAPI, **keywords: Any) -> TestClient:
    """Return a client of *app*, which may still get routes."""
    return TestClient(app, base_url="https://testserver", **keywords)


def test_an_async_route_and_a_returned_session(client: TestClient) -> None:
    """
    A handler changes its session in passing; one that is returned is a dict like any other.
    """
    client.post("/count")

    assert client.post("/count").json() == 2
    assert client.get("/show").json() == {"count": 2}


def test_a_plain_route_needs_no_await(app: FastAPI, client: TestClient) -> None:
    """
    A `def` route runs in a thread, and its operations are saved all the same.
    """

    @app.post("/cart")
    def add(session: CurrentSession, item: str) -> None:
        session.append("cart", item)

    client.post("/cart?item=book")
    client.post("/cart?item=pen")

    assert client.get("/show").json() == {"cart": ["book", "pen"]}


def test_a_web_socket_route_has_the_session_of_the_pages(app: FastAPI, client: TestClient) -> None:
    """
    The same parameter, over the other protocol; a change is saved while the socket is open.
    """

    @app.websocket("/ws")
    async def listen(websocket: WebSocket, session: CurrentSession) -> None:
        await websocket.accept()
        session["heard"] = await websocket.receive_text()
        await session.save()
        await websocket.send_json(dict(session))
        await websocket.receive_text()

    client.post("/count")
    with client.websocket_connect("wss://testserver/ws") as socket:
        socket.send_text("hi")
        assert socket.receive_json() == {"count": 1, "heard": "hi"}
        assert client.get("/show").json() == {"count": 1, "heard": "hi"}
        socket.send_text("bye")


def test_all_ways_lead_to_one_object(app: FastAPI, client: TestClient) -> None:
    """
    The parameter, `request.session`, `request.state.session` and `session_from` are the same session.
    """

    @app.get("/same")
    def same(request: Request, session: CurrentSession) -> list[bool]:
        return [session is each for each in (request.session, request.state.session, session_from(request))]

    assert client.get("/same").json() == [True, True, True]


def test_dependencies_share_the_session_with_their_route(app: FastAPI, client: TestClient) -> None:
    """
    A dependency that asks for the session gets the same one, and may refuse the request.
    """

    def current_user(session: CurrentSession) -> str:
        if session.user_id is None:
            raise HTTPException(401)
        return session.user_id

    @app.post("/login/{user}")
    def log_in(session: CurrentSession, user: str) -> None:
        session.login(user)

    @app.get("/me")
    def me(user: Annotated[str, Depends(current_user)], session: CurrentSession) -> list[str | None]:
        return [user, session.user_id]

    assert client.get("/me").status_code == 401
    client.post("/login/ada")
    assert client.get("/me").json() == ["ada", "ada"]


def test_two_middlewares_give_two_sessions(app: FastAPI, client: TestClient) -> None:
    """
    `current_session(name)` is the session of that name, in a cookie of its own.
    """
    app.add_middleware(SessionMiddleware, config=Config(name="admin"))
    Admin = Annotated[Session, Depends(current_session("admin"))]  # noqa: N806 - a type

    @app.post("/promote")
    async def promote(admin: Admin, session: CurrentSession) -> None:
        admin["power"] = session.get("count")

    @app.post("/demote")
    async def demote(admin: Admin) -> None:
        admin.destroy()

    @app.get("/power")
    async def power(admin: Admin) -> dict[str, Any]:
        return admin

    client.post("/count")
    client.post("/promote")

    assert client.get("/power").json() == {"power": 1}
    assert set(client.cookies) == {"__Host-session", "__Host-admin"}
    client.post("/demote")
    assert client.get("/power").json() == {}
    assert client.get("/show").json() == {"count": 1}


def test_the_dependency_loads_a_lazy_session() -> None:
    """
    Under `load="lazy"` a route that asks for the session has it, one that takes `request.session` is told to load it.
    """
    app = FastAPI()
    app.add_middleware(SessionMiddleware, config=Config(load="lazy"))
    add_routes(app)

    @app.get("/unloaded")
    def unloaded(request: Request) -> Any:
        return dict(request.session.items())

    @app.get("/threaded")
    def threaded(session: CurrentSession) -> dict[str, Any]:
        return session

    client = visit(app)
    client.post("/count")

    assert client.get("/show").json() == {"count": 1}
    assert client.get("/threaded").json() == {"count": 1}
    with pytest.raises(NotLoadedError):
        client.get("/unloaded")


def test_a_session_is_no_part_of_the_schema(app: FastAPI) -> None:
    """
    Neither a query parameter nor a body: who reads the OpenAPI document sees nothing of it.
    """
    operation = app.openapi()["paths"]["/count"]["post"]

    assert "parameters" not in operation
    assert "requestBody" not in operation


def test_without_middleware_the_error_says_what_to_add() -> None:
    """
    The next step, where the session was asked for.
    """
    app = FastAPI()
    add_routes(app)

    with pytest.raises(MiddlewareMissingError, match="Add SessionMiddleware to the application"):
        visit(app).get("/show")


def test_a_skipped_path_says_that_it_may_be_skipped() -> None:
    """
    A pattern that caught too much is in the list of things to look at.
    """
    app = FastAPI()
    app.add_middleware(SessionMiddleware, config=Config(skip=["/sho*"]))
    add_routes(app)

    with pytest.raises(MiddlewareMissingError, match="see that `skip` does not name this path"):
        visit(app).get("/show")


def test_a_name_that_no_middleware_has_is_told(app: FastAPI, client: TestClient) -> None:
    """
    A misspelt name is in the error.
    """

    @app.get("/wrong")
    def wrong(session: Annotated[Session, Depends(current_session("amdin"))]) -> None:
        session.touch()

    with pytest.raises(MiddlewareMissingError, match="'amdin'"):
        client.get("/wrong")


def test_an_outer_middleware_asks_too_early(app: FastAPI, client: TestClient) -> None:
    """
    FastAPI's `@app.middleware` added after ours runs before it: there is no session yet, and the error says so.
    """

    @app.middleware("http")
    async def too_early(request: Request, call_next: Any) -> Any:
        session_from(request)
        return await call_next(request)

    with pytest.raises(MiddlewareMissingError, match="outside of every middleware that uses them"):
        client.get("/show")


def test_an_inner_middleware_has_the_session() -> None:
    """
    Added before ours, it runs inside, and its changes are saved.
    """
    app = FastAPI()
    add_routes(app)

    @app.middleware("http")
    async def in_time(request: Request, call_next: Any) -> Any:
        session_from(request).increment("seen")
        return await call_next(request)

    app.add_middleware(SessionMiddleware)
    client = visit(app)
    client.get("/show")

    assert client.get("/show").json() == {"seen": 2}


def test_an_http_exception_commits(app: FastAPI, client: TestClient) -> None:
    """
    A refusal is an answer: failed attempts are counted.
    """

    @app.post("/attempt")
    def attempt(session: CurrentSession) -> None:
        session.increment("attempts")
        raise HTTPException(403)

    client.post("/attempt")

    assert client.post("/attempt").status_code == 403
    assert client.get("/show").json() == {"attempts": 2}


def test_an_exception_handler_answers_and_commits(app: FastAPI, client: TestClient) -> None:
    """
    What an application answers in its own way is kept, what its handler adds, too.
    """

    @app.exception_handler(LookupError)
    async def not_there(request: Request, _: Exception) -> JSONResponse:
        session_from(request).flash("Not there.")
        return JSONResponse(None, 404)

    @app.get("/look")
    def look(session: CurrentSession) -> None:
        session["looked"] = True
        raise LookupError

    @app.get("/flashes")
    def flashes(session: CurrentSession) -> list[str]:
        return [flash.message for flash in session.flashes()]

    assert client.get("/look").status_code == 404
    assert client.get("/flashes").json() == ["Not there."]
    assert client.get("/flashes").json() == []
    assert client.get("/show").json() == {"looked": True}


def test_an_unhandled_exception_drops_changes_and_keeps_a_log_out(app: FastAPI) -> None:
    """
    Half of a request's work is not kept; the end of a session is.
    """

    @app.post("/break")
    def break_off(session: CurrentSession, *, leave: bool) -> None:
        session["half"] = True
        if leave:
            session.logout()
        raise ValueError

    client = visit(app, raise_server_exceptions=False)
    client.post("/count")

    assert client.post("/break?leave=false").status_code == 500
    assert client.get("/show").json() == {"count": 1}
    assert client.post("/break?leave=true").status_code == 500
    assert client.get("/show").json() == {}


def test_an_invalid_request_begins_no_session(client: TestClient, app: FastAPI) -> None:
    """
    A 422 comes before the handler: nothing is stored, no cookie sent.
    """

    @app.post("/typed")
    def typed(session: CurrentSession, number: int) -> None:
        session["number"] = number

    answer = client.post("/typed?number=many")

    assert answer.status_code == 422
    assert "set-cookie" not in answer.headers


def test_background_tasks_change_a_session_that_is_there(app: FastAPI, client: TestClient) -> None:
    """
    A change after the answer is saved; a stranger's session can no longer begin, and the task is told.
    """

    @app.post("/later")
    def later(session: CurrentSession, tasks: BackgroundTasks) -> None:
        tasks.add_task(session.increment, "later")

    with pytest.raises(ResponseStartedError):
        client.post("/later")
    client.post("/count")
    client.post("/later")

    assert client.get("/show").json() == {"count": 1, "later": 1}


def test_a_dependency_that_cleans_up_after_the_answer_may_change_a_session(app: FastAPI, client: TestClient) -> None:
    """
    What stands after `yield` runs when the response has left: a session that is there is still saved.
    """

    def timed(session: CurrentSession) -> Iterator[None]:
        yield
        session.increment("timed")

    @app.get("/timed", dependencies=[Depends(timed)])
    def handler() -> None:
        pass

    client.post("/count")
    client.get("/timed")

    assert client.get("/show").json() == {"count": 1, "timed": 1}


def test_a_streamed_body_changes_the_session(app: FastAPI, client: TestClient) -> None:
    """
    Changes made while the body is sent are saved when it ends.
    """

    @app.get("/stream")
    async def stream(session: CurrentSession) -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            for word in ("a", "b"):
                session.append("sent", word)
                yield word

        return StreamingResponse(body())

    client.post("/count")

    assert client.get("/stream").text == "ab"
    assert client.get("/show").json() == {"count": 1, "sent": ["a", "b"]}


def test_a_mounted_application_has_the_session_as_a_parameter(app: FastAPI, client: TestClient) -> None:
    """
    A FastAPI application inside of another needs no middleware of its own.
    """
    inner = FastAPI()
    add_routes(inner)
    app.mount("/inner", inner)

    client.post("/count")

    assert client.post("/inner/count").json() == 2


def test_a_test_may_put_a_session_of_its_own_in_place(app: FastAPI, client: TestClient) -> None:
    """
    `dependency_overrides` works with a dependency that the application has given a name.
    """
    dependency = current_session()

    @app.get("/named")
    def named(session: Annotated[Session, Depends(dependency)]) -> dict[str, Any]:
        return session

    app.dependency_overrides[dependency] = lambda: {"from": "the test"}

    assert client.get("/named").json() == {"from": "the test"}
