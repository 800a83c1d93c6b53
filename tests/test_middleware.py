"""The middleware: what it puts into a scope, when it commits, what it adds to a response."""

import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import anyio
import pytest

from asgi_sessions import (
    Config,
    Session,
    SessionManager,
    SessionMiddleware,
    bearer,
    cookie,
    header,
    query,
    session_from,
)
from asgi_sessions._types import ASGIApp, Message, Receive, Scope, Send
from asgi_sessions.errors import (
    ConfigError,
    MiddlewareMissingError,
    NotLoadedError,
    ResponseStartedError,
    SessionClosedError,
    SessionWarning,
    TokenUndeliverableError,
)
from tests.support import Clock, TappedStore, begin, broken, call, handler, http_scope, opened, read


def write(session: Any) -> None:
    """Change something."""
    session["written"] = True


def websocket_scope(token: str | None = None, **more: Any) -> Scope:
    """Return the scope of a handshake over TLS."""
    return {**http_scope(token, **more), "type": "websocket", "scheme": "wss", "subprotocols": []}


def socket(work: Callable[[Any], Any], *, accept: bool = True) -> ASGIApp:
    """Return a WebSocket application that does *work* after it has accepted, or refused."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"} if accept else {"type": "websocket.close", "code": 4000})
        work(scope["session"])

    return app


async def test_a_session_is_one_object_in_scope_and_state(manager: SessionManager) -> None:
    """Frameworks find it in the scope, `request.state` in the state."""
    found: list[object] = []

    async def app(scope: Scope, _: Receive, __: Send) -> None:
        found.extend([scope["session"], scope["state"]["session"], session_from(_Connection(scope))])

    await call(SessionMiddleware(app, manager=manager), http_scope(state={"of": "the lifespan"}))

    assert isinstance(found[0], Session)
    assert found[0] is found[1] is found[2]


class _Connection:
    """Anything with a scope."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope


def test_a_missing_middleware_is_told_with_the_fix() -> None:
    """The message says what to add, and where."""
    with pytest.raises(MiddlewareMissingError, match="Add SessionMiddleware"):
        session_from(_Connection({"type": "http"}))


async def test_two_middlewares_of_different_names_give_two_sessions(store: TappedStore, clock: Clock) -> None:
    """Each has its cookie, its key in the scope, and its own end."""
    async with opened(Config(store=store), clock) as outer, opened(Config(store=store, name="admin"), clock) as inner:

        async def app(scope: Scope, _: Receive, send: Send) -> None:
            scope["session"]["of"] = "the shop"
            scope["admin"]["of"] = "the office"
            await send({"type": "http.response.start", "status": 200, "headers": []})

        reply = await call(SessionMiddleware(SessionMiddleware(app, manager=inner), manager=outer), http_scope())

    lines = sorted(line.partition("=")[0] for line in reply.header("set-cookie"))
    assert lines == ["__Host-admin", "__Host-session"]
    assert reply.header("vary") == ["Cookie"]


async def test_two_middlewares_of_one_name_are_refused(manager: SessionManager) -> None:
    """One would hide the other's session."""
    app = SessionMiddleware(SessionMiddleware(handler(write), manager=manager), manager=manager)

    with pytest.raises(ConfigError, match="another SessionMiddleware"):
        await call(app, http_scope())


async def test_a_config_and_a_manager_exclude_each_other(manager: SessionManager) -> None:
    """A manager brings its own config."""
    with pytest.raises(ConfigError, match="not both"):
        SessionMiddleware(handler(write), Config(), manager=manager)


async def test_all_defaults_work_without_a_config() -> None:
    """`SessionMiddleware(app)` is enough to begin."""
    app = SessionMiddleware(handler(lambda session: session.increment("n")))
    first = await call(app, http_scope())
    assert first.token

    again = await call(app, http_scope(first.token))

    assert again.token is None


