"""The table "When things go wrong" of docs/design.md, row by row, through the middleware."""

import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import anyio
import pytest

from asgi_sessions import Config, Issue, SessionManager, SessionMiddleware
from asgi_sessions._types import Message, Receive, Scope, Send
from asgi_sessions.errors import ConfigError, EncodeError, SessionClosedError, StoreUnavailableError
from tests.support import Clock, Reply, TappedStore, begin, broken, call, handler, http_scope, opened, read


@pytest.fixture
async def manager(store: TappedStore, clock: Clock) -> AsyncIterator[SessionManager]:
    """Return a manager with a short patience, so that a store that hangs is given up quickly."""
    async with opened(Config(store=store, store_timeout=timedelta(milliseconds=50)), clock) as manager:
        yield manager


def write(session: Any) -> None:
    """Change something."""
    session["written"] = True


async def _overwrite(store: TappedStore, token: str, data: bytes) -> None:
    """Put other bytes into a record, as a broken disk or a foreign program would."""
    record = await store.inner.load(token.partition(".")[0])
    assert record is not None
    await store.inner.update(replace(record, data=data, version=record.version + 1), expected=record.version)


async def hang() -> None:
    """Answer never."""
    await anyio.sleep_forever()


@pytest.mark.parametrize("fault", [broken(), hang])
async def test_a_store_down_at_load_is_a_503_where_the_session_is_used(
    manager: SessionManager, store: TappedStore, fault: Any
) -> None:
    """Who touches the session gets a 503 that says when to come again."""
    token = await begin(manager, a=1)
    store.before["load"] = fault

    reply = await call(SessionMiddleware(handler(len), manager=manager), http_scope(token))

    assert reply.status == 503
    assert reply.header("retry-after") == ["1"]
    assert reply.header("cache-control") == ["no-store"]
    assert reply.header("set-cookie") == []
    assert token not in reply.body.decode()
    assert manager.events.counts["store_error"] == 1


async def test_a_store_down_at_load_does_not_matter_where_the_session_is_not_used(
    manager: SessionManager, store: TappedStore
) -> None:
    """A handler that never touches the session is served."""
    token = await begin(manager, a=1)
    store.before["load"] = broken()

    reply = await call(SessionMiddleware(handler(lambda _: None), manager=manager), http_scope(token))

    assert (reply.status, reply.body) == (200, b"ok")


@pytest.mark.parametrize("bad", [None, "x" * 66])
async def test_strangers_never_notice_an_outage(manager: SessionManager, store: TappedStore, bad: str | None) -> None:
    """Without a token that could be ours there is nothing to ask the store."""
    store.before["load"] = broken()

    reply = await call(SessionMiddleware(handler(len), manager=manager), http_scope(bad))

    assert reply.status == 200


async def test_a_handler_may_answer_an_outage_itself(manager: SessionManager, store: TappedStore) -> None:
    """`StoreUnavailableError` is raised at the first access, and can be caught there."""
    token = await begin(manager, a=1)
    store.before["load"] = broken()

    def work(session: Any) -> None:
        with pytest.raises(StoreUnavailableError) as caught:
            session["a"]
        assert isinstance(caught.value.__cause__, ConnectionResetError)

    reply = await call(SessionMiddleware(handler(work), manager=manager), http_scope(token))

    assert reply.status == 200


async def test_an_error_page_of_the_framework_within_becomes_the_503(
    manager: SessionManager, store: TappedStore
) -> None:
    """Where the framework answers 500 for our error before we see it, the client still learns what happened."""
    token = await begin(manager, a=1)
    store.before["load"] = broken()

    async def framework(scope: Scope, _: Receive, send: Send) -> None:
        try:
            scope["session"]["a"]
        except StoreUnavailableError:
            await send({"type": "http.response.start", "status": 500, "headers": []})
            await send({"type": "http.response.body", "body": b"oops"})
            raise

    reply = await call(SessionMiddleware(framework, manager=manager), http_scope(token))

    assert reply.status == 503
    assert b"oops" not in reply.body


@pytest.mark.parametrize("fault", [broken(), hang])
@pytest.mark.parametrize("work", ["create", "update", "delete"])
async def test_a_store_down_at_commit_is_a_503_instead_of_the_answer(
    manager: SessionManager, store: TappedStore, work: str, fault: Any
) -> None:
    """None of the handler's body, cookies or new token leaves, and a failed log-out is not reported as one."""
    token = None if work == "create" else await begin(manager, "ada", a=1)
    store.before[work] = fault
    reached = []

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        scope["session"].logout() if work == "delete" else write(scope["session"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"set-cookie", b"own=1")]})
        reached.append("after the start")

    reply = await call(SessionMiddleware(app, manager=manager), http_scope(token))

    assert reply.status == 503
    assert reply.header("set-cookie") == []
    assert reached == []
    if token:
        assert await read(manager, token) == {"a": 1}


