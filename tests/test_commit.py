"""The table "What a commit does" of docs/design.md, row by row."""

from datetime import timedelta

import pytest

from asgi_sessions import Config, Expire, Issue, SessionManager
from asgi_sessions.errors import CommitConflictError, EncodeError
from tests.support import T0, Clock, TappedStore, begin, opened, read


async def test_a_stranger_who_writes_nothing_costs_nothing(manager: SessionManager, store: TappedStore) -> None:
    """A request without a token that only looks makes no store call and tells the client nothing."""
    session = await manager.load()
    assert session.get("cart") is None
    assert not session

    assert await manager.commit(session) is None

    assert not store.calls


async def test_a_stranger_who_writes_gets_a_session(manager: SessionManager, store: TappedStore) -> None:
    """The first data make a session, in one call."""
    session = await manager.load()
    session["cart"] = ["book"]

    answer = await manager.commit(session)

    assert isinstance(answer, Issue)
    assert answer.max_age is None
    assert store.calls == {"create": 1}
    assert await read(manager, answer.token) == {"cart": ["book"]}


async def test_what_a_stranger_writes_and_takes_back_is_nothing(manager: SessionManager, store: TappedStore) -> None:
    """A session left empty is not made."""
    session = await manager.load()
    session["cart"] = []
    del session["cart"]

    assert await manager.commit(session) is None
    assert not store.calls


async def test_reading_a_known_session_costs_one_load(
    manager: SessionManager, store: TappedStore, clock: Clock
) -> None:
    """Within the touch interval a reader writes nothing and hears nothing."""
    token = await begin(manager, cart=["book"])
    clock.advance(seconds=1)
    await manager.commit(await manager.load(token))  # the first return of the token is written down
    store.calls.clear()
    clock.advance(seconds=1)

    session = await manager.load(token)
    assert session["cart"] == ["book"]

    assert await manager.commit(session) is None
    assert store.calls == {"load": 1}


async def test_the_first_return_of_a_token_is_touched_at_once(
    manager: SessionManager, store: TappedStore, clock: Clock
) -> None:
    """An anonymous session lives for `first_life` until its client proves to keep cookies, then as configured."""
    token = await begin(manager, cart=["book"])
    record = await store.inner.load(token.partition(".")[0])
    assert record is not None
    assert record.expires_at == T0 + timedelta(minutes=15)
    clock.advance(seconds=1)

    await manager.commit(await manager.load(token))

    assert store.calls == {"load": 1, "touch": 1}
    record = await store.inner.load(token.partition(".")[0])
    assert record is not None
    assert record.expires_at == clock.now + timedelta(minutes=30)


async def test_a_stale_session_is_touched_when_the_interval_has_passed(
    manager: SessionManager, store: TappedStore, clock: Clock
) -> None:
    """A reader touches at most once per touch interval."""
    token = await begin(manager, "ada")
    for seconds, touches in ((1, 1), (59, 1), (1, 2), (1, 2)):
        clock.advance(seconds=seconds)
        assert await manager.commit(await manager.load(token)) is None
        assert store.calls["touch"] == touches
    assert store.calls["update"] == 0


async def test_touch_counts_a_request_at_once(manager: SessionManager, store: TappedStore, clock: Clock) -> None:
    """`session.touch()` does not wait for the interval."""
    token = await begin(manager, "ada")
    for _ in range(2):
        clock.advance(seconds=1)
        session = await manager.load(token)
        session.touch()
        await manager.commit(session)

    assert store.calls["touch"] == 2


async def test_a_change_is_one_update(manager: SessionManager, store: TappedStore) -> None:
    """A writer costs a load and an update; the client hears nothing."""
    token = await begin(manager, cart=["book"])

    session = await manager.load(token)
    session["seen"] = True

    assert await manager.commit(session) is None
    assert store.calls == {"load": 1, "update": 1}
    assert await read(manager, token) == {"cart": ["book"], "seen": True}


