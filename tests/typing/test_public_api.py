"""
What a type checker knows about the public names.

Rule 1: each `assert_type` is checked by mypy, in strict mode, with all other tests; what pytest adds is that it runs.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, assert_type
from uuid import UUID

import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

from asgi_sessions import (
    Answer,
    AnyCodec,
    Codec,
    Config,
    Event,
    Expire,
    Extractor,
    Flash,
    Issue,
    JSONCodec,
    Record,
    Session,
    SessionManager,
    SessionMiddleware,
    Store,
    bearer,
    cookie,
    header,
    query,
    session_from,
)
from asgi_sessions.errors import ConfigError, SessionError, StoreUnavailableError
from asgi_sessions.fastapi import CurrentSession, current_session
from asgi_sessions.starlette import SessionMiddleware as StarlettesWords
from asgi_sessions.stores import MemoryStore, SQLiteStore
from asgi_sessions.testing import logged_in, logged_in_async


def test_a_parameter_of_fastapi_is_a_session() -> None:
    """
    `CurrentSession` completes to everything that a session has, and a name of one's own does, too.
    """
    app = FastAPI()
    app.add_middleware(SessionMiddleware, config=Config())
    Named = Annotated[Session, Depends(current_session("session"))]  # noqa: N806 - a type

    @app.get("/")
    async def home(session: CurrentSession, named: Named) -> bool:
        assert_type(session, Session)
        assert_type(named, Session)
        return session is named

    assert TestClient(app).get("/").json() is True


async def test_a_session_is_a_dict_with_text_for_keys() -> None:
    """
    What takes a `dict[str, Any]` takes a session; what copies it gets a plain one.
    """
    session = await SessionManager().load()
    plain: dict[str, Any] = session

    session["key"] = "value"

    assert_type(session["key"], Any)
    assert_type(session.get("key"), Any)
    assert_type(session.copy(), dict[str, Any])
    assert plain["key"] == "value"


async def test_what_a_session_says_of_itself() -> None:
    """
    Times are datetimes, an ID is text, a user may be missing.
    """
    session = await SessionManager().load()

    assert_type(session, Session)
    assert_type(session.id, str)
    assert_type(session.user_id, str | None)
    assert_type(session.is_new, bool)
    assert_type(session.is_gone, bool)
    assert_type(session.status, Literal["unmodified", "modified", "destroyed"])
    assert_type(session.created_at, datetime)
    assert_type(session.last_seen, datetime)
    assert_type(session.expires_at, datetime)
    assert_type(session.authenticated_at, datetime | None)
    assert_type(session.idle_timeout, timedelta | None)
    assert_type(session.absolute_end, datetime | None)
    assert_type(session.flashes(), list[Flash])
    assert session.is_new


async def test_what_a_session_is_told() -> None:
    """
    A user ID is text, a number or a UUID; `save()` is awaited for the token, if there is one.
    """
    session = await SessionManager().load()
    log_in: Callable[[str | int | UUID], None] = session.login
    ends: list[Callable[[], None]] = [session.logout, session.destroy, session.clear, session.regenerate, session.touch]

    log_in(7)
    session.login("ada", remember=True)
    session.login(UUID(int=1), remember=timedelta(days=30))

    saving = session.save()
    assert_type(saving, Awaitable[str | None])
    assert_type(await saving, str | None)
    await assert_type(session.reload(), Awaitable[None])
    await assert_type(session.load(), Awaitable[None])
    for end in ends:
        end()


async def test_a_session_without_a_request() -> None:
    """
    A manager gives sessions in a block, one by one, and by a token.
    """
    manager = SessionManager(Config(), clock=lambda: datetime.now(UTC))
    assert_type(manager.config, Config)
    assert_type(manager.store, Store)
    manager.on("login", lambda event: assert_type(event, Event))

    async with manager as entered:
        assert_type(entered, SessionManager)
        async with manager.open() as session:
            assert_type(session, Session)
            session.login("ada")
            token = assert_type(await session.save(), str | None)
        async with manager.open_id(session.id) as again:
            assert_type(again, Session)
        sessions = manager.sessions(user_id="ada")
        assert_type(sessions, AsyncGenerator[Session, None])
        async for each in sessions:
            assert_type(each, Session)

        assert_type(await manager.commit(await manager.load(token)), Answer)
        assert_type(await manager.revoke(user_id="ada", keep=session.id), int)
        assert_type(await manager.revoke(where=lambda each: assert_type(each, Session).is_gone), int)
        assert_type(await manager.delete(session.id), bool)
        assert_type(await manager.delete_all(), int)
        assert_type(await manager.sweep(), int)


def test_what_the_client_is_to_be_told() -> None:
    """
    A `match` over an answer needs no fourth case.
    """

    def told(answer: Answer) -> str:
        match answer:
            case Issue(token, max_age):
                assert_type(token, str)
                assert_type(max_age, int | None)
                return token
            case Expire():
                return "expired"
            case None:
                return ""

    assert [told(each) for each in (Issue("t", None), Expire(), None)] == ["t", "expired", ""]


def test_the_settings_have_types() -> None:
    """
    A misspelt choice or a bare number is found before the application runs.
    """
    config = Config()

    assert_type(config.store, Store | str)
    assert_type(config.name, str)
    assert_type(config.idle_timeout, timedelta | None)
    assert_type(config.absolute_timeout, timedelta | None)
    assert_type(config.touch_interval, timedelta | None)
    assert_type(config.first_life, timedelta)
    assert_type(config.grace, timedelta)
    assert_type(config.store_timeout, timedelta)
    assert_type(config.max_size, int)
    assert_type(config.max_sessions_per_user, int | None)
    assert_type(config.when_full, Literal["end-oldest", "refuse"])
    assert_type(config.load, Literal["eager", "lazy"])
    assert_type(config.conflicts, Literal["merge", "raise"])
    assert_type(config.no_store, Literal["bound", "token"])
    assert_type(config.codec, AnyCodec)
    assert_type(Config.from_env({}), Config)
    with pytest.raises(ConfigError):
        Config(idle_timeout=1800)  # type: ignore[arg-type]  # the point of it
    with pytest.raises(ConfigError):
        Config(load="sometimes")  # type: ignore[arg-type]  # the same


def test_what_a_setting_takes() -> None:
    """
    A store or its URL, one way or several, patterns or a function.
    """
    ways: list[Extractor] = [cookie(), header("X-Session"), bearer()]
    codecs: list[AnyCodec] = [Codec(), JSONCodec()]
    read_a_query: Callable[[str], Extractor] = query

    configs = [
        Config(store=MemoryStore(), extractors=ways, skip=["/static/*"], codec=codecs[0]),
        Config(store="memory:", extractors="cookie:sid", skip=lambda scope: scope["path"] == "/", codec=codecs[1]),
        Config(extractors=lambda _: None),
    ]

    assert len(configs) == 3
    assert read_a_query is query


def test_a_store_is_known_by_what_it_does(tmp_path: Any) -> None:
    """
    Neither of ours inherits from `Store`, and both are one.
    """
    stores: list[Store] = [MemoryStore(), SQLiteStore(tmp_path / "sessions.db")]
    assert_type(MemoryStore.from_url("memory:"), MemoryStore)

    async def load(store: Store) -> Record | None:
        return assert_type(await store.load("id"), Record | None)

    assert callable(load)
    assert len(stores) == 2


def test_a_session_is_found_in_whatever_has_a_scope() -> None:
    """
    A request, a WebSocket, or an object of one's own.
    """

    def of_request(request: Request) -> Session:
        return assert_type(session_from(request), Session)

    def of_web_socket(websocket: WebSocket) -> Session:
        return session_from(websocket, "admin")

    class Connection:
        scope: dict[str, Any] = {}  # noqa: RUF012 - enough of one

    with pytest.raises(SessionError):
        session_from(Connection())
    assert callable(of_request)
    assert callable(of_web_socket)


def test_both_middlewares_fit_where_starlette_takes_one() -> None:
    """
    In the list and in `add_middleware`, with their own keywords.
    """
    manager = SessionManager()
    app = Starlette(middleware=[Middleware(SessionMiddleware, manager=manager)])
    app.add_middleware(StarlettesWords, secret_key="x", session_cookie="sid", max_age=3600, same_site="strict")

    assert len(app.user_middleware) == 2
    assert issubclass(StarlettesWords, SessionMiddleware)


def test_an_error_handler_returns_an_application() -> None:
    """
    A Starlette response is one.
    """
    config = Config(
        on_error=lambda _, error: PlainTextResponse(str(assert_type(error, SessionError)), 503),
        on_gone=lambda _: PlainTextResponse("gone", 409),
    )

    assert config.on_error is not None
    assert issubclass(StoreUnavailableError, SessionError)


def test_a_client_is_logged_in_by_its_manager() -> None:
    """
    Any client of Starlette, httpx and httpx2 fits, and the session ID is what one gets.
    """
    manager = SessionManager()
    client = TestClient(Starlette(), base_url="https://testserver")

    assert_type(logged_in(client, manager, 7, cart=["book"]), str)
    assert callable(logged_in_async)
