"""Sessions without a request: jobs, listings, revocations, events."""

import logging
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import pytest

from asgi_sessions import Config, Event, SessionManager
from asgi_sessions.errors import (
    ConfigError,
    SessionClosedError,
    StoreUnavailableError,
    TokenUndeliverableError,
)
from asgi_sessions.stores import MemoryStore
from tests.support import Clock, TappedStore, begin, broken, opened, read


async def test_a_block_loads_and_commits(manager: SessionManager) -> None:
    """What SCS calls Load and Commit."""
    token = await begin(manager, a=1)

    async with manager.open(token) as session:
        session["a"] += 1

    assert await read(manager, token) == {"a": 2}
    with pytest.raises(SessionClosedError, match="block that has ended"):
        session["a"] = 3


async def test_a_block_that_raises_drops_its_changes(manager: SessionManager) -> None:
    """But not a log-out."""
    first, second = await begin(manager, "ada", a=1), await begin(manager, "ada", a=1)
    for token, end in ((first, False), (second, True)):
        with pytest.raises(RuntimeError):  # noqa: PT012 - how the block ends is the point
            async with manager.open(token) as session:
                session["a"] = 2
                if end:
                    session.logout()
                raise RuntimeError

    assert await read(manager, first) == {"a": 1}
    assert await read(manager, second) is None


async def test_a_new_session_of_a_block_hands_out_its_token(manager: SessionManager, store: TappedStore) -> None:
    """By `save()`; a session whose token nobody has asked for is not made."""
    async with manager.open() as session:
        session["a"] = 1
        token = await session.save()
        session["b"] = 2

    assert token is not None
    assert await read(manager, token) == {"a": 1, "b": 2}
    store.calls.clear()
    with pytest.raises(TokenUndeliverableError):
        async with manager.open() as session:
            session["a"] = 1
    assert store.calls["create"] == 0


async def test_a_job_opens_a_session_by_its_id(manager: SessionManager, store: TappedStore, clock: Clock) -> None:
    """What Fiber calls GetByID; the client is not seen by it, so it lives no longer."""
    token = await begin(manager, "ada", a=1)
    before = await store.inner.load(token.partition(".")[0])
    clock.advance(minutes=10)

    async with manager.open_id(token.partition(".")[0]) as session:
        assert session.user_id == "ada"
        assert not session.is_new
    assert store.calls["touch"] == 0
    async with manager.open_id(token.partition(".")[0]) as session:
        session["a"] = 2

    after = await store.inner.load(token.partition(".")[0])
    assert before is not None
    assert after is not None
    assert (before.seen_at, before.expires_at) == (after.seen_at, after.expires_at)
    assert await read(manager, token) == {"a": 2}


async def test_a_job_can_merge_with_a_request(manager: SessionManager) -> None:
    """Without a secret, too, nothing is lost."""
    token = await begin(manager, a=1)
    async with manager.open_id(token.partition(".")[0]) as session:
        other = await manager.load(token)
        other["b"] = 2
        await manager.commit(other)
        session["c"] = 3

    assert await read(manager, token) == {"a": 1, "b": 2, "c": 3}


async def test_a_job_can_replace_a_token(manager: SessionManager) -> None:
    """An operator hands a new one to its user."""
    token = await begin(manager, a=1)
    async with manager.open_id(token.partition(".")[0]) as session:
        session.regenerate()
        new = await session.save()

    assert new is not None
    assert await read(manager, new) == {"a": 1}


async def test_an_id_that_is_not_there_opens_an_empty_session(manager: SessionManager, store: TappedStore) -> None:
    """It is gone, and writing does not make it."""
    async with manager.open_id("nowhere") as session:
        assert (dict(session), session.is_gone, session.is_new) == ({}, True, False)
        session["a"] = 1

    assert store.calls == {"load": 1}


async def test_a_users_sessions_are_listed(manager: SessionManager, clock: Clock) -> None:
    """All live ones of this user, to be read only."""
    await begin(manager, "ada", device="phone")
    await begin(manager, "ada", device="laptop")
    await begin(manager, "bob", device="tablet")
    await begin(manager, a=1)

    found = [session async for session in manager.sessions(user_id="ada")]

    assert sorted(session["device"] for session in found) == ["laptop", "phone"]
    assert len([session async for session in manager.sessions()]) == 4
    with pytest.raises(SessionClosedError, match="open_id"):
        found[0]["device"] = "mine"
    clock.advance(hours=1)
    assert [session async for session in manager.sessions()] == []


async def test_a_listing_can_be_left_early(manager: SessionManager) -> None:
    """Nothing stays open behind it, if it is closed as trio wants every generator closed."""
    for _ in range(3):
        await begin(manager, "ada")

    async with aclosing(manager.sessions()) as sessions:
        async for session in sessions:
            assert session.user_id == "ada"
            break


