"""Requests that last, overlap, repeat themselves or change their mind: what others did meanwhile is not undone."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import anyio
import pytest

from asgi_sessions import Config, Issue, Session, SessionManager, SessionMiddleware, bearer, cookie, header
from asgi_sessions._types import Message, Receive, Scope, Send
from asgi_sessions.errors import (
    CommitConflictError,
    ConfigError,
    SessionClosedError,
    StoreUnavailableError,
)
from asgi_sessions.stores import SQLiteStore
from tests.support import T0, Clock, TappedStore, begin, broken, call, handler, http_scope, opened, read


@pytest.fixture
async def manager(store: TappedStore, clock: Clock) -> AsyncIterator[SessionManager]:
    """Return a manager with a short patience."""
    async with opened(Config(store=store, store_timeout=timedelta(milliseconds=100)), clock) as manager:
        yield manager


async def visit(manager: SessionManager, token: str) -> None:
    """Come by, and only look."""
    await manager.commit(await manager.load(token))


async def test_a_late_write_does_not_undo_the_touches_of_others(manager: SessionManager, clock: Clock) -> None:
    """A socket opened half an hour ago writes into the session of a busy user: it lives on from the last request."""
    token = await begin(manager, "ada", a=1)
    socket = await manager.load(token)
    for _ in range(33):
        clock.advance(minutes=1)
        await visit(manager, token)
    socket["x"] = 1

    await manager.save(socket)

    clock.advance(minutes=29)
    assert await read(manager, token) == {"a": 1, "x": 1}


async def test_the_stream_that_made_a_session_does_not_end_it(manager: SessionManager, clock: Clock) -> None:
    """Once the client has returned the token, `first_life` is over, also for the request that began it."""
    stream = await manager.load()
    stream["a"] = 1
    token = await stream.save()
    assert token is not None
    for _ in range(20):
        clock.advance(minutes=1)
        await visit(manager, token)
    stream["b"] = 2

    await stream.save()

    assert await read(manager, token) == {"a": 1, "b": 2}


@pytest.mark.parametrize("user", ["ada", None])
async def test_what_begins_late_lasts_from_then(manager: SessionManager, clock: Clock, user: str | None) -> None:
    """A job that logs in after an hour hands out a token that works."""
    async with manager.open() as session:
        clock.advance(hours=1)
        session["a"] = 1
        if user is not None:
            session.login(user)
        token = await session.save()

    assert token is not None
    assert await read(manager, token) == {"a": 1}


def test_event_loops_do_not_wait_for_each_other(tmp_path: Path) -> None:
    """Two threads, each with a loop of its own, write to one session over one manager."""
    manager = SessionManager(Config(store=SQLiteStore(tmp_path / "s.db"), store_timeout=timedelta(seconds=20)))
    errors: list[BaseException] = []

    async def make() -> str:
        session = await manager.load()
        session.login("ada")
        await session.save()
        return session.id

    id = asyncio.run(make())

    async def increment() -> None:
        async with manager.open_id(id) as session:
            session.increment("n")

    async def work() -> None:
        await manager._bounded.ready()
        for _ in range(10):
            await asyncio.gather(increment(), increment(), increment())
        await manager.store.close()

    def run() -> None:
        try:
            asyncio.run(work())
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test says so
            errors.append(error)

    threads = [Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    async def total() -> int:
        async with manager.open_id(id) as session:
            number: int = session["n"]
        await manager.store.close()
        return number

    assert errors == []
    assert asyncio.run(total()) == 60


async def test_a_load_that_failed_can_be_tried_again(manager: SessionManager, store: TappedStore) -> None:
    """And until it succeeds, the session is not an empty one."""
    token = await begin(manager, "ada", a=1)
    store.before["load"] = broken()
    session = await manager.load(token)
    for again in (session.reload, session.load):
        await again()
        with pytest.raises(StoreUnavailableError):
            session["n"] = 1
    del store.before["load"]

    await session.load()

    assert (session["a"], session.user_id) == (1, "ada")


async def test_a_reload_that_failed_can_be_tried_again(manager: SessionManager, store: TappedStore) -> None:
    """The same for a session that was loaded before, by token or by ID."""
    token = await begin(manager, "ada", a=1)
    async with manager.open_id(token.partition(".")[0]) as job:
        for session in (await manager.load(token), job):
            store.before["load"] = broken()
            await session.reload()
            with pytest.raises(StoreUnavailableError):
                session["n"] = 1
            del store.before["load"]
            await session.reload()
            assert (session["a"], session.is_gone) == (1, False)


@pytest.mark.parametrize("lazy", [True, False])
async def test_a_load_that_was_cancelled_can_be_done_again(
    manager: SessionManager, store: TappedStore, lazy: bool
) -> None:
    """A timeout around it leaves the session as it was."""
    token = await begin(manager, "ada", a=1)
    session = manager.defer(token) if lazy else await manager.load(token)
    store.before["load"] = anyio.sleep_forever
    with anyio.move_on_after(0.01):
        await session.reload()
    del store.before["load"]
    if lazy:
        await session.load()

    assert (session["a"], session.user_id) == (1, "ada")


async def test_two_tasks_may_load_one_lazy_session(manager: SessionManager, store: TappedStore) -> None:
    """Neither takes what the other has written for nothing."""
    session = manager.defer(await begin(manager, a=1))

    async def one(key: str) -> None:
        await session.load()
        session[key] = 1

    store.before["load"] = anyio.lowlevel.checkpoint
    async with anyio.create_task_group() as group:
        group.start_soon(one, "b")
        group.start_soon(one, "c")

    assert session == {"a": 1, "b": 1, "c": 1}


@pytest.mark.parametrize("end", ["clear", "logout"])
async def test_an_old_token_does_not_end_the_log_in_that_replaced_it(manager: SessionManager, end: str) -> None:
    """Neither a request under way with it, nor one that comes within the grace period; the new cookie stays."""
    token = await begin(manager, cart=1)
    early, logging_in = await manager.load(token), await manager.load(token)
    logging_in.login("ada")
    answer = await manager.commit(logging_in)
    assert isinstance(answer, Issue)
    late = await manager.load(token)
    for session in (early, late):
        getattr(session, end)()
    late["x"] = 1

    assert await manager.commit(early) is None
    assert await manager.commit(late) is None

    assert (await manager.load(answer.token)).user_id == "ada"


async def test_a_log_out_ends_what_others_have_written_meanwhile(manager: SessionManager) -> None:
    """A write or a regeneration that came first does not save the session."""
    token = await begin(manager, "ada", cart=1)
    ending, writing = await manager.load(token), await manager.load(token)
    ending.logout()
    writing["cart"] = 2
    writing.regenerate()
    answer = await manager.commit(writing)
    assert isinstance(answer, Issue)

    assert await manager.commit(ending) is not None

    assert await read(manager, answer.token) is None


async def test_a_log_out_that_keeps_losing_still_ends_the_session(
    manager: SessionManager, store: TappedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After so many attempts it does not ask for the version any more."""
    from tests.test_races import _next  # noqa: PLC0415 - the same rival

    token = await begin(manager, "ada", cart=1)
    session = await manager.load(token)
    id = session.id
    monkeypatch.setattr("asgi_sessions._committer._ATTEMPTS", 3)

    async def rival() -> None:
        record = await store.inner.load(id)
        assert record is not None
        await store.inner.update(_next(record), expected=record.version)

    store.before["delete"] = rival
    session.logout()
    await manager.commit(session)

    assert store.calls["delete"] == 4
    assert await read(manager, token) is None


