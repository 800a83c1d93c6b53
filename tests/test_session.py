"""The session as a dict, and what it says of itself."""

import copy
import json
import pickle
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import orjson
import pytest

from asgi_sessions import Flash, Issue, Session, SessionManager
from asgi_sessions.errors import ConfigError, NotLoadedError
from tests.support import T0, Clock, TappedStore, begin, read

READERS: dict[str, Callable[[Any], Any]] = {
    "json": lambda session: json.loads(json.dumps(session)),
    "json with indent": lambda session: json.loads(json.dumps(session, indent=1)),
    "orjson": lambda session: orjson.loads(orjson.dumps(session)),
    "msgspec": lambda session: msgspec.json.decode(msgspec.json.encode(session)),
    "dict": dict,
    "unpacking": lambda session: {**session},
    "keywords": lambda session: dict(**session),
    "or": lambda session: session | {},
    "ror": lambda session: {} | session,
    "items": lambda session: dict(session.items()),
    "copy": lambda session: session.copy(),
    "copy.copy": copy.copy,
    "copy.deepcopy": copy.deepcopy,
    "pickle": lambda session: pickle.loads(pickle.dumps(session)),  # noqa: S301 - of our own making
    "comprehension": lambda session: {key: session[key] for key in session},
    "zip": lambda session: dict(zip(session.keys(), session.values(), strict=True)),
}


@pytest.mark.parametrize("reader", READERS)
async def test_every_reader_of_dicts_reads_a_session(manager: SessionManager, reader: str) -> None:
    """Python's and those written in C."""
    session = await manager.load(await begin(manager, a=1, b=[{"c": "d"}]))

    found = READERS[reader](session)

    assert found == {"a": 1, "b": [{"c": "d"}]}
    assert type(found) is dict


@pytest.mark.parametrize("reader", READERS)
async def test_a_session_that_is_not_loaded_never_looks_empty(manager: SessionManager, reader: str) -> None:
    """It is loudly wrong, also for those that read a dict past its methods."""
    session = manager.defer(await begin(manager, a=1))

    with pytest.raises((NotLoadedError, TypeError)):
        READERS[reader](session)


async def test_a_session_is_changed_like_a_dict(manager: SessionManager) -> None:
    """Every method of `dict`."""
    token = await begin(manager, a=1, b=2, c=3, d=4)
    session = await manager.load(token)
    assert session.pop("a") == 1
    assert session.pop("a", None) is None
    assert session.popitem() == ("d", 4)
    assert session.setdefault("b", 0) == 2
    assert session.setdefault("e") is None
    session.update({"f": 6}, g=7)
    session.update([("h", 8)])
    session |= {"i": 9}
    del session["c"]
    with pytest.raises(KeyError):
        session["c"]
    assert list(session) == list(reversed(list(reversed(session))))

    await manager.commit(session)

    assert await read(manager, token) == {"b": 2, "e": None, "f": 6, "g": 7, "h": 8, "i": 9}


def status(session: Session) -> str:
    """Return it anew: to a type checker a property does not change."""
    return session.status


async def test_a_session_tells_its_status(manager: SessionManager) -> None:
    """What a commit would find, before and after it."""
    session = await manager.load()
    assert (status(session), session.is_new) == ("unmodified", True)
    session["a"] = [1]
    assert status(session) == "modified"
    answer = await manager.commit(session)
    assert status(session) == "unmodified"
    assert isinstance(answer, Issue)

    session = await manager.load(answer.token)
    assert (status(session), session.is_new) == ("unmodified", False)
    session["a"].append(2)
    assert status(session) == "modified"
    session["a"].pop()
    assert status(session) == "unmodified"
    session.regenerate()
    assert status(session) == "modified"
    session.destroy()
    assert status(session) == "destroyed"
    await manager.commit(session)
    assert status(session) == "destroyed"
    session["b"] = 1
    assert status(session) == "modified"