async def test_an_endless_stream_ends_with_its_commit(manager: SessionManager, store: TappedStore) -> None:
    """A handler that swallows the first `OSError` meets it again at every further message."""
    store.before["create"] = broken()
    refused = 0

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        nonlocal refused
        write(scope["session"])
        for kind in ("start", "body", "body"):
            try:
                await send({"type": f"http.response.{kind}", "status": 200, "body": b"x", "headers": []})
            except OSError:
                refused += 1
        raise RuntimeError("the stream has ended") from None

    with pytest.raises(RuntimeError):
        await call(SessionMiddleware(app, manager=manager), http_scope())

    assert refused == 3


async def test_what_the_503_makes_a_handler_raise_is_no_error_of_its_own(
    manager: SessionManager, store: TappedStore
) -> None:
    """Frameworks wrap the `OSError` of `send`, in groups too: none of it reaches the server's log as a crash."""
    store.before["create"] = broken()

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        write(scope["session"])
        try:
            await send({"type": "http.response.start", "status": 200})
        except OSError as error:
            raise ExceptionGroup("of a task group", [RuntimeError("client gone")]) from error

    reply = await call(SessionMiddleware(app, manager=manager), http_scope())

    assert reply.status == 503


async def test_on_error_answers_in_its_place(store: TappedStore, clock: Clock) -> None:
    """Its application gets the request, and the error with its cause."""
    errors: list[Exception] = []

    def on_error(_: Scope, error: Exception) -> Any:
        errors.append(error)
        return handler(lambda _: None)

    async with opened(Config(store=store, on_error=on_error), clock) as manager:
        store.before["create"] = broken()
        reply = await call(SessionMiddleware(handler(write), manager=manager), http_scope())

    assert (reply.status, reply.header("set-cookie")) == (200, [])
    assert isinstance(errors[0].__cause__, ConnectionResetError)


async def test_a_store_down_at_startup_is_tried_again(store: TappedStore, clock: Clock, caplog: Any) -> None:
    """The application starts, says so once, and works as soon as the store does."""
    store.before["open"] = broken()
    async with opened(Config(store=store), clock) as manager:
        assert "at start" in caplog.text
        with pytest.raises(StoreUnavailableError):
            (await manager.load("A" * 22 + "." + "A" * 43)).get("a")
        del store.before["open"]

        token = await begin(manager, a=1)

        assert await read(manager, token) == {"a": 1}


@pytest.mark.parametrize("fault", [broken(), hang])
async def test_a_store_down_at_touch_lets_the_response_out(
    manager: SessionManager, store: TappedStore, clock: Clock, fault: Any
) -> None:
    """A reader is served; the failure is counted."""
    token = await begin(manager, "ada", a=1)
    clock.advance(minutes=2)
    store.before["touch"] = fault

    reply = await call(SessionMiddleware(handler(lambda session: session["a"]), manager=manager), http_scope(token))

    assert reply.status == 200
    assert manager.events.counts["store_error"] == 1


@pytest.mark.parametrize("data", [b"", b"\xc1", b"pickle?", b"\x93\x01\x02\x03"])
async def test_a_record_that_cannot_be_read_is_kept_and_unknown(
    manager: SessionManager, store: TappedStore, data: bytes, caplog: Any
) -> None:
    """The request is a stranger's, the log names the ID, the record stays for whoever looks into it."""
    token = await begin(manager, a=1)
    await _overwrite(store, token, data)

    session = await manager.load(token)
    assert session.is_new
    session["b"] = 2
    answer = await manager.commit(session)

    assert isinstance(answer, Issue)
    assert answer.token.partition(".")[0] != token.partition(".")[0]
    assert manager.events.counts["corrupt"] == 1
    assert token.partition(".")[0] in caplog.text
    record = await store.inner.load(token.partition(".")[0])
    assert record is not None
    assert record.data == data


async def test_a_payload_that_cannot_be_read_is_kept_and_unknown(manager: SessionManager, store: TappedStore) -> None:
    """The envelope opens, its content is of another codec: a stranger, and no second 500."""
    from asgi_sessions._envelope import seal, unseal  # noqa: PLC0415 - only here the inside of a record matters

    token = await begin(manager, a=1)
    record = await store.inner.load(token.partition(".")[0])
    assert record is not None
    envelope = unseal(record.data)
    await _overwrite(store, token, seal(type(envelope)(b"{foreign}", envelope.secret_hash, envelope.issued_at)))

    reply = await call(SessionMiddleware(handler(len), manager=manager), http_scope(token))

    assert reply.status == 200
    assert manager.events.counts["corrupt"] == 1
    assert [each async for each in manager.sessions()] == []