async def test_a_job_that_logs_in_another_user_gets_none_of_the_first_ones_data(manager: SessionManager) -> None:
    """A QR code confirmed while the browser logs in by itself: two sessions, nothing shared."""
    token = await begin(manager, a=1)
    async with manager.open_id(token.partition(".")[0]) as job:
        browser = await manager.load(token)
        browser.login("ada")
        browser["secret"] = "of Ada"
        ada = await browser.save()
        job.login("bob")
        bob = await job.save()

    assert ada is not None
    assert bob is not None
    assert ((await manager.load(bob)).user_id, await read(manager, bob)) == ("bob", {})
    assert (await manager.load(ada)).user_id == "ada"


async def test_a_token_replaced_twice_is_not_a_strangers(manager: SessionManager) -> None:
    """A log-in and a regeneration in one request: what was under way with the first token makes no new session."""
    token = await begin(manager, a=1)
    session = await manager.load(token)
    session.login("ada")
    await session.save()
    session.regenerate()
    await manager.commit(session)

    late = await manager.load(token)
    late["csrf"] = 1

    assert late.is_gone
    assert await manager.commit(late) is None


async def test_a_sweep_in_passing_has_a_deadline_and_may_fail(store: TappedStore, clock: Clock) -> None:
    """The request is answered, whatever becomes of it."""
    manager = SessionManager(Config(store=store, store_timeout=timedelta(milliseconds=50)), clock=clock)
    for fault in (anyio.sleep_forever, broken(ConfigError("no such directory"))):
        clock.advance(hours=1)
        store.before["sweep"] = fault
        with anyio.fail_after(10):
            await begin(manager, a=1)

    assert manager.events.counts["store_error"] == 2


