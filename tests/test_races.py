"""Two requests at once: nothing acknowledged is lost, and what has ended stays ended."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import anyio
import pytest

from asgi_sessions import Config, Expire, Issue, SessionManager
from asgi_sessions.errors import CommitConflictError, TooManySessionsError
from tests.support import Clock, TappedStore, begin, opened, read


async def test_changes_of_different_keys_both_arrive(manager: SessionManager) -> None:
    """Set, changed and deleted keys of two requests are all there in the end."""
    token = await begin(manager, a=1, b=1, c=1, d=[1])
    one, other = await manager.load(token), await manager.load(token)
    one["a"] = 2
    del one["b"]
    one["d"].append(2)
    other["c"] = 2
    other["e"] = 2

    await manager.commit(one)
    await manager.commit(other)

    assert await read(manager, token) == {"a": 2, "c": 2, "d": [1, 2], "e": 2}
    assert manager.events.counts["conflict"] == 1


async def test_on_one_key_the_later_commit_wins(manager: SessionManager) -> None:
    """A plain assignment is the last word on its key."""
    token = await begin(manager, a=1)
    one, other = await manager.load(token), await manager.load(token)
    one["a"] = "one"
    other["a"] = "other"

    await manager.commit(one)
    await manager.commit(other)

    assert await read(manager, token) == {"a": "other"}
    assert other["a"] == "other"


async def test_fifty_operations_at_once_count_fifty(manager: SessionManager) -> None:
    """`increment`, `append`, `add`, `discard` and `flash` are done again on what the others made."""
    token = await begin(manager, n=0, tags={0}, out=set(range(50)))

    async def request(number: int) -> None:
        session = await manager.load(token)
        session.increment("n")
        session.append("list", number)
        session.add("tags", number)
        session.discard("out", number)
        session.flash(f"number {number}")
        await manager.commit(session)

    async with anyio.create_task_group() as group:
        for number in range(50):
            group.start_soon(request, number)

    session = await manager.load(token)
    assert session["n"] == 50
    assert sorted(session["list"]) == list(range(50))
    assert session["tags"] == set(range(50))
    assert session["out"] == set()
    assert len(session.flashes()) == 50


async def test_an_operation_on_a_value_of_another_kind_puts_ours_in_its_place(manager: SessionManager) -> None:
    """Where the other request has made a text of the number, the later commit wins as with any assignment."""
    token = await begin(manager, n=1)
    one, other = await manager.load(token), await manager.load(token)
    one["n"] = "many"
    other.increment("n", 2)

    await manager.commit(one)
    await manager.commit(other)

    assert await read(manager, token) == {"n": 3}


async def test_flashes_that_were_shown_are_gone_and_new_ones_stay(manager: SessionManager) -> None:
    """Showing messages forgets those shown, not one that came meanwhile."""
    token = await begin(manager, a=1)
    session = await manager.load(token)
    session.flash("first")
    await manager.commit(session)
    showing, adding = await manager.load(token), await manager.load(token)
    adding.flash("second", "error")
    assert [flash.message for flash in showing.flashes()] == ["first"]

    await manager.commit(adding)
    await manager.commit(showing)

    assert (await manager.load(token)).flashes() == [("second", "error")]


async def test_two_regenerations_have_one_winner(manager: SessionManager) -> None:
    """The loser's response carries no token, its data arrive, and the winner's token is the only one that lasts."""
    token = await begin(manager, a=1)
    one, other = await manager.load(token), await manager.load(token)
    one.regenerate()
    other.regenerate()
    other["b"] = 2

    winner = await manager.commit(one)

    assert isinstance(winner, Issue)
    assert await manager.commit(other) is None
    assert await read(manager, winner.token) == {"a": 1, "b": 2}


async def test_who_comes_with_a_replaced_token_cannot_replace_the_new_one(manager: SessionManager) -> None:
    """Else a browser could be left with a token that is about to end."""
    token = await begin(manager, a=1)
    first = await manager.load(token)
    first.regenerate()
    winner = await manager.commit(first)
    assert isinstance(winner, Issue)

    late = await manager.load(token)
    late.regenerate()

    assert await manager.commit(late) is None
    assert await read(manager, winner.token) == {"a": 1}


async def test_a_regeneration_wins_over_a_write_that_came_first(manager: SessionManager) -> None:
    """A lost race against a plain write only costs another attempt."""
    token = await begin(manager, a=1)
    writer, regenerating = await manager.load(token), await manager.load(token)
    writer["b"] = 2
    regenerating.regenerate()

    await manager.commit(writer)
    answer = await manager.commit(regenerating)

    assert isinstance(answer, Issue)
    assert await read(manager, answer.token) == {"a": 1, "b": 2}


@pytest.mark.parametrize("rival", ["login", "regenerate"])
async def test_a_login_never_loses(manager: SessionManager, rival: str) -> None:
    """A form submitted twice logs in twice: the loser in a session of its own with none of the old data."""
    token = await begin(manager, cart=["book"], seen=[1])
    one, other = await manager.load(token), await manager.load(token)
    one.login("ada") if rival == "login" else one.regenerate()
    other.login("ada")
    other["theme"] = "dark"
    other["seen"].append(2)

    first, second = await manager.commit(one), await manager.commit(other)

    assert isinstance(first, Issue)
    assert isinstance(second, Issue)
    assert await read(manager, first.token) == {"cart": ["book"], "seen": [1]}
    after = await manager.load(second.token)
    assert after.id != one.id
    assert (after.user_id, after.copy()) == ("ada", {"theme": "dark"})


async def test_a_login_as_another_user_never_loses(manager: SessionManager) -> None:
    """That the old session has been ended by the twin request already is no reason not to log in."""
    token = await begin(manager, "ada")
    one, other = await manager.load(token), await manager.load(token)
    one.login("bob")
    other.login("bob")

    answers = [await manager.commit(one), await manager.commit(other)]

    users = [(await manager.load(each.token)).user_id for each in answers if isinstance(each, Issue)]
    assert users == ["bob", "bob"]


async def test_a_login_wins_over_a_write_that_came_first(manager: SessionManager) -> None:
    """The write is merged into the user's session."""
    token = await begin(manager, a=1)
    writer, logging_in = await manager.load(token), await manager.load(token)
    writer["b"] = 2
    logging_in.login("ada")

    await manager.commit(writer)
    answer = await manager.commit(logging_in)

    assert isinstance(answer, Issue)
    after = await manager.load(answer.token)
    assert (after.user_id, after.copy()) == ("ada", {"a": 1, "b": 2})