async def test_a_token_is_sent_in_a_cookie_that_others_cannot_set_or_read(manager: SessionManager) -> None:
    """Name, attributes and headers of the response that issues a token."""
    reply = await call(SessionMiddleware(handler(write), manager=manager), http_scope())

    (line,) = reply.header("set-cookie")
    name, _, rest = line.partition("=")
    assert name == "__Host-session"
    assert rest.partition("; ")[2] == "Path=/; HttpOnly; SameSite=Lax; Secure"
    assert reply.header("cache-control") == ["no-store"]
    assert reply.header("vary") == ["Cookie"]


async def test_an_expired_token_is_deleted_with_the_same_attributes(manager: SessionManager) -> None:
    """Browsers delete a `__Host-` cookie only by one that could have set it."""
    token = await begin(manager, "ada")

    reply = await call(SessionMiddleware(handler(lambda session: session.logout()), manager=manager), http_scope(token))

    assert reply.header("set-cookie") == ["__Host-session=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0; Secure"]
    assert reply.header("cache-control") == ["no-store"]


async def test_a_page_that_does_not_touch_the_session_stays_cacheable(manager: SessionManager) -> None:
    """No header of ours, with and without a token."""
    for token in (None, await begin(manager, "ada")):
        reply = await call(SessionMiddleware(handler(lambda _: None), manager=manager), http_scope(token))
        assert reply.messages[0]["headers"] == [(b"content-type", b"text/plain")]


@pytest.mark.parametrize(
    "look",
    [
        lambda session: "a" in session,
        len,
        bool,
        list,
        dict,
        lambda session: session == {},
        lambda session: session != {},
        lambda session: session.get("a"),
        lambda session: session | {},
        lambda session: {} | session,
        lambda session: {**session},
        lambda session: list(reversed(session)),
        lambda session: (session.keys(), session.values(), session.items()),
        lambda session: session.copy(),
        lambda session: session.user_id,
        lambda session: session.id,
        lambda session: session.is_new,
        lambda session: session.flashes(),
        lambda session: session.mark_accessed(),
    ],
)
async def test_every_way_to_look_makes_the_response_vary(manager: SessionManager, look: Callable[[Any], Any]) -> None:
    """What depends on the cookie is not stored for others."""
    reply = await call(SessionMiddleware(handler(look), manager=manager), http_scope())

    assert reply.header("vary") == ["Cookie"]
    assert reply.header("cache-control") == []  # a stranger's page may be kept: it is the same for all strangers


@pytest.mark.parametrize(("no_store", "expected"), [("bound", ["no-store"]), ("token", [])])
async def test_a_users_page_is_not_stored(store: TappedStore, clock: Clock, no_store: Any, expected: list[str]) -> None:
    """What a bound session was used for is nobody else's."""
    async with opened(Config(store=store, no_store=no_store), clock) as manager:
        token = await begin(manager, "ada", a=1)

        reply = await call(SessionMiddleware(handler(len), manager=manager), http_scope(token))

    assert reply.header("cache-control") == expected


async def test_headers_of_the_application_are_merged_and_left_to_it(store: TappedStore, clock: Clock) -> None:
    """`Vary` is added to, a weaker `Cache-Control` replaced, and a response object used twice is not changed."""
    config = Config(store=store, extractors=(cookie(), header("X-Session"), bearer()))
    kept = [(b"vary", b"Accept, cookie"), (b"cache-control", b"public, max-age=60")]

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        write(scope["session"])
        await send({"type": "http.response.start", "status": 200, "headers": kept})

    async with opened(config, clock) as manager:
        reply = await call(SessionMiddleware(app, manager=manager), http_scope())

    assert reply.header("vary") == ["Accept, cookie", "X-Session, Authorization"]
    assert reply.header("cache-control") == ["no-store"]
    assert len(kept) == 2


async def test_other_scopes_pass_untouched(manager: SessionManager) -> None:
    """What is neither HTTP nor WebSocket nor lifespan is none of ours."""
    seen: list[Scope] = []

    async def app(scope: Scope, _: Receive, __: Send) -> None:
        seen.append(scope)

    await call(SessionMiddleware(app, manager=manager), {"type": "other"})

    assert seen == [{"type": "other"}]