async def test_a_revocation_has_a_deadline(manager: SessionManager, store: TappedStore) -> None:
    """A handler that ends all others is not left hanging."""
    store.before["delete_user"] = anyio.sleep_forever

    with anyio.fail_after(10), pytest.raises(StoreUnavailableError):
        await manager.revoke(user_id="ada")


async def test_merging_into_what_is_gone_keeps_the_other(manager: SessionManager) -> None:
    """The data are never in neither."""
    token, other = await begin(manager, a=1), await begin(manager, b=2)
    session = await manager.load(token)
    await manager.delete(session.id)

    assert await manager.merge(session, other) is None

    assert await read(manager, other) == {"b": 2}


async def test_merging_takes_what_is_written_to_the_other_meanwhile(
    manager: SessionManager, store: TappedStore
) -> None:
    """A write acknowledged between the load and the end of the other is brought along."""
    token, other = await begin(manager, a=1), await begin(manager, b=2)
    writer = await manager.load(other)
    writer["c"] = 3

    async def write() -> None:
        store.before.pop("delete")
        await manager.commit(writer)

    store.before["delete"] = write
    await manager.merge(await manager.load(token), other)

    assert await read(manager, token) == {"a": 1, "b": 2, "c": 3}
    assert await read(manager, other) is None


async def test_merging_with_a_store_that_is_down_raises(manager: SessionManager, store: TappedStore) -> None:
    """It is not taken for "nothing to merge"."""
    token, other = await begin(manager, a=1), await begin(manager, b=2)
    session = await manager.load(token)
    store.before["load"] = broken()

    with pytest.raises(StoreUnavailableError):
        await manager.merge(session, other)


async def test_merging_with_what_never_rests_gives_up(manager: SessionManager, store: TappedStore) -> None:
    """A bounded number of times."""
    token, other = await begin(manager, a=1), await begin(manager, n=0)

    async def write() -> None:
        writer = await manager.load(other)
        writer.increment("n")
        await manager.commit(writer)

    store.before["delete"] = write

    with pytest.raises(CommitConflictError):
        await manager.merge(await manager.load(token), other)


@pytest.mark.parametrize("verb", ["create", "update"])
async def test_a_save_whose_answer_came_too_late_is_not_done_twice(
    manager: SessionManager, store: TappedStore, verb: str
) -> None:
    """The next commit finds its nonce in the record."""
    token = await begin(manager, n=1) if verb == "update" else None
    session = await manager.load(token)
    session.increment("n")
    store.after[verb] = anyio.sleep_forever
    with pytest.raises(StoreUnavailableError):
        await session.save()
    del store.after[verb]
    session["more"] = True

    answer = await manager.commit(session)

    held = await read(manager, token or (answer.token if isinstance(answer, Issue) else ""))
    assert held == {"n": 2 if token else 1, "more": True}
    assert len([each async for each in store.records()]) == 1