async def test_a_session_tells_its_times(manager: SessionManager, clock: Clock) -> None:
    """All of them aware."""
    session = await manager.load()
    assert (session.created_at, session.last_seen, session.authenticated_at) == (T0, T0, None)
    assert session.expires_at == T0 + timedelta(minutes=15)
    session.login("ada")
    assert (session.authenticated_at, session.expires_at) == (T0, T0 + timedelta(minutes=30))
    answer = await manager.commit(session)
    assert isinstance(answer, Issue)
    clock.advance(minutes=20)

    session = await manager.load(answer.token)

    assert (session.created_at, session.last_seen, session.authenticated_at) == (T0, T0, T0)
    assert session.expires_at == clock.now + timedelta(minutes=30)
    assert session.idle_timeout == timedelta(minutes=30)
    assert session.absolute_end == T0 + timedelta(hours=24)


async def test_timeouts_of_its_own_are_kept(manager: SessionManager, store: TappedStore, clock: Clock) -> None:
    """They outlive the request that set them, and rule the record."""
    token = await begin(manager, "ada")
    session = await manager.load(token)
    session.idle_timeout = timedelta(hours=3)
    session.absolute_end = T0 + timedelta(hours=5)
    await manager.commit(session)
    clock.advance(hours=2.5)

    session = await manager.load(token)
    assert session.user_id == "ada"
    assert session.expires_at == T0 + timedelta(hours=5)
    await manager.commit(session)
    assert store.calls["touch"] == 1
    clock.advance(hours=2.5)
    assert (await manager.load(token)).is_new


async def test_a_timeout_of_its_own_can_be_given_up(manager: SessionManager) -> None:
    """None returns to what the config says."""
    token = await begin(manager, "ada")
    session = await manager.load(token)
    session.idle_timeout = timedelta(hours=3)
    session.absolute_end = T0 + timedelta(hours=4)
    session.idle_timeout = session.absolute_end = None

    assert session.status == "unmodified"
    assert session.idle_timeout == timedelta(minutes=30)


async def test_a_wrong_timeout_is_refused(manager: SessionManager) -> None:
    """With the fix."""
    session = await manager.load()
    number: Any = 60
    with pytest.raises(ConfigError, match=r"timedelta\(seconds=60\)"):
        session.idle_timeout = number
    with pytest.raises(ValueError, match="aware"):
        session.absolute_end = datetime(2026, 1, 1)  # noqa: DTZ001 - the point
    with pytest.raises(ConfigError, match="remember"):
        session.login("ada", remember=timedelta(0))


async def test_remembering_for_a_while_replaces_both_timeouts(manager: SessionManager, clock: Clock) -> None:
    """Who is away for a week is still logged in on the eighth day, and not on the thirty-first."""
    session = await manager.load()
    session.login("ada", remember=timedelta(days=30))
    answer = await manager.commit(session)
    assert isinstance(answer, Issue)
    assert answer.max_age == 30 * 86400

    clock.advance(days=8)
    session = await manager.load(answer.token)
    assert session.user_id == "ada"
    await manager.commit(session)
    clock.advance(days=22)
    assert (await manager.load(answer.token)).is_new


@pytest.mark.parametrize(("remember", "max_age"), [(True, 86400), (False, None), (None, None)])
async def test_remembering_makes_the_cookie_outlive_the_browser(
    manager: SessionManager, remember: bool | None, max_age: int | None
) -> None:
    """True does, False does not, None is what the cookie says."""
    session = await manager.load()
    session.login("ada", remember=remember)

    assert getattr(await manager.commit(session), "max_age", "none") == max_age


@pytest.mark.parametrize(("given", "kept"), [("ada", "ada"), (4, "4"), (UUID(int=4), str(UUID(int=4)))])
async def test_a_user_id_is_kept_as_text(manager: SessionManager, given: Any, kept: str) -> None:
    """A database's integers and UUIDs are welcome, and find the session again."""
    session = await manager.load()
    session.login(given)
    await manager.commit(session)

    assert session.user_id == kept
    assert [each.user_id async for each in manager.sessions(user_id=given)] == [kept]


@pytest.mark.parametrize("wrong", ["", "a\0b", "\ud800", "x" * 256])
async def test_a_user_id_that_servers_cannot_keep_is_refused(manager: SessionManager, wrong: str) -> None:
    """Before anything is changed."""
    session = await manager.load()
    with pytest.raises(ValueError, match="1 to 255 characters"):
        session.login(wrong)

    assert session.user_id is None