@pytest.mark.parametrize("skip", [["/static/*", "/health"], lambda scope: scope["path"] != "/"])
async def test_skipped_requests_cost_nothing(store: TappedStore, clock: Clock, skip: Any) -> None:
    """No session, no store call, no header."""
    seen: list[bool] = []

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        seen.append("session" in scope)
        await send({"type": "http.response.start", "status": 200})

    async with opened(Config(store=store, skip=skip), clock) as manager:
        token = await begin(manager, a=1)
        for path in ("/static/site.css", "/health", "/"):
            await call(SessionMiddleware(app, manager=manager), http_scope(token, path=path))

    assert seen == [False, False, True]
    assert store.calls["load"] == 1


async def test_no_pattern_skips_nothing(store: TappedStore, clock: Clock) -> None:
    """An empty list is not a pattern that matches everything."""
    async with opened(Config(store=store, skip=[]), clock) as manager:
        reply = await call(SessionMiddleware(handler(write), manager=manager), http_scope())

    assert reply.token


async def test_a_lazy_session_is_loaded_when_it_is_asked_for(store: TappedStore, clock: Clock) -> None:
    """Until then the store is not called, and every use says what to do."""
    async with opened(Config(store=store, load="lazy"), clock) as manager:
        token = await begin(manager, a=1)

        async def work(session: Session) -> None:
            with pytest.raises(NotLoadedError, match=r"await session\.load\(\)"):
                session["a"]
            with pytest.raises(NotLoadedError):
                session.destroy()
            assert store.calls["load"] == 0
            await session.load()
            await session.load()
            assert session["a"] == 1

        untouched = await call(SessionMiddleware(handler(lambda _: None), manager=manager), http_scope(token))
        assert (untouched.status, dict(store.calls)) == (200, {})
        used = await call(SessionMiddleware(handler(work), manager=manager), http_scope(token))
        stranger = await call(SessionMiddleware(handler(write), manager=manager), http_scope())

    assert used.status == 200
    assert store.calls["load"] == 1
    assert stranger.token


@pytest.mark.parametrize("planted", ["the same cookie twice", "another cookie", "another header"])
async def test_two_tokens_that_differ_are_no_session(store: TappedStore, clock: Clock, planted: str) -> None:
    """One of them was planted; which one, nobody can tell. A log-in says so, too."""
    async with opened(Config(store=store, extractors=(cookie(), header("X-Session"))), clock) as manager:
        token, other = await begin(manager, a=1), await begin(manager, b=2)
        extra = {
            "the same cookie twice": (b"cookie", f"__Host-session={token}".encode()),
            "another cookie": (b"cookie", f"__Host-session={other}".encode()),
            "another header": (b"x-session", other.encode()),
        }[planted]
        events: list[Any] = []
        manager.on("ambiguous_token", events.append)
        app = SessionMiddleware(handler(lambda session: session.login("ada")), manager=manager)

        reply = await call(app, http_scope(token, headers=[extra]))

    if planted == "the same cookie twice":
        assert (events, store.calls["load"]) == ([], 1)
    else:
        assert (len(events), store.calls["load"]) == (2, 0)
    assert reply.token


async def test_a_token_goes_back_the_way_it_came(store: TappedStore, clock: Clock) -> None:
    """A header's token is answered in the header, not in a cookie."""
    async with opened(Config(store=store, extractors=(cookie(), header("X-Session"))), clock) as manager:
        token = await begin(manager, a=1)
        app = SessionMiddleware(handler(lambda session: session.regenerate()), manager=manager)
        reply = await call(app, http_scope(headers=[(b"x-session", token.encode())]))
        end = SessionMiddleware(handler(lambda session: session.destroy()), manager=manager)
        last = await call(end, http_scope(headers=[(b"x-session", reply.header("x-session")[0].encode())]))

    assert reply.header("set-cookie") == last.header("set-cookie") == []
    assert reply.header("x-session")[0] != token
    assert last.header("x-session") == [""]