async def test_a_save_that_never_arrived_is_done_by_the_next(manager: SessionManager, store: TappedStore) -> None:
    """Nothing of it is lost, and nothing counted twice."""
    token = await begin(manager, n=1)
    session = await manager.load(token)
    session.increment("n")
    store.before["update"] = anyio.sleep_forever
    with pytest.raises(StoreUnavailableError):
        await session.save()
    del store.before["update"]

    await manager.commit(session)

    assert await read(manager, token) == {"n": 2}


async def test_a_new_session_reloaded_still_hands_out_its_token(manager: SessionManager) -> None:
    """How a token goes back depends on how the request came."""

    async def work(session: Session) -> None:
        session["a"] = 1
        await session.save()
        await session.reload()

    reply = await call(SessionMiddleware(handler(work), manager=manager), http_scope())

    assert reply.token
    assert await read(manager, reply.token) == {"a": 1}


async def test_a_token_of_what_is_gone_is_not_sent(manager: SessionManager) -> None:
    """Regenerated, saved, revoked, written to: no header at all."""
    token = await begin(manager, "ada")

    async def work(session: Session) -> None:
        session.regenerate()
        await session.save()
        await manager.delete(session.id)
        session["b"] = 1

    reply = await call(SessionMiddleware(handler(work), manager=manager), http_scope(token))

    assert reply.token is None


async def test_a_log_in_after_a_change_was_dropped_is_answered(store: TappedStore, clock: Clock) -> None:
    """`on_gone` does not take the place of what came after it."""

    async def gone(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 401})

    async with opened(Config(store=store, on_gone=lambda _: gone), clock) as manager:
        token = await begin(manager, "ada")

        async def work(session: Session) -> None:
            await manager.delete(session.id)
            session["b"] = 1
            await session.save()
            assert session.is_gone
            session.login("ada")

        reply = await call(SessionMiddleware(handler(work), manager=manager), http_scope(token))

    assert reply.status == 200
    assert reply.token


async def test_a_log_out_during_a_save_is_carried_out(manager: SessionManager, store: TappedStore) -> None:
    """The save that was under way does not outlive it."""
    session = await manager.load()
    session.login("ada")
    entered, go_on = anyio.Event(), anyio.Event()

    async def hold() -> None:
        entered.set()
        await go_on.wait()

    store.before["create"] = hold
    async with anyio.create_task_group() as group:
        group.start_soon(manager.save, session)
        await entered.wait()
        session["late"] = True
        session.logout()
        go_on.set()
    await manager.commit(session)

    assert [each async for each in store.records()] == []


async def test_two_saves_at_once_make_one_session(manager: SessionManager, store: TappedStore) -> None:
    """Tasks of one request that save at once do so one after the other."""
    session = await manager.load()
    session["a"] = 1
    store.before["create"] = anyio.lowlevel.checkpoint

    async with anyio.create_task_group() as group:
        group.start_soon(manager.save, session)
        group.start_soon(manager.save, session)

    assert store.calls["create"] == 1


async def test_a_change_during_the_last_commit_is_refused(manager: SessionManager, store: TappedStore) -> None:
    """Nothing would save it."""
    token = await begin(manager, a=1)
    refused = anyio.Event()

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        session = scope["session"]
        await send({"type": "http.response.start", "status": 200})
        session["late"] = 1

        async def meanwhile() -> None:
            with pytest.raises(SessionClosedError):
                session["later"] = 1
            refused.set()

        store.before["update"] = meanwhile

    await call(SessionMiddleware(app, manager=manager), http_scope(token))

    assert refused.is_set()
    assert await read(manager, token) == {"a": 1, "late": 1}


async def test_a_log_out_stands_though_the_client_has_vanished(manager: SessionManager) -> None:
    """It is carried out before anything is told to a connection that may be gone."""
    token = await begin(manager, "ada")

    async def app(scope: Scope, _: Receive, __: Send) -> None:
        scope["session"].logout()
        raise CommitConflictError

    async def send(_: Message) -> None:
        raise OSError("client gone")

    with pytest.raises(OSError, match="client gone"):
        await SessionMiddleware(app, manager=manager)(http_scope(token), anyio.sleep_forever, send)  # type: ignore[arg-type]

    assert await read(manager, token) is None