async def test_emptying_merges_with_a_write(manager: SessionManager) -> None:
    """A session is not ended under the hands of a request that has just written to it."""
    token = await begin(manager, a=1)
    emptying, writing = await manager.load(token), await manager.load(token)
    del emptying["a"]
    writing["b"] = 2

    await manager.commit(writing)

    assert await manager.commit(emptying) is None
    assert await read(manager, token) == {"b": 2}


async def test_two_that_empty_a_session_end_it(manager: SessionManager) -> None:
    """Each removes its own key; the one that is left with none ends the session."""
    token = await begin(manager, a=1, b=1, c=1)
    one, other = await manager.load(token), await manager.load(token)
    one.pop("a")
    for key in ("a", "b", "c"):
        other.pop(key)

    await manager.commit(one)

    assert await manager.commit(other) == Expire()
    assert await read(manager, token) is None


async def test_timeouts_of_a_session_merge_field_by_field(manager: SessionManager) -> None:
    """One request sets the idle timeout, another the end: both stay."""
    token = await begin(manager, "ada")
    one, other = await manager.load(token), await manager.load(token)
    end = one.created_at + timedelta(hours=2)
    one.idle_timeout = timedelta(hours=1)
    other.absolute_end = end

    await manager.commit(one)
    await manager.commit(other)

    after = await manager.load(token)
    assert (after.idle_timeout, after.absolute_end) == (timedelta(hours=1), end)


@pytest.mark.parametrize("known", [True, False])
async def test_no_login_in_flight_survives_a_revocation(manager: SessionManager, clock: Clock, known: bool) -> None:
    """What was loaded before "log me out everywhere" is dead, whenever it commits."""
    token = await begin(manager, a=1)
    logging_in = await manager.load(token if known else None)
    logging_in.login("ada")
    clock.advance(seconds=1)

    await manager.revoke(user_id="ada")

    assert await manager.commit(logging_in) is None
    assert logging_in.is_gone
    assert [each async for each in manager.sessions(user_id="ada")] == []