@pytest.mark.parametrize("way", ["bearer", "query", "callable"])
async def test_a_way_that_only_reads_never_becomes_a_cookie(store: TappedStore, clock: Clock, way: str) -> None:
    """A new token of such a session is handed out by `save()` alone; a commit that would lose it is refused."""
    readers: dict[str, Any] = {"bearer": bearer(), "query": query("s"), "callable": lambda scope: scope.get("token")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SessionWarning)
        config = Config(store=store, extractors=(cookie(), readers[way]))
    async with opened(config, clock) as manager:
        token = await begin(manager, a=1)
        scope = {
            "bearer": http_scope(headers=[(b"authorization", f"bearer {token}".encode())]),
            "query": http_scope(query_string=f"x=1&s={token}".encode()),
            "callable": {**http_scope(), "token": token},
        }[way]
        read_only = await call(SessionMiddleware(handler(write), manager=manager), dict(scope, state={}))
        assert read_only.header("set-cookie") == []
        lost = SessionMiddleware(handler(lambda session: session.regenerate()), manager=manager)
        with pytest.raises(TokenUndeliverableError, match="save"):
            await call(lost, dict(scope, state={}))
        assert await read(manager, token) == {"a": 1, "written": True}
        tokens: list[str | None] = []

        async def hand_over(session: Session) -> None:
            session.regenerate()
            tokens.append(await session.save())

        reply = await call(SessionMiddleware(handler(hand_over), manager=manager), dict(scope, state={}))

        assert reply.header("set-cookie") == []
        assert tokens[0] is not None
        assert await read(manager, tokens[0]) == {"a": 1, "written": True}


async def test_without_any_way_back_a_new_session_is_refused(store: TappedStore, clock: Clock) -> None:
    """An API with bearer tokens alone creates sessions by `save()`, which returns the token."""
    async with opened(Config(store=store, extractors="bearer"), clock) as manager:
        with pytest.raises(TokenUndeliverableError):
            await call(SessionMiddleware(handler(write), manager=manager), http_scope())
        assert not store.calls

        async def create(session: Session) -> None:
            write(session)
            assert await session.save()

        reply = await call(SessionMiddleware(handler(create), manager=manager), http_scope())

    assert reply.status == 200


async def test_a_remembered_login_keeps_its_cookie_and_its_date(manager: SessionManager, clock: Clock) -> None:
    """`remember` sets what is left of the session's time; a regeneration keeps it, a moved end sends it again."""
    login = SessionMiddleware(handler(lambda s: s.login("ada", remember=timedelta(days=30))), manager=manager)
    reply = await call(login, http_scope())
    assert "Max-Age=2592000" in reply.header("set-cookie")[0]
    clock.advance(days=10)

    again = SessionMiddleware(handler(lambda s: s.regenerate()), manager=manager)
    later = await call(again, http_scope(reply.token))
    assert "Max-Age=1728000" in later.header("set-cookie")[0]

    def shorten(session: Session) -> None:
        session.absolute_end = clock.now + timedelta(hours=1)

    moved = await call(SessionMiddleware(handler(shorten), manager=manager), http_scope(later.token))
    assert "Max-Age=3600" in moved.header("set-cookie")[0]
    assert moved.token == later.token


async def test_changes_after_the_response_has_started_are_saved_at_its_end(manager: SessionManager) -> None:
    """A stream or a background task may change a session that exists."""
    token = await begin(manager, a=1)

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        scope["session"]["late"] = 1
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        scope["session"].increment("later")

    await call(SessionMiddleware(app, manager=manager), http_scope(token))

    assert await read(manager, token) == {"a": 1, "late": 1, "later": 1}


async def test_late_changes_are_saved_even_if_the_stream_breaks(manager: SessionManager) -> None:
    """A WebSocket ends with an exception as often as not; what came before it counts."""
    token = await begin(manager, a=1)

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        scope["session"]["late"] = 1
        raise ConnectionError("client gone")

    with pytest.raises(ConnectionError):
        await call(SessionMiddleware(app, manager=manager), http_scope(token))

    assert await read(manager, token) == {"a": 1, "late": 1}