async def test_all_of_a_users_sessions_can_be_revoked(manager: SessionManager) -> None:
    """But for one, if so wished; how many were ended is returned."""
    tokens = [await begin(manager, "ada") for _ in range(3)]
    bobs = await begin(manager, "bob")

    assert await manager.revoke(user_id="ada", keep=tokens[0].partition(".")[0]) == 2

    assert [await read(manager, token) is not None for token in tokens] == [True, False, False]
    assert await manager.revoke(user_id="ada") == 1
    assert await read(manager, bobs) == {}
    assert manager.events.counts["revoked"] == 3


async def test_sessions_can_be_revoked_by_what_is_in_them(manager: SessionManager) -> None:
    """Everyone's that an identity provider has ended, or one user's of some kind."""
    ada = await begin(manager, "ada", sid="x")
    kept = await begin(manager, "ada", sid="x")
    bob = await begin(manager, "bob", sid="x")
    other = await begin(manager, "ada", sid="y")

    assert await manager.revoke(user_id="ada", where=lambda s: s["sid"] == "x", keep=kept.partition(".")[0]) == 1
    assert await read(manager, ada) is None
    assert await manager.revoke(where=lambda session: session["sid"] == "x") == 2

    assert [await read(manager, token) is not None for token in (kept, bob, other)] == [False, False, True]


async def test_revoking_nobody_in_particular_is_refused(manager: SessionManager) -> None:
    """A forgotten argument does not log everyone out."""
    with pytest.raises(TypeError, match="delete_all"):
        await manager.revoke()


async def test_everyone_can_be_logged_out(manager: SessionManager) -> None:
    """After a leak, at once."""
    tokens = [await begin(manager, "ada"), await begin(manager, a=1)]

    assert await manager.delete_all() == 2

    assert [await read(manager, token) for token in tokens] == [None, None]


async def test_one_session_can_be_ended_by_its_id(manager: SessionManager) -> None:
    """And whether it was there is told."""
    token = await begin(manager, "ada")

    assert await manager.delete(token.partition(".")[0])
    assert not await manager.delete(token.partition(".")[0])
    assert await read(manager, token) is None


async def test_another_session_can_be_merged_into_this_one(manager: SessionManager) -> None:
    """What SCS calls MergeSession: the other's data win, and it ends."""
    one, other = await begin(manager, "ada", a=1, b=1), await begin(manager, b=2, c=2)
    session = await manager.load(one)

    assert await manager.merge(session, other) is None

    assert await read(manager, one) == {"a": 1, "b": 2, "c": 2}
    assert await read(manager, other) is None
    assert (await manager.load(one)).user_id == "ada"


async def test_merging_into_a_new_session_hands_out_its_token(manager: SessionManager) -> None:
    """The redirect came back without its cookie: the data are under a new one."""
    other = await begin(manager, state="xyz")

    token = await manager.merge(await manager.load(), other)

    assert token is not None
    assert await read(manager, token) == {"state": "xyz"}


@pytest.mark.parametrize("other", ["itself", "unknown"])
async def test_merging_nothing_is_nothing(manager: SessionManager, other: str) -> None:
    """The session itself, or one that is not there."""
    token = await begin(manager, a=1)
    session = await manager.load(token)

    assert await manager.merge(session, token if other == "itself" else "A" * 22 + "." + "A" * 43) is None

    assert await read(manager, token) == {"a": 1}


async def test_expired_sessions_are_swept_in_batches(manager: SessionManager, store: TappedStore, clock: Clock) -> None:
    """All of them, never many at once."""
    for number in range(250):
        await begin(manager, number=number)
    clock.advance(hours=1)
    store.calls.clear()

    assert await manager.sweep() == 250

    assert store.calls["sweep"] == 3
    assert manager.events.counts["expired"] == 250
    kept = await begin(manager, a=1)
    assert await manager.sweep() == 0
    assert await read(manager, kept) == {"a": 1}


async def test_without_a_lifespan_a_commit_sweeps_in_passing(store: TappedStore, clock: Clock) -> None:
    """A bounded batch, once in a while; a sweep that fails does not matter to the request."""
    manager = SessionManager(Config(store=store), clock=clock)
    await begin(manager, a=1)
    clock.advance(hours=1)
    token = await begin(manager, a=2)
    assert manager.events.counts["expired"] == 1

    clock.advance(seconds=61)
    store.before["sweep"] = broken()
    await manager.commit(await manager.load(token))

    assert manager.events.counts["store_error"] == 1


async def test_what_happens_is_told(manager: SessionManager) -> None:
    """Each event once, with IDs."""
    heard: list[Event] = []
    for name in ("created", "login", "logout", "regenerated", "destroyed", "revoked", "unknown_token"):
        manager.on(name, heard.append)

    session = await manager.load()
    session["a"] = 1
    await manager.commit(session)
    session.regenerate()
    await manager.commit(session)
    session.login("ada")
    await manager.commit(session)
    session.logout()
    id = session.id
    await manager.commit(session)
    await manager.load("A" * 22 + "." + "A" * 43)

    assert id != heard[0].session_id
    assert [(event.name, event.user_id) for event in heard] == [
        *(("created", None), ("regenerated", None), ("login", "ada"), ("logout", "ada"), ("unknown_token", None))
    ]
    assert len({event.session_id for event in heard[:4]}) == 1