async def test_a_session_kept_by_a_revocation_can_be_one_not_committed_yet(
    manager: SessionManager, clock: Clock
) -> None:
    """A handler that logs in and ends all others keeps the session it is about to make."""
    session = await manager.load()
    session.login("ada")
    clock.advance(seconds=1)
    await manager.revoke(user_id="ada", keep=session.id)

    answer = await manager.commit(session)

    assert isinstance(answer, Issue)
    assert (await manager.load(answer.token)).user_id == "ada"


async def test_a_kept_session_commits_after_the_revocation(manager: SessionManager, clock: Clock) -> None:
    """The request that ends all others is not ended by its own mark."""
    token, other = await begin(manager, "ada"), await begin(manager, "ada")
    session = await manager.load(token)
    session.flash("all others have ended")
    clock.advance(seconds=1)

    assert await manager.revoke(user_id="ada", keep=session.id) == 1

    assert await manager.commit(session) is None
    assert not session.is_gone
    assert (await manager.load(token)).flashes() == [("all others have ended", "message")]
    assert await read(manager, other) is None


async def test_a_commit_that_keeps_losing_gives_up(manager: SessionManager, store: TappedStore) -> None:
    """The number of attempts is bounded, and the error says what to do."""
    token = await begin(manager, a=1)
    session = await manager.load(token)
    session["mine"] = 1

    async def rival() -> None:
        record = await store.inner.load(session.id)
        assert record is not None
        await store.inner.update(_next(record), expected=record.version)

    store.before["update"] = rival

    with pytest.raises(CommitConflictError, match="try once more"):
        await manager.commit(session)

    assert await read(manager, token) == {"a": 1}


async def test_emptying_that_keeps_losing_gives_up(manager: SessionManager, store: TappedStore) -> None:
    """The same bound holds for a delete."""
    token = await begin(manager, a=1)
    session = await manager.load(token)
    del session["a"]

    async def rival() -> None:
        record = await store.inner.load(session.id)
        assert record is not None
        await store.inner.update(_next(record), expected=record.version)

    store.before["delete"] = rival

    with pytest.raises(CommitConflictError):
        await manager.commit(session)

    assert await read(manager, token) == {"a": 1}


def _next(record: Any) -> Any:
    return replace(record, version=record.version + 1)


async def test_a_user_has_at_most_so_many_sessions(store: TappedStore, clock: Clock) -> None:
    """A log-in beyond the limit ends the oldest."""
    async with opened(Config(store=store, max_sessions_per_user=2), clock) as manager:
        tokens = []
        for _ in range(3):
            tokens.append(await begin(manager, "ada"))
            clock.advance(seconds=1)

        assert [await read(manager, token) is not None for token in tokens] == [False, True, True]


async def test_a_login_beyond_the_limit_can_be_refused(store: TappedStore, clock: Clock) -> None:
    """With `when_full="refuse"` the sessions that are there stay, and the log-in fails."""
    config = Config(store=store, max_sessions_per_user=1, when_full="refuse")
    async with opened(config, clock) as manager:
        token, anonymous = await begin(manager, "ada"), await begin(manager, a=1)
        session = await manager.load(anonymous)
        session.login("ada")

        with pytest.raises(TooManySessionsError):
            await manager.commit(session)

        assert await read(manager, token) == {}
        assert await read(manager, anonymous) == {"a": 1}


async def test_a_login_under_a_token_just_replaced_begins_anew(manager: SessionManager) -> None:
    """The new token of the old session is another response's: this one gets a session of its own."""
    token = await begin(manager, cart=["book"])
    regenerating = await manager.load(token)
    regenerating.regenerate()
    winner = await manager.commit(regenerating)
    late = await manager.load(token)
    assert late == {"cart": ["book"]}
    late.login("ada")

    answer = await manager.commit(late)

    assert isinstance(answer, Issue)
    assert isinstance(winner, Issue)
    after = await manager.load(answer.token)
    assert after.id != regenerating.id
    assert (after.user_id, after.copy()) == ("ada", {})
    assert await read(manager, winner.token) == {"cart": ["book"]}