async def test_a_change_deep_inside_a_value_is_saved(manager: SessionManager, store: TappedStore) -> None:
    """Nobody has to tell that a nested list has changed."""
    token = await begin(manager, cart={"items": [{"price": 1}]})

    session = await manager.load(token)
    session["cart"]["items"][0]["price"] = 2
    await manager.commit(session)

    assert store.calls["update"] == 1
    assert await read(manager, token) == {"cart": {"items": [{"price": 2}]}}


@pytest.mark.parametrize(("before", "after"), [(1, True), (0.0, -0.0), (1, 1.0)])
async def test_a_change_of_type_alone_is_a_change(manager: SessionManager, before: object, after: object) -> None:
    """What is equal to Python and different to the codec is saved."""
    token = await begin(manager, value=before)

    session = await manager.load(token)
    session["value"] = after
    await manager.commit(session)

    data = await read(manager, token)
    assert data is not None
    assert repr(data["value"]) == repr(after)


async def test_nan_is_no_change(manager: SessionManager, store: TappedStore) -> None:
    """A value that is not equal to itself does not make every reader a writer."""
    token = await begin(manager, value=float("nan"))

    session = await manager.load(token)
    assert session["value"] != session["value"]
    await manager.commit(session)

    assert store.calls["update"] == 0


async def test_regenerate_replaces_the_token_and_keeps_the_session(
    manager: SessionManager, store: TappedStore, clock: Clock
) -> None:
    """The ID and the data stay; the old token works for the grace period, and not beyond."""
    token = await begin(manager, cart=["book"])
    session = await manager.load(token)
    session.regenerate()

    answer = await manager.commit(session)

    assert isinstance(answer, Issue)
    assert answer.token != token
    assert answer.token.partition(".")[0] == token.partition(".")[0] == session.id
    assert store.calls == {"load": 1, "update": 1}
    assert await read(manager, answer.token) == {"cart": ["book"]}
    clock.advance(seconds=9.9)
    assert await read(manager, token) == {"cart": ["book"]}
    clock.advance(seconds=0.1)
    assert await read(manager, token) is None
    assert await read(manager, answer.token) == {"cart": ["book"]}


async def test_regenerate_leaves_the_absolute_timeout(manager: SessionManager, clock: Clock) -> None:
    """A session cannot be kept alive by new tokens."""
    token = await begin(manager, "ada")
    clock.advance(minutes=20)
    session = await manager.load(token)
    end = session.absolute_end
    session.regenerate()

    answer = await manager.commit(session)

    assert isinstance(answer, Issue)
    assert (await manager.load(answer.token)).absolute_end == end == T0 + timedelta(hours=24)


async def test_a_stranger_who_regenerates_has_nothing_to_replace(manager: SessionManager, store: TappedStore) -> None:
    """Without data there is no session, and no token for it."""
    session = await manager.load()
    session.regenerate()

    assert await manager.commit(session) is None
    assert not store.calls


async def test_login_binds_an_anonymous_session_under_a_new_token(
    manager: SessionManager, store: TappedStore, clock: Clock
) -> None:
    """The cart survives the log-in; the token that was known before does not."""
    token = await begin(manager, cart=["book"])
    clock.advance(seconds=5)
    session = await manager.load(token)
    session.login("ada")

    answer = await manager.commit(session)

    assert isinstance(answer, Issue)
    assert answer.token.partition(".")[0] == token.partition(".")[0]
    assert store.calls == {"load": 1, "update": 1}
    after = await manager.load(answer.token)
    assert (after.user_id, after.authenticated_at, after.copy()) == ("ada", clock.now, {"cart": ["book"]})
    before = await manager.load(token)
    assert (before.user_id, before.copy(), before.is_gone) == (None, {}, True)


async def test_login_of_a_stranger_makes_a_bound_session(manager: SessionManager, store: TappedStore) -> None:
    """A log-in without data is a session, and lives as long as its timeouts say."""
    token = await begin(manager, "ada")

    session = await manager.load(token)

    assert session.user_id == "ada"
    assert session.expires_at == T0 + timedelta(minutes=30)
    assert store.calls == {"load": 1}