async def test_a_replaced_answer_does_not_swallow_a_cancellation(manager: SessionManager, store: TappedStore) -> None:
    """Who cancels the request is heard, also after its answer has been replaced."""
    store.before["create"] = broken()
    reached = []

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        scope["session"]["a"] = 1
        try:
            await send({"type": "http.response.start", "status": 200})
        except OSError:
            await anyio.sleep_forever()

    with anyio.move_on_after(0.05) as moved:
        await call(SessionMiddleware(app, manager=manager), http_scope())
        reached.append("the end of a request that never ended")

    assert moved.cancelled_caught
    assert reached == []


async def test_a_crash_after_a_replaced_answer_is_logged(
    manager: SessionManager, store: TappedStore, caplog: pytest.LogCaptureFixture
) -> None:
    """The client has its 503; the error is still to be found."""
    caplog.set_level("INFO", "asgi_sessions")
    store.before["create"] = broken()

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        scope["session"]["a"] = 1
        try:
            await send({"type": "http.response.start", "status": 200})
        finally:
            raise ZeroDivisionError("of the handler")

    reply = await call(SessionMiddleware(app, manager=manager), http_scope())

    assert reply.status == 503
    assert "of the handler" in caplog.text


async def test_a_token_of_one_name_opens_nothing_under_another(store: TappedStore, clock: Clock) -> None:
    """A shop's session sent as the office's cookie is unknown there, and not listed."""
    async with opened(Config(store=store), clock) as shop, opened(Config(store=store, name="office"), clock) as office:
        token = await begin(shop, "mallory")

        assert (await office.load(token)).user_id is None
        assert [session async for session in office.sessions()] == []
        assert (await shop.load(token)).user_id == "mallory"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the SQLite store's: a memory store has nothing to close
async def test_a_block_within_a_running_application_leaves_its_store_open(tmp_path: Path) -> None:
    """`async with manager` in a job closes nothing that the application still uses."""
    async with SessionManager(Config(store=SQLiteStore(tmp_path / "s.db"))) as manager:
        session = await manager.load()
        session["a"] = 1
        async with manager:
            pass

        assert await manager.commit(session) is not None


async def test_a_store_that_cannot_be_closed_is_logged(
    store: TappedStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The application still stops, and says so."""
    store.close = broken()  # type: ignore[method-assign,assignment]

    async with opened(Config(store=store), clock):
        pass

    assert "at close" in caplog.text


async def test_a_cancelled_lifespan_closes_the_store(store: TappedStore, clock: Clock) -> None:
    """A server that ends hard leaves nothing open."""
    closed = anyio.Event()

    async def close() -> None:
        closed.set()

    store.close = close  # type: ignore[method-assign]

    async def app(*_: object) -> None:
        await anyio.sleep_forever()

    middleware = SessionMiddleware(app, manager=SessionManager(Config(store=store), clock=clock))
    with anyio.move_on_after(0.05):
        await middleware({"type": "lifespan"}, anyio.sleep_forever, anyio.sleep_forever)  # type: ignore[arg-type]

    assert closed.is_set()


@pytest.mark.parametrize("way", ["header", "bearer"])
async def test_a_superseded_token_is_answered_the_way_it_came(store: TappedStore, clock: Clock, way: str) -> None:
    """A log-in with a header's old token gets its new one there, and never a cookie."""
    async with opened(Config(store=store, extractors=(cookie(), header("X-S"), bearer())), clock) as manager:
        token = await begin(manager, a=1)
        first = await manager.load(token)
        first.login("ada")
        await manager.commit(first)
        name, value = (b"x-s", token) if way == "header" else (b"authorization", f"Bearer {token}")
        tokens: list[Any] = []

        async def work(session: Session) -> None:
            session.login("ada")
            tokens.append(await session.save())

        reply = await call(
            SessionMiddleware(handler(work), manager=manager), http_scope(headers=[(name, value.encode())])
        )

    assert reply.header("set-cookie") == []
    assert reply.header("x-s") == (tokens if way == "header" else [])


async def test_an_answer_in_place_of_the_handlers_is_not_stored(store: TappedStore, clock: Clock) -> None:
    """It depends on the session like any other."""

    async def sorry(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 503, "headers": [(b"cache-control", b"max-age=60")]})
        await send({"type": "http.response.body", "body": b"sorry"})

    async with opened(Config(store=store, on_error=lambda *_: sorry), clock) as manager:
        store.before["create"] = broken()
        app = SessionMiddleware(handler(lambda session: session.update(a=1)), manager=manager)
        reply = await call(app, http_scope())

    assert (reply.status, reply.body) == (503, b"sorry")
    assert reply.header("cache-control") == ["no-store"]
    assert reply.header("vary") == ["Cookie"]