async def test_late_save_commits_at_once(manager: SessionManager) -> None:
    """A long stream does not have to wait for its end."""
    token = await begin(manager, a=1)

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        scope["session"]["late"] = 1
        assert await scope["session"].save() is None
        assert await read(manager, token) == {"a": 1, "late": 1}

    await call(SessionMiddleware(app, manager=manager), http_scope(token))


async def test_a_store_down_for_late_changes_is_logged(
    manager: SessionManager, store: TappedStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody is left to tell but the operator."""
    token = await begin(manager, a=1)
    store.before["update"] = broken()

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        scope["session"]["late"] = 1

    reply = await call(SessionMiddleware(app, manager=manager), http_scope(token))

    assert reply.status == 200
    assert "at commit" in caplog.text


@pytest.mark.parametrize("change", ["login", "regenerate"])
async def test_a_late_change_that_needs_a_new_token_is_refused(manager: SessionManager, change: str) -> None:
    """It is refused where it is made, not lost in silence."""
    token = await begin(manager, a=1)

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        with pytest.raises(ResponseStartedError):
            scope["session"].login("ada") if change == "login" else scope["session"].regenerate()

    await call(SessionMiddleware(app, manager=manager), http_scope(token))

    assert (await manager.load(token)).user_id is None


async def test_a_late_write_of_a_stranger_is_refused(manager: SessionManager, store: TappedStore) -> None:
    """There is no session yet, and its token could not be sent."""

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        with pytest.raises(ResponseStartedError):
            scope["session"]["late"] = 1

    await call(SessionMiddleware(app, manager=manager), http_scope())

    assert not store.calls


async def test_a_late_log_out_ends_the_session(manager: SessionManager) -> None:
    """The client keeps a token that opens nothing; writing again would need a new one."""
    token = await begin(manager, "ada")

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        scope["session"].logout()
        with pytest.raises(ResponseStartedError):
            write(scope["session"])

    await call(SessionMiddleware(app, manager=manager), http_scope(token))

    assert await read(manager, token) is None


async def test_a_late_change_of_a_gone_session_is_dropped(manager: SessionManager) -> None:
    """It has ended elsewhere meanwhile: nothing revives it."""
    token = await begin(manager, "ada")

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await manager.revoke(user_id="ada")
        write(scope["session"])
        await scope["session"].save()
        write(scope["session"])

    await call(SessionMiddleware(app, manager=manager), http_scope(token))

    assert await read(manager, token) is None
    assert manager.events.counts["gone"] == 2


async def test_a_change_after_the_request_is_refused(manager: SessionManager) -> None:
    """A task that outlives its request cannot save, and is told so; it may still read."""
    token = await begin(manager, a=1)
    kept: list[Session] = []

    await call(SessionMiddleware(handler(kept.append), manager=manager), http_scope(token))

    session = kept[0]
    assert session["a"] == 1
    changes: list[Callable[[], object]] = [
        lambda: session.update(b=1),
        lambda: session.pop("a"),
        session.popitem,
        session.clear,
        session.logout,
        session.regenerate,
        session.touch,
        lambda: session.increment("n"),
        lambda: session.setdefault("b", 1),
    ]
    for change in changes:
        with pytest.raises(SessionClosedError, match="request has ended"):
            change()
    with pytest.raises(SessionClosedError):
        await session.save()


async def test_a_handler_that_raises_changes_nothing_but_what_it_ended(manager: SessionManager) -> None:
    """No response started: data are dropped, a destroy stands."""
    first, second = await begin(manager, "ada", a=1), await begin(manager, "ada", a=1)

    async def app(scope: Scope, _: Receive, __: Send) -> None:
        write(scope["session"])
        if scope["path"] == "/out":
            scope["session"].destroy()
        raise RuntimeError("of the handler")

    for token, path in ((first, "/"), (second, "/out")):
        with pytest.raises(RuntimeError):
            await call(SessionMiddleware(app, manager=manager), http_scope(token, path=path))

    assert await read(manager, first) == {"a": 1}
    assert await read(manager, second) is None


async def test_a_destroy_that_fails_after_the_handler_did_is_logged(
    manager: SessionManager, store: TappedStore, caplog: pytest.LogCaptureFixture
) -> None:
    """The handler's error is the one to be seen."""
    token = await begin(manager, "ada")
    store.before["delete"] = broken()

    async def app(scope: Scope, _: Receive, __: Send) -> None:
        scope["session"].destroy()
        raise RuntimeError("of the handler")

    with pytest.raises(RuntimeError):
        await call(SessionMiddleware(app, manager=manager), http_scope(token))

    assert "at destroy" in caplog.text


async def test_on_gone_answers_where_a_change_was_dropped(store: TappedStore, clock: Clock) -> None:
    """Only then: a request that changed nothing keeps its own answer."""

    async def gone(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body", "body": b"log in again"})

    async with opened(Config(store=store, on_gone=lambda _: gone), clock) as manager:
        token = await begin(manager, "ada")

        async def work(session: Session) -> None:
            await manager.revoke(user_id="ada")
            write(session)

        reply = await call(SessionMiddleware(handler(work), manager=manager), http_scope(token))
        calm = await call(SessionMiddleware(handler(len), manager=manager), http_scope(token))

    assert (reply.status, reply.body) == (401, b"log in again")
    assert calm.status == 200


async def test_messages_before_the_response_do_not_commit(manager: SessionManager, store: TappedStore) -> None:
    """`http.response.debug`, `.early_hint` and `.push` pass at once."""

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        write(scope["session"])
        for kind in ("debug", "early_hint", "push"):
            await send({"type": f"http.response.{kind}"})
        assert not store.calls
        await send({"type": "http.response.start", "status": 204})
        assert store.calls == {"create": 1}
        await send({"type": "http.response.pathsend", "path": "/x"})

    reply = await call(SessionMiddleware(app, manager=manager), http_scope())

    assert [each["type"].rpartition(".")[2] for each in reply.messages] == [
        *("debug", "early_hint", "push", "start", "pathsend")
    ]


async def test_a_websocket_commits_at_accept(manager: SessionManager) -> None:
    """The handshake carries the token; what comes later is saved when the socket ends."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        write(scope["session"])
        await send({"type": "websocket.accept", "headers": []})
        scope["session"]["late"] = True
        await send({"type": "websocket.close"})

    reply = await call(SessionMiddleware(app, manager=manager), websocket_scope(), {"type": "websocket.connect"})

    assert reply.token
    assert "headers" not in reply.messages[1]
    assert await read(manager, reply.token) == {"written": True, "late": True}


async def test_a_refused_websocket_commits_without_a_token(manager: SessionManager) -> None:
    """A `websocket.close` before accept has no headers: what would need them is refused, the rest is saved."""
    token = await begin(manager, a=1)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        write(scope["session"])
        await send({"type": "websocket.close", "code": 4000})

    reply = await call(SessionMiddleware(app, manager=manager), websocket_scope(token), {"type": "websocket.connect"})
    assert reply.messages == [{"type": "websocket.close", "code": 4000}]
    assert await read(manager, token) == {"a": 1, "written": True}
    with pytest.raises(TokenUndeliverableError):
        await call(SessionMiddleware(app, manager=manager), websocket_scope(), {"type": "websocket.connect"})


@pytest.mark.parametrize("denial", [True, False])
async def test_a_websocket_meets_an_outage_as_a_503_or_a_close(
    manager: SessionManager, store: TappedStore, denial: bool
) -> None:
    """Where the server can send a denial response, it is our 503; else code 1013, "try again later"."""
    token = await begin(manager, a=1)
    store.before["load"] = broken()
    scope = websocket_scope(token, extensions={"websocket.http.response": {}} if denial else {})

    async def app(scope: Scope, receive: Receive, _: Send) -> None:
        await receive()
        scope["session"]["a"]

    reply = await call(SessionMiddleware(app, manager=manager), scope, {"type": "websocket.connect"})

    if denial:
        assert reply.status == 503
    else:
        assert reply.messages == [{"type": "websocket.close", "code": 1013}]


async def test_an_open_websocket_meets_an_outage_as_a_close(manager: SessionManager, store: TappedStore) -> None:
    """After accept there is only the close code."""
    token = await begin(manager, a=1)
    store.before["load"] = broken()

    app = SessionMiddleware(socket(lambda session: session["a"]), manager=manager)
    reply = await call(app, websocket_scope(token), {"type": "websocket.connect"})

    assert [each["type"] for each in reply.messages] == ["websocket.accept", "websocket.close"]
    assert reply.messages[1]["code"] == 1013


async def test_a_closed_websocket_is_not_closed_again(manager: SessionManager, store: TappedStore) -> None:
    """What fails after the end is raised, as any error of the application."""
    token = await begin(manager, a=1)
    store.before["load"] = broken()

    from asgi_sessions.errors import StoreUnavailableError  # noqa: PLC0415 - only here

    app = SessionMiddleware(socket(lambda session: session["a"], accept=False), manager=manager)
    with pytest.raises(StoreUnavailableError):
        await call(app, websocket_scope(token), {"type": "websocket.connect"})


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:80", "shop.localhost"])
async def test_no_warning_on_loopback(manager: SessionManager, host: str) -> None:
    """Browsers take a `Secure` cookie from this machine over plain HTTP."""
    scope = {**http_scope(scheme="http"), "headers": [(b"host", host.encode())]}

    reply = await call(SessionMiddleware(handler(write), manager=manager), scope)

    assert reply.token


async def test_one_warning_where_a_browser_would_drop_the_cookie(manager: SessionManager) -> None:
    """It names the three ways out, once."""
    app = SessionMiddleware(handler(write), manager=manager)
    with pytest.warns(SessionWarning, match=r"base_url=.*proxy.*secure=False"):
        await call(app, http_scope(scheme="http"))

    reply = await call(app, http_scope(scheme="http"))  # a second warning would be an error

    assert reply.token


async def _live(app: ASGIApp) -> list[str]:
    """Run a lifespan from start to end; return what was sent."""
    sent: list[str] = []
    pending = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive() -> Message:
        return pending.pop(0)

    async def send(message: Message) -> None:
        sent.append(message["type"])

    await app({"type": "lifespan"}, receive, send)
    return sent


async def _lifespan(_: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def test_the_lifespan_opens_sweeps_and_closes(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is open before the application starts, swept in the background, closed when it has stopped."""
    monkeypatch.setattr("asgi_sessions._manager._SWEEP_EVERY", timedelta(0))
    store = TappedStore(clock)
    swept, steps = anyio.Event(), []
    failing = broken()

    async def on_open() -> None:
        steps.append("open")

    async def on_sweep() -> None:
        if store.calls["sweep"] == 1:
            await failing()  # is logged, and tried again
        swept.set()

    store.before |= {"open": on_open, "sweep": on_sweep}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        steps.append("start")
        await swept.wait()
        await _lifespan(scope, receive, send)

    sent = await _live(SessionMiddleware(app, manager=SessionManager(Config(store=store), clock=clock)))

    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert steps == ["open", "start"]
    assert store.calls["sweep"] >= 2


async def test_an_application_without_lifespan_raises_its_own_error(manager: SessionManager) -> None:
    """Servers take any error at startup for "not supported": ours must not hide or wrap it."""

    async def app(*_: object) -> None:
        raise AssertionError("http only")

    with pytest.raises(AssertionError, match="http only"):
        await _live(SessionMiddleware(app, manager=manager))


async def test_a_setting_that_cannot_work_fails_the_startup(store: TappedStore, clock: Clock) -> None:
    """The server shows why, in place of an application whose every request fails."""
    store.before["open"] = broken(ConfigError("no such directory"))
    manager = SessionManager(Config(store=store), clock=clock)

    assert await _live(SessionMiddleware(_lifespan, manager=manager)) == ["lifespan.startup.failed"]