async def test_logging_in_again_starts_the_absolute_timeout_anew(manager: SessionManager, clock: Clock) -> None:
    """The same user keeps session and data, under a new token."""
    token = await begin(manager, "ada", cart=["book"])
    clock.advance(minutes=20)
    session = await manager.load(token)
    session.login("ada")

    answer = await manager.commit(session)

    assert isinstance(answer, Issue)
    after = await manager.load(answer.token)
    assert after.id == token.partition(".")[0]
    assert after.copy() == {"cart": ["book"]}
    assert after.absolute_end == clock.now + timedelta(hours=24)


async def test_login_of_another_user_begins_empty(manager: SessionManager, store: TappedStore) -> None:
    """Nothing of one user's session reaches another's: a new ID, none of the data, the old record deleted."""
    token = await begin(manager, "ada", secret="of Ada")
    session = await manager.load(token)
    session["more"] = "of Ada"
    session.login("bob")
    session["theme"] = "dark"

    answer = await manager.commit(session)

    assert isinstance(answer, Issue)
    assert answer.token.partition(".")[0] != token.partition(".")[0]
    assert store.calls == {"load": 1, "delete": 1, "create": 1}
    after = await manager.load(answer.token)
    assert (after.user_id, after.copy()) == ("bob", {"theme": "dark"})
    assert await read(manager, token) is None


@pytest.mark.parametrize("end", ["destroy", "logout", "clear"])
async def test_an_ended_session_is_deleted(manager: SessionManager, store: TappedStore, end: str) -> None:
    """`destroy`, `logout` and `clear` delete the record and expire the token."""
    token = await begin(manager, "ada", cart=["book"])
    session = await manager.load(token)
    getattr(session, end)()

    assert session.status == "destroyed"
    assert await manager.commit(session) == Expire()

    assert store.calls == {"load": 1, "delete": 1}
    assert await read(manager, token) is None


async def test_a_stranger_has_nothing_to_end(manager: SessionManager, store: TappedStore) -> None:
    """Ending a session that was never made is nothing, also if it was written to."""
    session = await manager.load()
    session["cart"] = []
    session.destroy()

    assert await manager.commit(session) is None
    assert not store.calls


async def test_an_anonymous_session_emptied_key_by_key_ends(manager: SessionManager, store: TappedStore) -> None:
    """Applications that log out by `session.pop("name")` leave nothing behind."""
    token = await begin(manager, name="ada")
    session = await manager.load(token)
    session.pop("name")

    assert await manager.commit(session) == Expire()
    assert store.calls == {"load": 1, "delete": 1}
    assert await read(manager, token) is None
    assert session.status == "destroyed"


async def test_a_bound_session_lives_on_without_data(manager: SessionManager, store: TappedStore) -> None:
    """Whose session it is does not depend on what is in it."""
    token = await begin(manager, "ada", cart=1)
    session = await manager.load(token)
    del session["cart"]

    assert await manager.commit(session) is None
    assert store.calls == {"load": 1, "update": 1}
    assert (await manager.load(token)).user_id == "ada"


@pytest.mark.parametrize("end", ["destroy", "clear"])
async def test_what_is_written_after_the_end_begins_a_new_session(
    manager: SessionManager, store: TappedStore, end: str
) -> None:
    """The new data stand under a new ID and token."""
    token = await begin(manager, "ada", cart=["book"])
    session = await manager.load(token)
    getattr(session, end)()
    session["note"] = "bye"

    answer = await manager.commit(session)

    assert isinstance(answer, Issue)
    assert answer.token.partition(".")[0] != token.partition(".")[0]
    assert store.calls == {"load": 1, "delete": 1, "create": 1}
    after = await manager.load(answer.token)
    assert (after.user_id, after.copy()) == (None, {"note": "bye"})
    assert await read(manager, token) is None