async def test_an_outage_met_in_a_task_group_is_a_503(manager: SessionManager, store: TappedStore) -> None:
    """Groups are looked into; one without our error is the application's."""
    token = await begin(manager, a=1)
    store.before["load"] = broken()

    async def app(scope: Scope, _: Receive, __: Send) -> None:
        async def look() -> None:
            assert scope["session"]["a"]

        async with anyio.create_task_group() as group:
            group.start_soon(look)

    async def other(*_: object) -> None:
        raise ExceptionGroup("of the application", [RuntimeError()])

    assert (await call(SessionMiddleware(app, manager=manager), http_scope(token))).status == 503
    with pytest.raises(ExceptionGroup):
        await call(SessionMiddleware(other, manager=manager), http_scope(token))


async def test_a_session_emptied_and_begun_again_has_its_first_life(manager: SessionManager) -> None:
    """It is a new one, whose token the client has yet to return."""
    session = await manager.load(await begin(manager, a=1))
    del session["a"]
    await session.save()
    session["b"] = 1

    await session.save()

    assert session.expires_at == T0 + timedelta(minutes=15)


async def test_remembering_takes_a_span_or_a_yes(manager: SessionManager) -> None:
    """A number of seconds is refused, not ignored."""
    session = await manager.load()
    seconds: Any = 3600
    with pytest.raises(ConfigError, match=r"timedelta\(seconds=3600\)"):
        session.login("ada", remember=seconds)


async def test_an_increment_of_what_was_deleted_meanwhile_begins_again(manager: SessionManager) -> None:
    """Where adding to nothing cannot be done, ours takes its place."""
    token = await begin(manager, n=1.5, a=1)
    one, other = await manager.load(token), await manager.load(token)
    one["n"] = "text"
    other.increment("n")
    del one["n"]
    await manager.commit(one)
    await manager.commit(other)

    assert await read(manager, token) == {"n": 1, "a": 1}


async def timed_out(manager: SessionManager, store: TappedStore, session: Session, verb: str) -> None:
    """Save, with an answer that comes too late though the write is carried out."""
    store.after[verb] = anyio.sleep_forever
    with pytest.raises(StoreUnavailableError):
        await manager.save(session)
    del store.after[verb]


@pytest.mark.parametrize("ask", ["login", "regenerate", "idle_timeout"])
async def test_what_is_asked_after_an_unanswered_save_is_done(
    manager: SessionManager, store: TappedStore, ask: str
) -> None:
    """Finding out that the save had arrived does not swallow what came after it."""
    session = await manager.load(await begin(manager, a=1))
    session["x"] = 1
    await timed_out(manager, store, session, "update")
    if ask == "idle_timeout":
        session.idle_timeout = timedelta(hours=2)
    else:
        session.login("ada") if ask == "login" else session.regenerate()

    answer = await manager.commit(session)

    assert isinstance(answer, Issue) == (ask != "idle_timeout")
    async with manager.open_id(session.id) as stored:
        assert stored == {"a": 1, "x": 1}
        assert stored.user_id == ("ada" if ask == "login" else None)
        assert stored.idle_timeout == timedelta(minutes=120 if ask == "idle_timeout" else 30)
    assert manager.events.counts["login"] == (ask == "login")