@pytest.mark.parametrize("wrong", [None, True, 1.5, b"ada"])
async def test_a_user_id_of_another_type_is_refused(manager: SessionManager, wrong: Any) -> None:
    """`login(None)` would bind a session to a user called None."""
    session = await manager.load()
    with pytest.raises(TypeError, match="use a str, an int or a UUID"):
        session.login(wrong)


async def test_operations_begin_with_nothing_and_return_what_they_make(manager: SessionManager) -> None:
    """Each has its empty value."""
    session = await manager.load()
    assert session.increment("n") == 1
    assert session.increment("n", 2.5) == 3.5
    session.append("list", "a")
    session.add("set", "a")
    session.add("set", "a")
    session.discard("set", "b")
    session.discard("list", "b")
    session.discard("missing", "b")
    session.append("list", "a")
    session.discard("list", "a")

    assert session == {"n": 3.5, "list": ["a"], "set": {"a"}}


@pytest.mark.parametrize("verb", ["append", "add", "discard", "increment"])
async def test_an_operation_on_the_wrong_kind_of_value_is_refused(manager: SessionManager, verb: str) -> None:
    """Where it is called, and the value stays."""
    session = await manager.load(await begin(manager, a="text"))
    with pytest.raises(TypeError):
        getattr(session, verb)("a", 1)

    assert session == {"a": "text"}
    assert session.status == "unmodified"


async def test_flashes_are_shown_once(manager: SessionManager) -> None:
    """In order, with their category; an anonymous session of nothing else ends with them."""
    session = await manager.load()
    assert session.flashes() == []
    session.flash("saved")
    session.flash("careful", "warning")
    answer = await manager.commit(session)
    assert isinstance(answer, Issue)

    session = await manager.load(answer.token)
    assert session.flashes() == [Flash("saved", "message"), Flash("careful", "warning")]
    assert session.flashes() == []
    assert session.status == "modified"
    await manager.commit(session)
    assert (await manager.load(answer.token)).is_new


async def test_reload_drops_changes_and_sees_those_of_others(manager: SessionManager) -> None:
    """Also operations, timeouts, a log-in."""
    token = await begin(manager, a=1)
    session, other = await manager.load(token), await manager.load(token)
    other["a"] = 2
    await manager.commit(other)
    session.increment("a", 5)
    session.idle_timeout = timedelta(hours=1)
    session.login("ada")

    await session.reload()

    assert session == {"a": 2}
    assert (session.user_id, session.status) == (None, "unmodified")


async def test_reload_of_a_session_that_has_ended_finds_it_gone(manager: SessionManager) -> None:
    """And what is written then does not bring it back."""
    token = await begin(manager, a=1)
    session = await manager.load(token)
    await manager.delete(session.id)

    await session.reload()

    assert session.is_gone
    session["a"] = 1
    assert await manager.commit(session) is None
    await session.reload()
    assert session.is_gone


async def test_reload_of_a_strangers_session_empties_it(manager: SessionManager) -> None:
    """There is nothing stored to read."""
    session = await manager.load()
    session["a"] = 1

    await session.reload()

    assert session == {}
    assert not session.is_gone


async def test_reload_loads_what_was_deferred(manager: SessionManager) -> None:
    """A lazy session is read then."""
    session = manager.defer(await begin(manager, a=1))

    await session.reload()

    assert session == {"a": 1}


async def test_a_repr_shows_neither_data_nor_token(manager: SessionManager) -> None:
    """And looking at it is no access."""
    session = await manager.load(await begin(manager, card="4111"))

    assert repr(session) == f"<Session {session.id}>"
    assert repr(await manager.load()) == "<Session new>"
    assert "not loaded" in repr(next(dict.__iter__(manager.defer("A" * 22 + "." + "A" * 43))))


async def test_a_session_is_no_key(manager: SessionManager) -> None:
    """Like every dict."""
    session: Any = await manager.load()
    with pytest.raises(TypeError, match="unhashable"):
        hash(session)


async def test_an_id_is_known_before_the_session_is_stored(manager: SessionManager) -> None:
    """So that a handler can name it, and it stays."""
    session = await manager.load()
    id = session.id
    session["a"] = 1
    answer = await manager.commit(session)

    assert isinstance(answer, Issue)
    assert answer.token.startswith(id + ".")
    assert isinstance(session, Session)