async def test_a_record_spoilt_between_load_and_commit_is_gone(manager: SessionManager, store: TappedStore) -> None:
    """A merge with what cannot be read is not tried."""
    token = await begin(manager, a=1)
    session = await manager.load(token)
    session["b"] = 2
    await _overwrite(store, token, b"junk")

    assert await manager.commit(session) is None
    assert session.is_gone


async def test_a_value_that_cannot_be_encoded_is_the_applications_error(manager: SessionManager) -> None:
    """It is raised into the handler's response, and the error page that follows is let through."""
    token = await begin(manager, a=1)

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        scope["session"]["bad"] = object()
        try:
            await send({"type": "http.response.start", "status": 200})
        except EncodeError:
            del scope["session"]["bad"]
            await send({"type": "http.response.start", "status": 500})
            await send({"type": "http.response.body", "body": b"sorry"})

    reply = await call(SessionMiddleware(app, manager=manager), http_scope(token))

    assert (reply.status, reply.body) == (500, b"sorry")
    assert await read(manager, token) == {"a": 1}


async def test_a_framework_within_can_answer_500_for_a_value_that_cannot_be_encoded(manager: SessionManager) -> None:
    """A framework that meets `EncodeError` at its first message sends an error page: that one passes."""
    token = await begin(manager, a=1)

    async def framework(scope: Scope, _: Receive, send: Send) -> None:
        scope["session"]["bad"] = object()
        try:
            await send({"type": "http.response.start", "status": 200})
        except EncodeError:
            await send({"type": "http.response.start", "status": 500})
            raise

    reply = Reply()

    async def send(message: Message) -> None:
        reply.messages.append(message)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    with pytest.raises(EncodeError):
        await SessionMiddleware(framework, manager=manager)(http_scope(token), receive, send)

    assert reply.status == 500
    assert await read(manager, token) == {"a": 1}


@pytest.mark.parametrize("verb", ["create", "update"])
async def test_a_write_whose_answer_was_lost_recognises_itself(
    manager: SessionManager, store: TappedStore, verb: str
) -> None:
    """Carried out, but the reply did not come: the record has the commit's nonce, and that is success."""
    token = await begin(manager, n=1) if verb == "update" else None
    session = await manager.load(token)
    session.increment("n")
    store.after[verb] = broken()

    answer = await manager.commit(session)

    held = await read(manager, token or (answer.token if isinstance(answer, Issue) else ""))
    assert held == {"n": 2 if token else 1}
    assert store.calls[verb] == 1


@pytest.mark.parametrize("verb", ["create", "update"])
async def test_a_write_that_cannot_tell_raises(manager: SessionManager, store: TappedStore, verb: str) -> None:
    """Not carried out, and nothing says so: never a blind second try."""
    token = await begin(manager, n=1) if verb == "update" else None
    session = await manager.load(token)
    session.increment("n")
    store.before[verb] = broken()

    with pytest.raises(StoreUnavailableError):
        await manager.commit(session)

    assert store.calls[verb] == 1


async def test_a_write_repeated_by_a_driver_counts_once(manager: SessionManager, store: TappedStore) -> None:
    """A driver that sends an update twice meets its own record, and the nonce in it says so."""
    token = await begin(manager, n=1)
    session = await manager.load(token)
    session.increment("n")
    update = store.inner.update

    async def twice(*args: Any, **kwargs: Any) -> Any:
        await update(*args, **kwargs)
        record = await store.inner.load(session.id)
        assert record is not None
        return replace(record, expires_at=record.expires_at + timedelta(seconds=1))  # not the very one that was sent

    store.inner.update = twice  # type: ignore[method-assign]

    await manager.commit(session)

    assert await read(manager, token) == {"n": 2}
    assert manager.events.counts["conflict"] == 0