@pytest.mark.parametrize("ask", ["login", "regenerate"])
async def test_what_is_asked_during_a_save_is_done(manager: SessionManager, store: TappedStore, ask: str) -> None:
    """By another task of the request."""
    session = await manager.load(await begin(manager, a=1))
    session["x"] = 1

    async def meanwhile() -> None:
        store.before.pop("update")
        session.login("ada") if ask == "login" else session.regenerate()

    store.before["update"] = meanwhile
    await session.save()

    answer = await manager.commit(session)

    assert isinstance(answer, Issue)
    assert (await manager.load(answer.token)).user_id == ("ada" if ask == "login" else None)


async def test_a_late_log_in_survives_its_next_commit(manager: SessionManager, clock: Clock) -> None:
    """What begins late lasts from then, for every write of that request."""
    async with manager.open() as session:
        clock.advance(hours=1)
        session.login("ada")
        token = await session.save()
        session["cart"] = 1

    assert token is not None
    clock.advance(minutes=29)
    assert (await manager.load(token)).user_id == "ada"


async def test_a_job_that_empties_a_session_leaves_a_log_in_alone(manager: SessionManager) -> None:
    """It emptied an anonymous session, and that is a user's by now."""
    token = await begin(manager, a=1)
    async with manager.open_id(token.partition(".")[0]) as job:
        browser = await manager.load(token)
        browser.login("ada")
        answer = await manager.commit(browser)
        del job["a"]

    assert isinstance(answer, Issue)
    after = await manager.load(answer.token)
    assert (after.user_id, after.copy()) == ("ada", {})


async def test_what_is_written_while_a_session_is_emptied_begins_anew(
    manager: SessionManager, store: TappedStore
) -> None:
    """A task that writes meanwhile is not lost."""
    session = await manager.load(await begin(manager, a=1))
    del session["a"]

    async def meanwhile() -> None:
        session["b"] = 2

    store.before["delete"] = meanwhile
    await session.save()

    answer = await manager.commit(session)

    assert isinstance(answer, Issue)
    assert await read(manager, answer.token) == {"b": 2}


async def test_a_reload_after_an_unanswered_save_reads_what_is_stored(
    manager: SessionManager, store: TappedStore
) -> None:
    """And what others do later is not taken back by a commit that changed nothing."""
    token = await begin(manager, a=1)
    session = await manager.load(token)
    session["a"] = "mine"
    await timed_out(manager, store, session, "update")
    for value in ("theirs", "theirs again"):
        other = await manager.load(token)
        other["a"] = value
        await manager.commit(other)
        if value == "theirs":
            await session.reload()
            assert session["a"] == "theirs"

    await manager.commit(session)

    assert await read(manager, token) == {"a": "theirs again"}


async def test_settling_an_unanswered_save_may_fail_and_is_logged(
    manager: SessionManager, store: TappedStore, caplog: pytest.LogCaptureFixture
) -> None:
    """The store is still down: the commit fails as any other."""
    session = await manager.load(await begin(manager, a=1))
    session["a"] = 2
    await timed_out(manager, store, session, "update")
    caplog.clear()
    store.before["load"] = broken()

    with pytest.raises(StoreUnavailableError):
        await manager.commit(session)

    assert "at commit" in caplog.text


async def test_a_write_that_arrives_after_it_was_looked_for_counts_once(
    manager: SessionManager, store: TappedStore
) -> None:
    """The retry loses the race to its own first try, and recognises it."""
    token = await begin(manager, n=0)
    session = await manager.load(token)
    session.increment("n")
    held: list[Any] = []
    update = store.inner.update

    async def keep(*args: Any, **kwargs: Any) -> Any:
        held.append((args, kwargs))
        await anyio.sleep_forever()

    store.inner.update = keep  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailableError):
        await session.save()
    store.inner.update = update  # type: ignore[method-assign]

    async def arrive() -> None:
        store.before.pop("update")
        (args, kwargs) = held[0]
        await update(*args, **kwargs)

    store.before["update"] = arrive
    await manager.commit(session)

    assert await read(manager, token) == {"n": 1}


async def test_a_log_out_whose_answer_came_too_late_is_told(manager: SessionManager, store: TappedStore) -> None:
    """The record is gone, and it was this request that ended it."""
    session = await manager.load(await begin(manager, "ada"))
    session.logout()
    await timed_out(manager, store, session, "delete")

    assert await manager.commit(session) is not None

    assert manager.events.counts["logout"] == 1