@pytest.mark.parametrize("change", ["write", "regenerate", "login", "empty"])
async def test_a_session_that_is_gone_stays_gone(manager: SessionManager, store: TappedStore, change: str) -> None:
    """A request that was under way during a log-out cannot bring the session back, and sends no header at all."""
    token = await begin(manager, cart=["book"])
    slow, fast = await manager.load(token), await manager.load(token)
    match change:
        case "write":
            slow["cart"] = []
        case "regenerate":
            slow.regenerate()
        case "login":
            slow.login("ada")
        case "empty":
            del slow["cart"]
    fast.destroy()
    await manager.commit(fast)

    assert await manager.commit(slow) is None  # no header: a newer log-in may have set its cookie by now

    assert slow.is_gone
    assert not slow
    assert manager.events.counts["gone"] == 1
    assert [each async for each in store.records()] == []


async def test_ending_what_is_gone_tells_the_client_nothing(manager: SessionManager) -> None:
    """Only the request that ended a session expires its token."""
    token = await begin(manager, "ada")
    slow, fast = await manager.load(token), await manager.load(token)
    slow.logout()
    fast.logout()

    assert await manager.commit(fast) == Expire()
    assert await manager.commit(slow) is None


async def test_an_expired_session_is_gone_for_a_commit(manager: SessionManager, clock: Clock) -> None:
    """The end of its time is as final as a log-out."""
    token = await begin(manager, "ada")
    session = await manager.load(token)
    session["late"] = True
    clock.advance(minutes=31)

    assert await manager.commit(session) is None
    assert session.is_gone


async def test_writes_under_a_token_just_replaced_merge(manager: SessionManager) -> None:
    """A regeneration does not log out the requests that were under way, and their changes arrive."""
    token = await begin(manager, cart=["book"])
    writer, regenerating = await manager.load(token), await manager.load(token)
    regenerating.regenerate()
    answer = await manager.commit(regenerating)
    assert isinstance(answer, Issue)
    writer["seen"] = True
    later = await manager.load(token)
    later["later"] = True

    assert await manager.commit(writer) is None
    assert await manager.commit(later) is None

    assert await read(manager, answer.token) == {"cart": ["book"], "seen": True, "later": True}


async def test_a_token_replaced_by_a_login_reads_as_empty(manager: SessionManager, store: TappedStore) -> None:
    """Who holds the anonymous token sees nothing of the user's session, and what it writes is dropped."""
    token = await begin(manager, cart=["book"])
    writer, logging_in = await manager.load(token), await manager.load(token)
    logging_in.login("ada")
    await manager.commit(logging_in)
    writer["planted"] = True

    late = await manager.load(token)
    assert late.copy() == {}
    late["planted"] = True
    store.calls.clear()

    assert await manager.commit(late) is None
    assert await manager.commit(writer) is None

    assert store.calls["create"] == 0
    (record,) = [each async for each in store.records()]
    assert record.version == 2
    assert late.is_gone
    assert writer.is_gone


async def test_a_login_under_a_token_replaced_by_a_login_makes_a_session(manager: SessionManager) -> None:
    """Nothing but a log-in gets through with the old token, and it begins anew."""
    token = await begin(manager, cart=["book"])
    first = await manager.load(token)
    first.login("ada")
    await manager.commit(first)

    second = await manager.load(token)
    second.login("ada")
    answer = await manager.commit(second)

    assert isinstance(answer, Issue)
    after = await manager.load(answer.token)
    assert after.id != first.id
    assert (after.user_id, after.copy()) == ("ada", {})


@pytest.mark.parametrize("token", ["", "not a token", "A" * 22 + "." + "B" * 43, "ä" * 66, "A" * 21 + "A.B" + "A" * 42])
async def test_a_token_that_opens_nothing_is_a_stranger(
    manager: SessionManager, store: TappedStore, token: str
) -> None:
    """Unknown and malformed tokens are never adopted, and never answered."""
    session = await manager.load(token)
    assert session.is_new
    assert await manager.commit(session) is None
    assert store.calls["create"] == 0

    session["cart"] = 1
    answer = await manager.commit(session)

    assert isinstance(answer, Issue)
    assert token not in answer.token or not token