@pytest.mark.parametrize("verb", ["create", "update", "delete"])
async def test_a_cancelled_commit_is_finished(manager: SessionManager, store: TappedStore, verb: str) -> None:
    """A client that vanishes, or a timeout around the route, does not leave a commit half done."""
    token = None if verb == "create" else await begin(manager, "ada", a=1)
    session = await manager.load(token)
    session.logout() if verb == "delete" else write(session)
    entered = anyio.Event()

    async def slow() -> None:
        entered.set()
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()

    store.before[verb] = slow

    async with anyio.create_task_group() as group:
        group.start_soon(manager.commit, session)
        await entered.wait()
        group.cancel_scope.cancel()

    records = [record async for record in store.records()]
    assert len(records) == (0 if verb == "delete" else 1)
    assert [record.version for record in records] == {"create": [1], "update": [2], "delete": []}[verb]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_commit_cancelled_by_its_task_is_finished(manager: SessionManager, store: TappedStore) -> None:
    """`asyncio.timeout` and servers cancel the task itself, which no anyio shield keeps out."""
    import asyncio  # noqa: PLC0415 - this is about asyncio

    session = await manager.load()
    write(session)
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        entered.set()
        await go_on.wait()

    store.before["create"] = slow
    task = asyncio.create_task(manager.commit(session))
    await entered.wait()
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert len([record async for record in store.records()]) == 1


async def test_the_clock_of_the_worker_ends_a_session_too(store: TappedStore, clock: Clock) -> None:
    """A server that keeps a record too long does not keep the session."""
    behind = Clock()
    inner = TappedStore(behind)
    async with opened(Config(store=inner), clock) as manager:
        token = await begin(manager, "ada", a=1)
        clock.advance(minutes=30)
        assert await inner.load(token.partition(".")[0]) is not None

        assert (await manager.load(token)).is_new


async def test_a_beginning_in_the_future_counts_as_now(manager: SessionManager, clock: Clock) -> None:
    """A clock that was ahead when the session was made does not lengthen its life."""
    clock.advance(days=300)
    token = await begin(manager, "ada", a=1)
    clock.advance(days=-300)

    session = await manager.load(token)
    session["b"] = 1
    await manager.commit(session)

    assert session.absolute_end is not None
    assert session.absolute_end <= clock.now + timedelta(hours=24)
    clock.advance(hours=24)
    assert (await manager.load(token)).is_new


async def test_max_age_is_never_negative_or_huge(store: TappedStore, clock: Clock) -> None:
    """Whatever the timeouts, the cookie's date is one that browsers take."""
    config = Config(store=store, idle_timeout=None, absolute_timeout=timedelta(days=5000), extractors="cookie")
    async with opened(config, clock) as manager:
        session = await manager.load()
        session.login("ada", remember=True)
        answer = await manager.commit(session)
        assert isinstance(answer, Issue)
        assert answer.max_age == 400 * 86400
        session.absolute_end = clock.now - timedelta(days=1)
        answer = await manager.commit(session)

    assert isinstance(answer, Issue)
    assert answer.max_age == 0


async def test_no_message_names_a_token_or_what_was_asked(
    manager: SessionManager, store: TappedStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Logs at DEBUG, reprs and errors show IDs at most."""
    caplog.set_level(logging.DEBUG)
    session = await manager.load()
    session.login("ada")
    answer = await manager.commit(session)
    assert isinstance(answer, Issue)
    known = await manager.load(answer.token)
    known["a"] = 1
    store.before["update"] = broken()
    with pytest.raises(StoreUnavailableError) as caught:
        await manager.commit(known)

    secret = answer.token.partition(".")[2]
    assert secret not in caplog.text + repr(answer) + repr(known) + str(caught.value) + repr(known._known)


def test_a_wrong_setting_is_an_error_of_its_own() -> None:
    """`ConfigError` is a `ValueError`, too: settings libraries show it as one."""
    assert issubclass(ConfigError, ValueError)


async def test_a_handler_that_mends_its_value_is_saved_to_the_end(manager: SessionManager) -> None:
    """Once its second answer has gone out, late changes are saved as after any other."""
    token = await begin(manager, a=1)

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        scope["session"]["b"] = object()
        with pytest.raises(EncodeError):
            await send({"type": "http.response.start", "status": 200})
        scope["session"]["b"] = 2
        await send({"type": "http.response.start", "status": 200})
        scope["session"]["late"] = 3

    await call(SessionMiddleware(app, manager=manager), http_scope(token))

    assert await read(manager, token) == {"a": 1, "b": 2, "late": 3}


async def test_a_change_after_a_replaced_answer_is_refused(manager: SessionManager, store: TappedStore) -> None:
    """That request is over, too: nothing would save what a task of it still writes."""
    store.before["create"] = broken()
    kept: list[Any] = []

    def work(session: Any) -> None:
        kept.append(session)
        write(session)

    reply = await call(SessionMiddleware(handler(work), manager=manager), http_scope())

    assert reply.status == 503
    with pytest.raises(SessionClosedError):
        kept[0]["more"] = True