async def test_the_request_that_made_a_session_does_not_shorten_its_life(manager: SessionManager, clock: Clock) -> None:
    """A page that streams for some seconds, while its visitor has long returned with the cookie."""
    stream = await manager.load()
    stream["a"] = 1
    token = await stream.save()
    assert token is not None
    clock.advance(seconds=1)
    await visit(manager, token)
    clock.advance(seconds=1)
    stream["b"] = 1

    await stream.save()

    assert (await manager.load(token)).last_seen == T0 + timedelta(seconds=1)
    clock.advance(minutes=29)
    assert await read(manager, token) == {"a": 1, "b": 1}


async def test_a_setting_that_fails_at_open_leaves_nothing_counted(store: TappedStore, clock: Clock) -> None:
    """A later block still closes the store at its end."""
    manager = SessionManager(Config(store=store), clock=clock)
    store.before["open"] = broken(ConfigError("no such directory"))
    with pytest.raises(ConfigError):
        await manager.__aenter__()
    del store.before["open"]
    closed = anyio.Event()

    async def close() -> None:
        closed.set()

    store.close = close  # type: ignore[method-assign]

    async with manager:
        pass

    assert closed.is_set()


async def test_a_job_whose_session_is_missing_after_a_failed_load_finds_it_gone(
    manager: SessionManager, store: TappedStore
) -> None:
    """Loaded again, it is not a stranger's that could be written to."""
    store.before["load"] = broken()
    async with manager.open_id("nowhere") as session:
        del store.before["load"]
        await session.reload()
        assert session.is_gone
        session["a"] = 1

    assert store.calls["create"] == 0


async def test_one_of_two_loads_that_succeeds_is_enough(manager: SessionManager, store: TappedStore) -> None:
    """The one that failed first does not seal what the other has read, nor the other way round."""
    session = manager.defer(await begin(manager, a=1))
    failing, waiting = broken(), anyio.Event()

    async def first_fails() -> None:
        if store.calls["load"] == 1:
            await failing()
        await waiting.wait()

    async def load() -> None:
        await session.load()
        waiting.set()

    store.before["load"] = first_fails
    async with anyio.create_task_group() as group:
        group.start_soon(load)
        group.start_soon(load)

    assert session == {"a": 1}


async def test_a_load_that_fails_after_another_has_succeeded_changes_nothing(
    manager: SessionManager, store: TappedStore
) -> None:
    """The session stays loaded."""
    session = manager.defer(await begin(manager, a=1))
    loaded, failing = anyio.Event(), broken()

    async def second_fails() -> None:
        if store.calls["load"] == 2:
            await loaded.wait()
            await failing()

    async def load() -> None:
        await session.load()
        loaded.set()

    store.before["load"] = second_fails
    async with anyio.create_task_group() as group:
        group.start_soon(load)
        group.start_soon(load)

    assert session == {"a": 1}


async def test_errors_beside_an_outage_are_logged(
    manager: SessionManager, store: TappedStore, caplog: pytest.LogCaptureFixture
) -> None:
    """The client has its 503; a bug that came with it is to be found."""
    token = await begin(manager, a=1)
    store.before["load"] = broken()

    async def app(scope: Scope, _: Receive, __: Send) -> None:
        try:
            scope["session"]["a"]
        except StoreUnavailableError as error:
            raise ExceptionGroup("two", [ValueError("a bug"), error]) from None

    reply = await call(SessionMiddleware(app, manager=manager), http_scope(token))

    assert reply.status == 503
    assert "a bug" in caplog.text


async def test_a_save_that_never_arrived_merges_with_what_came_meanwhile(
    manager: SessionManager, store: TappedStore
) -> None:
    """Another's write is not taken for our own."""
    token = await begin(manager, n=0)
    session, other = await manager.load(token), await manager.load(token)
    session.increment("n")
    other.increment("n")
    store.before["update"] = anyio.sleep_forever
    with pytest.raises(StoreUnavailableError):
        await session.save()
    del store.before["update"]
    await manager.commit(other)

    await manager.commit(session)

    assert await read(manager, token) == {"n": 2}