async def test_a_malformed_token_costs_no_store_call(manager: SessionManager, store: TappedStore) -> None:
    """What cannot be ours is not looked up."""
    good = await begin(manager, a=1)
    for bad in (good + "=", good[:-1], good.replace(".", ":"), f'"{good}"', good + "\n", good[:-1] + "B", " " + good):
        assert (await manager.load(bad)).is_new, bad

    assert not store.calls


async def test_a_wrong_secret_opens_nothing(manager: SessionManager) -> None:
    """The public ID alone is worth nothing."""
    token, other = await begin(manager, a=1), await begin(manager, b=2)
    mixed = token.partition(".")[0] + "." + other.partition(".")[2]

    assert (await manager.load(mixed)).is_new
    assert manager.events.counts["unknown_token"] == 1


async def test_a_failed_request_drops_its_changes(manager: SessionManager, store: TappedStore) -> None:
    """A handler that raised changes nothing, a log-in included."""
    token = await begin(manager, "ada", cart=["book"])
    session = await manager.load(token)
    session["cart"] = []
    session.login("bob")

    await manager.abandon(session)

    assert store.calls == {"load": 1}
    assert await read(manager, token) == {"cart": ["book"]}


async def test_a_failed_request_still_ends_what_it_ended(manager: SessionManager) -> None:
    """A log-out stands even if the page that follows fails."""
    token = await begin(manager, "ada")
    session = await manager.load(token)
    session.logout()
    session["more"] = 1

    await manager.abandon(session)

    assert await read(manager, token) is None
    assert manager.events.counts["logout"] == 1


async def test_a_value_that_cannot_be_kept_is_refused_before_anything_is_written(
    manager: SessionManager, store: TappedStore
) -> None:
    """The path is named, the old record is intact, and a destroy that came first has not been carried out."""
    token = await begin(manager, "ada", cart=[{}, {}])
    session = await manager.load(token)
    session["cart"][1]["item"] = object()

    with pytest.raises(EncodeError, match=r'session\["cart"\]\[1\]\["item"\]'):
        await manager.commit(session)

    assert store.calls == {"load": 1}
    assert await read(manager, token) == {"cart": [{}, {}]}


async def test_a_session_over_max_size_is_refused(clock: Clock) -> None:
    """The limit counts encoded bytes and names both numbers."""
    store = TappedStore(clock)
    async with opened(Config(store=store, max_size=100), clock) as manager:
        session = await manager.load()
        session["a"] = "x" * 90
        await manager.commit(session)
        session["a"] += "x" * 10

        with pytest.raises(EncodeError, match=r"max_size is 100"):
            await manager.commit(session)

    assert store.calls == {"create": 1}


async def test_save_commits_at_once_and_returns_a_token_it_issued(manager: SessionManager) -> None:
    """A handler that sends the token itself gets it, and the response still carries it."""
    session = await manager.load()
    session["a"] = 1

    token = await session.save()

    assert token is not None
    assert await read(manager, token) == {"a": 1}
    session["b"] = 2
    assert await session.save() == token  # still to be told
    assert await manager.commit(session) == Issue(token, None)
    assert await manager.commit(session) is None
    assert await read(manager, token) == {"a": 1, "b": 2}


async def test_conflicts_can_be_refused(store: TappedStore, clock: Clock) -> None:
    """With `conflicts="raise"` two changes of one key are a 409, changes of different keys are not."""
    async with opened(Config(store=store, conflicts="raise"), clock) as manager:
        token = await begin(manager, a=1, b=1)
        one, other, third = await manager.load(token), await manager.load(token), await manager.load(token)
        one["a"] = 2
        other["b"] = 2
        third["a"] = 3
        await manager.commit(one)
        await manager.commit(other)

        with pytest.raises(CommitConflictError, match="session\\['a'\\]"):
            await manager.commit(third)

        assert await read(manager, token) == {"a": 2, "b": 2}