async def test_a_listener_that_fails_does_not_matter_to_the_request(
    manager: SessionManager, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and the next listener is called."""
    heard: list[Event] = []

    def fail(_: Event) -> None:
        raise RuntimeError("of the listener")

    manager.on("created", fail)
    manager.on("created", heard.append)

    await begin(manager, a=1)

    assert len(heard) == 1
    assert "of the listener" in caplog.text


async def test_an_outage_during_a_listing_is_told_as_one(manager: SessionManager, store: TappedStore) -> None:
    """With the driver's error as its cause."""
    await begin(manager, a=1)
    inner = store.inner.records

    async def records(**kwargs: Any) -> Any:
        async with aclosing(inner(**kwargs)) as found:
            async for record in found:
                yield record
                raise ConnectionResetError

    store.inner.records = records  # type: ignore[method-assign]

    with pytest.raises(StoreUnavailableError) as caught:
        [session async for session in manager.sessions()]

    assert isinstance(caught.value.__cause__, ConnectionResetError)


async def test_an_id_collision_is_no_overwriting(manager: SessionManager, store: TappedStore) -> None:
    """A taken ID is replaced by another, however unlikely it is."""
    token = await begin(manager, mine=True)
    session = await manager.load()
    session._id = token.partition(".")[0]
    session["mine"] = False

    answer = await manager.commit(session)

    assert getattr(answer, "token", token).partition(".")[0] != token.partition(".")[0]
    assert await read(manager, token) == {"mine": True}


async def test_no_free_id_is_an_error(manager: SessionManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source of randomness that repeats itself does not loop for ever."""
    token = await begin(manager, a=1)
    monkeypatch.setattr("asgi_sessions._session.new_id", lambda: token.partition(".")[0])
    session = await manager.load()
    session["a"] = 2

    with pytest.raises(Exception, match="try once more"):
        await manager.commit(session)


async def test_a_create_repeated_by_a_driver_counts_once(manager: SessionManager, store: TappedStore) -> None:
    """Its second try finds the ID taken, by itself."""
    create = store.inner.create

    async def twice(*args: Any, **kwargs: Any) -> bool:
        await create(*args, **kwargs)
        return await create(*args, **kwargs)

    store.inner.create = twice  # type: ignore[method-assign]

    token = await begin(manager, a=1)

    assert await read(manager, token) == {"a": 1}
    assert len([each async for each in store.records()]) == 1


async def test_a_save_after_a_login_refused_by_a_revocation_is_none(manager: SessionManager, clock: Clock) -> None:
    """No token is handed out for what does not stand."""
    session = await manager.load()
    session.login("ada")
    clock.advance(seconds=1)
    await manager.revoke(user_id="ada")

    assert await session.save() is None
    assert session.is_gone


async def test_events_are_quiet_by_default(manager: SessionManager, caplog: pytest.LogCaptureFixture) -> None:
    """What happens all day is DEBUG; what needs someone is louder."""
    caplog.set_level(logging.INFO)
    token = await begin(manager, "ada")
    async with manager.open(token) as session:
        session.logout()

    assert caplog.text == ""


async def test_a_manager_makes_its_store_from_a_url(clock: Clock) -> None:
    """And says what is wrong with it."""
    assert isinstance(SessionManager(Config(store="memory:")).store, MemoryStore)
    with pytest.raises(ConfigError, match="memory"):
        SessionManager(Config(store="memroy:"))
    assert isinstance(SessionManager(clock=clock).store, MemoryStore)


async def test_a_job_may_end_a_session_emptied_by_another(manager: SessionManager, store: TappedStore) -> None:
    """Emptying what is gone already tells nobody anything."""
    token = await begin(manager, a=1)
    session = await manager.load(token)
    del session["a"]
    await store.inner.delete(session.id)

    assert await manager.commit(session) is None
    assert session.is_gone


async def test_a_long_job_keeps_a_session_in_time(manager: SessionManager, clock: Clock) -> None:
    """A session with an absolute timeout alone does not end early."""
    async with opened(Config(store=MemoryStore(clock=clock), idle_timeout=None), clock) as endless:
        token = await begin_plain(endless)
        clock.advance(hours=23)
        assert (await endless.load(token)).user_id == "ada"
        clock.advance(hours=1)
        assert (await endless.load(token)).is_new


async def begin_plain(manager: SessionManager) -> str:
    """Make a user's session in a store that does not count."""
    session = await manager.load()
    session.login("ada")
    token = await session.save()
    assert token is not None
    assert session.expires_at - session.created_at <= timedelta(hours=24)
    return token
