"""
The proof of a store: `StoreConformance`.

Rule 1: only the protocol of `asgi_sessions.stores` is used, so that any store can be proved, also over a real server.
Rule 2: no test waits for an expiry: it creates a record whose `expires_at` has passed.

One class, however long: it is inherited as a whole, and read promise by promise.
"""
# ruff: noqa: S101, PLR2004  `assert` is how a test speaks; a promise is a method, its number the point

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import anyio
import pytest
from anyio.lowlevel import checkpoint

from asgi_sessions._clock import now
from asgi_sessions._record import Limit, Record
from asgi_sessions._token import new_id
from asgi_sessions.errors import RecordExistsError, TooManySessionsError
from asgi_sessions.stores._base import LimitsUsers, Store, Watches

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
_MICROSECOND = timedelta(microseconds=1)
_RACERS = 20
_ENDLESS = 10_000

_HOSTILE_IDS = {
    "empty": "",
    "space": " ",
    "quote": "' OR '1'='1",
    "statement": "x'; DELETE FROM sessions; --",
    "percent": "%",
    "star": "*",
    "glob": "[a-z]*",
    "path": "../../etc/passwd",
    "newline": "a\r\nDEL b",
    "nul": "a\0b",
    "braces": "{a}:{b}",
    "beyond-ascii": "\xe9\u2028\U0001f511",
    "lone-surrogate": "\ud800",
    "long": "a" * 10_000,
}

_ALIKE = {  # names that a careless comparison takes for one
    "case": ("abc", "AbC"),
    "normal-form": ("jos\xe9", "jose\u0301"),
    "trailing-space": ("ann", "ann "),
    "leading-space": ("ann", " ann"),
    "percent": ("a%", "abc"),
    "underscore": ("a_c", "abc"),
    "star": ("*", "abc"),
    "brackets": ("[ab]", "a"),
    "question-mark": ("a?c", "abc"),
    "backslash": ("a\\", "a"),
    "quote": ("o'neil", "o''neil"),
    "double-quote": ('"a"', "a"),
    "statement": ("' OR '1'='1", "abc"),
    "newline": ("a\nb", "a"),
    "colon": ("a:b", "a"),
    "braces": ("{a}", "a"),
    "number": ("1", "01"),
    "longest": ("a" * 255, "a" * 254),
    "emoji": ("\U0001f511", "\U0001f510"),
}


def new_record(**changes: Any) -> Record:
    """Return an anonymous record with an ID of its own, live for an hour, with *changes*."""
    instant = now()
    defaults: dict[str, Any] = {
        "id": new_id(),
        "data": b"data",
        "version": 1,
        "created_at": instant - MINUTE,
        "seen_at": instant,
        "expires_at": instant + HOUR,
    }
    return Record(**{**defaults, **changes})


def successor(record: Record, **changes: Any) -> Record:
    """Return what the next update of *record* writes, with *changes*."""
    return replace(record, **{"version": record.version + 1, **changes})


async def every(records: AsyncGenerator[Record, None]) -> list[Record]:
    """Return all *records*; a listing that does not end fails."""
    found: list[Record] = []
    async with aclosing(records):
        async for each in records:
            found.append(each)
            assert len(found) <= _ENDLESS, "records() does not end"
    return found


async def together(call: Callable[[int], Awaitable[object]], times: int = _RACERS) -> list[object]:
    """Return what so many concurrent calls gave, a `RecordExistsError` or `TooManySessionsError` like a result."""
    given: list[object] = []

    async def run(number: int) -> None:
        try:
            given.append(await call(number))
        except (RecordExistsError, TooManySessionsError) as error:
            given.append(type(error))

    async with anyio.create_task_group() as tasks:
        for number in range(times):
            tasks.start_soon(run, number)
    return given


def limiting(store: object) -> LimitsUsers:
    """Return *store*, or skip the test."""
    if not isinstance(store, LimitsUsers):
        pytest.skip("the store does not limit a user's sessions (LimitsUsers)")
    return store


def watching(store: object) -> Watches:
    """Return *store*, or skip the test."""
    if not isinstance(store, Watches):
        pytest.skip("the store has no news of ended sessions (Watches)")
    return store


@pytest.mark.anyio
class StoreConformance:
    """
    Every promise of a store, as tests.

    Subclass it with an asynchronous fixture named `store` that yields an opened, empty store and closes it. anyio's own
    plugin for pytest, which is there once anyio is installed, runs the tests on the fixture `anyio_backend`.

        class TestMyStore(StoreConformance):
            @pytest.fixture
            async def store(self) -> AsyncIterator[MyStore]:
                store = MyStore(...)
                await store.open()
                yield store
                await store.close()
    """

    expires_by_itself = False
    """True where the server removes expired records, so that `sweep` has none to count."""

    @pytest.fixture(scope="module")
    @classmethod
    def anyio_backend(cls) -> Any:
        """Return the backend to run on; override it with `params` for several."""
        return "asyncio"

    # open, close, ping

    async def test_open_again_changes_nothing(self, store: Store) -> None:
        """A store that is open can be opened again, and keeps what it has."""
        record = new_record()
        await store.create(record)

        await store.open()

        assert await store.load(record.id) == record

    async def test_open_at_once_opens_once(self, store: Store) -> None:
        """Requests that all open the store do not disturb each other."""
        record = new_record()
        await store.create(record)

        await together(lambda _: store.open())

        assert await store.load(record.id) == record

    async def test_ping_returns(self, store: Store) -> None:
        """A store that answers says so by returning."""
        await store.ping()

    # create, load

    async def test_a_record_comes_back_as_it_was(self, store: Store) -> None:
        """What is loaded equals what was created."""
        record = new_record(user_id="ann")

        assert await store.create(record) is True

        assert await store.load(record.id) == record

    async def test_an_unknown_id_is_none(self, store: Store) -> None:
        """An ID that nobody created is None."""
        assert await store.load(new_id()) is None

    @pytest.mark.parametrize(
        "data",
        [b"", b"\0", bytes(range(256)), bytes(range(256)) * 4096, b"\xff\xfe'\"\\%\r\n"],
        ids=["empty", "nul", "every-byte", "1-MiB", "hostile"],
    )
    async def test_data_comes_back_byte_for_byte(self, store: Store, data: bytes) -> None:
        """Data is opaque: any bytes come back, through create and through update."""
        record = new_record(data=data)
        changed = new_record(data=b"before")

        await store.create(record)
        await store.create(changed)
        await store.update(successor(changed, data=data), expected=1)

        loaded, updated = await store.load(record.id), await store.load(changed.id)
        assert loaded is not None
        assert updated is not None
        assert loaded.data == updated.data == data

    @pytest.mark.parametrize("microsecond", [0, 1, 499_999, 500_000, 999_999])
    async def test_times_are_kept_to_the_microsecond(self, store: Store, microsecond: int) -> None:
        """Each of the three times comes back exactly, and aware."""
        record = new_record(
            created_at=datetime(2024, 2, 29, 23, 59, 59, microsecond, UTC),
            seen_at=datetime(2025, 12, 31, 23, 59, 59, microsecond, UTC),
            expires_at=datetime(2199, 12, 31, 23, 59, 59, microsecond, UTC),
        )

        await store.create(record)

        loaded = await store.load(record.id)
        assert loaded == record
        assert loaded.expires_at.utcoffset() is not None

    async def test_an_expiry_may_be_far_away(self, store: Store) -> None:
        """A session of the year 9000 is kept as exactly as any."""
        record = new_record(expires_at=datetime(9000, 1, 2, 3, 4, 5, 678_901, UTC))

        await store.create(record)

        assert await store.load(record.id) == record

    async def test_a_time_may_lie_before_1970(self, store: Store) -> None:
        """A clock that is far off does no harm to a record."""
        record = new_record(created_at=datetime(1969, 7, 20, 20, 17, 40, 1, UTC))

        await store.create(record)

        assert await store.load(record.id) == record

    async def test_a_version_may_be_high(self, store: Store) -> None:
        """A session that is written every second for years still counts."""
        record = new_record(version=2**31 + 1)
        await store.create(record)

        assert await store.update(successor(record), expected=2**31 + 1) == successor(record)

    async def test_ids_of_other_case_are_other_ids(self, store: Store) -> None:
        """IDs are compared by their bytes: two that differ in case are two sessions."""
        id = new_id().swapcase()
        one, other = new_record(id=id, data=b"one"), new_record(id=id.swapcase(), data=b"other")

        assert await store.create(one) is True
        assert await store.create(other) is True

        assert await store.load(one.id) == one
        assert await store.load(other.id) == other

    async def test_create_never_replaces(self, store: Store) -> None:
        """A taken ID raises, and the record there stays as it was."""
        record = new_record()
        await store.create(record)

        with pytest.raises(RecordExistsError):
            await store.create(replace(record, data=b"other"))

        assert await store.load(record.id) == record

    async def test_of_many_creates_of_one_id_one_wins(self, store: Store) -> None:
        """Twenty requests that create one ID at once: one does, the others are told."""
        record = new_record()

        given = await together(lambda number: store.create(replace(record, data=b"%d" % number)))

        assert given.count(True) == 1
        assert given.count(RecordExistsError) == _RACERS - 1

    # update

    async def test_update_replaces_everything(self, store: Store) -> None:
        """The record that won is returned, and is what is loaded from then on."""
        record = new_record()
        await store.create(record)
        changed = successor(
            record,
            data=b"other",
            seen_at=record.seen_at + MINUTE,
            expires_at=record.expires_at + MINUTE,
            user_id="ann",
        )

        assert await store.update(changed, expected=1) == changed

        assert await store.load(record.id) == changed

    async def test_update_may_move_the_expiry_earlier(self, store: Store) -> None:
        """Unlike a touch: a log-in may shorten what was there before."""
        record = new_record()
        await store.create(record)
        changed = successor(record, expires_at=record.expires_at - 30 * MINUTE)

        await store.update(changed, expected=1)

        assert await store.load(record.id) == changed

    async def test_update_to_a_past_expiry_ends_the_record(self, store: Store) -> None:
        """What an update lets expire is gone at once."""
        record = new_record()
        await store.create(record)

        await store.update(successor(record, expires_at=now() - HOUR), expected=1)

        assert await store.load(record.id) is None

    async def test_update_never_adds(self, store: Store) -> None:
        """An update of a session that is gone is None, and leaves nothing."""
        record = new_record(user_id="ann")

        assert await store.update(successor(record), expected=1) is None

        assert await store.load(record.id) is None
        assert await every(store.records()) == []

    async def test_a_log_out_wins_over_a_later_update(self, store: Store) -> None:
        """A request that was under way during a log-out cannot bring the session back."""
        record = new_record(user_id="ann")
        await store.create(record)
        await store.delete(record.id)

        assert await store.update(successor(record), expected=1) is None

        assert await store.load(record.id) is None
        assert await every(store.records(user_id="ann")) == []

    @pytest.mark.parametrize("expected", [1, 3, 0, -1])
    async def test_an_update_that_lost_returns_the_winner(self, store: Store, expected: int) -> None:
        """With any but the current version nothing is written, and the record that is there comes back."""
        record = new_record()
        await store.create(record)
        winner = successor(record, data=b"winner")
        await store.update(winner, expected=1)

        held = await store.update(replace(record, data=b"loser", version=expected + 1), expected=expected)

        assert held == winner
        assert await store.load(record.id) == winner

    async def test_of_many_updates_of_one_version_one_wins(self, store: Store) -> None:
        """Twenty requests that update the same version at once: one wins, and all are told of it."""
        record = new_record()
        await store.create(record)

        given = await together(lambda number: store.update(successor(record, data=b"%d" % number), expected=1))

        held = await store.load(record.id)
        assert held is not None
        assert held.version == 2
        assert given == [held] * _RACERS

    async def test_concurrent_increments_all_count(self, store: Store) -> None:
        """Twenty requests that each add one, trying again when they lose, count to twenty."""
        record = new_record(data=b"0")
        await store.create(record)

        async def increment(number: int) -> None:
            held = record
            while True:
                changes = {"data": b"%d" % (int(held.data) + 1), "seen_at": record.seen_at + number * _MICROSECOND}
                mine = successor(held, **changes)
                winner = await store.update(mine, expected=held.version)
                if winner == mine:
                    return
                assert winner is not None
                held = winner

        await together(increment)

        held = await store.load(record.id)
        assert held is not None
        assert held.data == b"%d" % _RACERS
        assert held.version == _RACERS + 1

    # touch

    async def test_touch_moves_both_times_later_and_nothing_else(self, store: Store) -> None:
        """Data, version, user and creation stay."""
        record = new_record(user_id="ann")
        await store.create(record)
        expires_at, seen_at = record.expires_at + MINUTE, record.seen_at + MINUTE

        assert await store.touch(record.id, expires_at=expires_at, seen_at=seen_at, expected=1) is True

        assert await store.load(record.id) == replace(record, expires_at=expires_at, seen_at=seen_at)

    async def test_touch_never_moves_a_time_earlier(self, store: Store) -> None:
        """A late touch leaves both times alone, and says that the record is there."""
        record = new_record()
        await store.create(record)

        touched = await store.touch(
            record.id, expires_at=record.expires_at - MINUTE, seen_at=record.seen_at - MINUTE, expected=1
        )

        assert touched is True
        assert await store.load(record.id) == record

    async def test_touch_moves_each_time_by_itself(self, store: Store) -> None:
        """Where one of the two would move earlier, the other still moves."""
        one, other = new_record(), new_record()
        await store.create(one)
        await store.create(other)
        later, earlier = now() + 2 * HOUR, now() - HOUR

        await store.touch(one.id, expires_at=later, seen_at=earlier, expected=1)
        await store.touch(other.id, expires_at=earlier, seen_at=later, expected=1)

        assert await store.load(one.id) == replace(one, expires_at=later)
        assert await store.load(other.id) == replace(other, seen_at=later)

    async def test_touch_never_adds(self, store: Store) -> None:
        """A session that is gone is not touched, and not brought back."""
        id = new_id()

        assert await store.touch(id, expires_at=now() + HOUR, seen_at=now(), expected=1) is False

        assert await store.load(id) is None
        assert await every(store.records()) == []

    @pytest.mark.parametrize("expected", [0, 2])
    async def test_touch_of_another_version_does_nothing(self, store: Store, expected: int) -> None:
        """A touch is for the version that was loaded."""
        record = new_record()
        await store.create(record)

        touched = await store.touch(record.id, expires_at=now() + DAY, seen_at=now() + MINUTE, expected=expected)

        assert touched is False
        assert await store.load(record.id) == record

    async def test_an_update_after_a_touch_wins(self, store: Store) -> None:
        """A touch takes no version, so that it costs no other request its update."""
        record = new_record()
        await store.create(record)
        await store.touch(record.id, expires_at=now() + DAY, seen_at=now(), expected=1)

        assert await store.update(successor(record), expected=1) == successor(record)

    async def test_of_many_touches_the_latest_stands(self, store: Store) -> None:
        """Touches in any order leave the latest of their times."""
        record = new_record()
        await store.create(record)
        latest = record.expires_at + (_RACERS - 1) * MINUTE

        given = await together(
            lambda number: store.touch(
                record.id, expires_at=record.expires_at + number * MINUTE, seen_at=record.seen_at, expected=1
            )
        )

        assert given == [True] * _RACERS
        assert await store.load(record.id) == replace(record, expires_at=latest)

    # delete

    async def test_delete_removes(self, store: Store) -> None:
        """A deleted session is gone for every verb."""
        record = new_record(user_id="ann")
        await store.create(record)

        assert await store.delete(record.id) is True

        assert await store.load(record.id) is None
        assert await store.load_many([record.id]) == [None]
        assert await every(store.records()) == []
        assert await every(store.records(user_id="ann")) == []
        assert await store.touch(record.id, expires_at=now() + DAY, seen_at=now(), expected=1) is False

    async def test_delete_again_is_false(self, store: Store) -> None:
        """A second log-out is no error; it removed nothing."""
        record = new_record()
        await store.create(record)
        await store.delete(record.id)

        assert await store.delete(record.id) is False
        assert await store.delete(record.id, expected=1) is False

    async def test_delete_leaves_others(self, store: Store) -> None:
        """Only the session named is removed."""
        one, other = new_record(user_id="ann"), new_record(user_id="ann")
        await store.create(one)
        await store.create(other)

        await store.delete(one.id)

        assert await every(store.records(user_id="ann")) == [other]

    async def test_delete_of_a_version(self, store: Store) -> None:
        """With a version, only that one is removed."""
        record = new_record()
        await store.create(record)
        await store.update(successor(record), expected=1)

        assert await store.delete(record.id, expected=1) is False
        assert await store.load(record.id) == successor(record)
        assert await store.delete(record.id, expected=2) is True
        assert await store.load(record.id) is None

    async def test_of_many_deletes_one_removes(self, store: Store) -> None:
        """Twenty log-outs at once: one ended the session."""
        record = new_record()
        await store.create(record)

        given = await together(lambda _: store.delete(record.id))

        assert given.count(True) == 1

    async def test_an_id_is_free_again_after_delete(self, store: Store) -> None:
        """Deletion leaves no tombstone."""
        record = new_record(user_id="ann")
        await store.create(record)
        await store.delete(record.id)

        assert await store.create(replace(record, data=b"new")) is True

        assert await store.load(record.id) == replace(record, data=b"new")

    # expiry

    async def test_an_expired_record_is_gone_for_every_verb(self, store: Store) -> None:
        """From its expiry on a record is not there, swept or not."""
        record = new_record(user_id="ann", expires_at=now() - HOUR)

        await store.create(record)

        assert await store.load(record.id) is None
        assert await store.load_many([record.id]) == [None]
        assert await every(store.records()) == []
        assert await every(store.records(user_id="ann")) == []
        assert await store.touch(record.id, expires_at=now() + HOUR, seen_at=now(), expected=1) is False
        assert await store.update(successor(record, expires_at=now() + HOUR), expected=1) is None
        assert await store.load(record.id) is None

    async def test_an_expired_record_is_not_there_to_be_deleted(self, store: Store) -> None:
        """To delete what has expired is to delete nothing."""
        one, other = new_record(expires_at=now() - HOUR), new_record(expires_at=now() - HOUR)
        await store.create(one)
        await store.create(other)

        assert await store.delete(one.id) is False
        assert await store.delete(other.id, expected=1) is False

    async def test_an_expired_record_counts_nowhere(self, store: Store) -> None:
        """What a revocation says it ended were live sessions."""
        live = new_record(user_id="ann")
        await store.create(live)
        for _ in range(3):
            await store.create(new_record(user_id="ann", expires_at=now() - HOUR))

        assert await store.delete_user("ann") == 1

    async def test_an_expired_record_leaves_its_id(self, store: Store) -> None:
        """Gone and expired are the same answer: the ID is free."""
        record = new_record(user_id="ann", expires_at=now() - HOUR)
        await store.create(record)
        again = replace(record, data=b"new", user_id="bob", expires_at=now() + HOUR)

        assert await store.create(again) is True

        assert await store.load(record.id) == again
        assert await every(store.records(user_id="ann")) == []

    # load_many

    async def test_load_many_keeps_order_and_repetition(self, store: Store) -> None:
        """The answers stand where the questions stood, missing ones as None."""
        one, other, expired = new_record(), new_record(), new_record(expires_at=now() - HOUR)
        for record in (one, other, expired):
            await store.create(record)
        unknown = new_id()

        loaded = await store.load_many([other.id, unknown, one.id, other.id, expired.id, unknown])

        assert loaded == [other, None, one, other, None, None]

    async def test_load_many_of_nothing(self, store: Store) -> None:
        """No questions, no answers."""
        assert await store.load_many([]) == []

    async def test_load_many_of_many(self, store: Store) -> None:
        """As many as a busy moment brings come back, also more than a server takes in one command."""
        records = [new_record(data=b"%d" % number) for number in range(300)]
        for record in records:
            await store.create(record)

        assert await store.load_many([each.id for each in records * 4]) == records * 4

    @pytest.mark.parametrize("id", _HOSTILE_IDS.values(), ids=_HOSTILE_IDS.keys())
    async def test_a_bad_id_spoils_only_itself(self, store: Store, id: str) -> None:
        """One request's nonsense does not cost the others, which travel with it, their sessions."""
        record = new_record()
        await store.create(record)

        assert await store.load_many([record.id, id, record.id]) == [record, None, record]

    # hostile text

    @pytest.mark.parametrize("id", _HOSTILE_IDS.values(), ids=_HOSTILE_IDS.keys())
    async def test_any_text_may_be_asked_for(self, store: Store, id: str) -> None:
        """Whatever is asked for as an ID is not there, raises nothing, and meets no other session."""
        record = new_record(user_id="ann")
        await store.create(record)

        assert await store.load(id) is None
        assert await store.update(new_record(id=id), expected=1) is None
        assert await store.touch(id, expires_at=now() + DAY, seen_at=now(), expected=1) is False
        assert await store.delete(id) is False
        assert await store.delete(id, expected=1) is False

        assert await every(store.records()) == [record]

    @pytest.mark.parametrize("keep", _HOSTILE_IDS.values(), ids=_HOSTILE_IDS.keys())
    async def test_any_text_may_be_kept(self, store: Store, keep: str) -> None:
        """To keep a session that is not there keeps none."""
        await store.create(new_record(user_id="ann"))

        assert await store.delete_user("ann", keep=keep) == 1

        assert await every(store.records()) == []

    @pytest.mark.parametrize(("name", "other"), _ALIKE.values(), ids=_ALIKE.keys())
    async def test_users_of_similar_names_are_apart(self, store: Store, name: str, other: str) -> None:
        """A user's sessions are those of exactly that name, whatever characters it has."""
        mine, theirs = new_record(user_id=name), new_record(user_id=other)
        await store.create(mine)
        await store.create(theirs)

        assert await every(store.records(user_id=name)) == [mine]
        assert await every(store.records(user_id=other)) == [theirs]
        assert await store.delete_user(name) == 1
        assert await store.load(mine.id) is None
        assert await store.load(theirs.id) == theirs
        assert await store.create(new_record(user_id=other, seen_at=now() - HOUR)) is True

    # records, and the index of users

    async def test_no_records(self, store: Store) -> None:
        """An empty store lists nothing, for anybody."""
        assert await every(store.records()) == []
        assert await every(store.records(user_id="ann")) == []

    async def test_records_of_all_and_of_one_user(self, store: Store) -> None:
        """A listing has each live record once, a user's listing only theirs."""
        anonymous, ann, bob = new_record(), new_record(user_id="ann"), new_record(user_id="bob")
        for record in (anonymous, ann, bob):
            await store.create(record)

        listed = await every(store.records())

        assert len(listed) == 3
        assert {each.id: each for each in listed} == {each.id: each for each in (anonymous, ann, bob)}
        assert await every(store.records(user_id="ann")) == [ann]
        assert await every(store.records(user_id="nobody")) == []

    @pytest.mark.parametrize("user_id", [None, "ann"])
    async def test_records_of_many(self, store: Store, user_id: str | None) -> None:
        """A listing of several pages has every record once."""
        records = {each.id: each for each in (new_record(user_id="ann") for _ in range(520))}
        for record in records.values():
            await store.create(record)

        listed = await every(store.records(user_id=user_id))

        assert len(listed) == len(records)
        assert {each.id: each for each in listed} == records

    @pytest.mark.parametrize("user_id", [None, "ann"])
    async def test_records_while_others_write(self, store: Store, user_id: str | None) -> None:
        """A record that is live throughout is never missed, and none comes twice, while others come and go."""
        records = [new_record(user_id="ann") for _ in range(520)]
        for record in records:
            await store.create(record)
        gone, listed = set[str](), list[str]()

        async with aclosing(store.records(user_id=user_id)) as listing:
            async for each in listing:
                listed.append(each.id)
                assert len(listed) <= _ENDLESS, "records() does not end"
                if len(listed) % 10 == 0 and records:
                    doomed = records.pop()
                    gone.add(doomed.id)
                    await store.delete(doomed.id)
                    await store.create(new_record(user_id="ann"))
                    await store.update(successor(records[0], version=2), expected=1)

        assert len(listed) == len(set(listed))
        assert {each.id for each in records} <= set(listed)

    async def test_the_index_follows_a_log_in(self, store: Store) -> None:
        """An update that sets the user puts the session among theirs."""
        record = new_record()
        await store.create(record)

        await store.update(successor(record, user_id="ann"), expected=1)

        assert await every(store.records(user_id="ann")) == [successor(record, user_id="ann")]

    async def test_the_index_follows_a_change_of_user(self, store: Store) -> None:
        """An update that changes the user takes the session from the one to the other."""
        record = new_record(user_id="ann")
        await store.create(record)
        changed = successor(record, user_id="bob")

        await store.update(changed, expected=1)

        assert await every(store.records(user_id="ann")) == []
        assert await every(store.records(user_id="bob")) == [changed]
        assert await store.delete_user("ann") == 0
        assert await store.load(record.id) == changed

    async def test_the_index_follows_a_loss_of_user(self, store: Store) -> None:
        """An update that takes the user away takes the session from among theirs."""
        record = new_record(user_id="ann")
        await store.create(record)
        changed = successor(record, user_id=None)

        await store.update(changed, expected=1)

        assert await every(store.records(user_id="ann")) == []
        assert await store.delete_user("ann") == 0
        assert await every(store.records()) == [changed]

    async def test_an_update_that_lost_leaves_the_index(self, store: Store) -> None:
        """A log-in that lost the race is not in anybody's list."""
        record = new_record()
        await store.create(record)
        await store.update(successor(record), expected=1)

        await store.update(successor(record, user_id="ann"), expected=1)

        assert await every(store.records(user_id="ann")) == []

    async def test_a_touched_record_stays_in_the_index(self, store: Store) -> None:
        """Activity does not lose a session from its user's list."""
        record = new_record(user_id="ann", expires_at=now() + MINUTE)
        await store.create(record)

        await store.touch(record.id, expires_at=now() + DAY, seen_at=record.seen_at, expected=1)

        assert [each.id for each in await every(store.records(user_id="ann"))] == [record.id]

    # delete_user, and the revocation mark

    async def test_delete_user_ends_all_of_theirs_and_nobody_elses(self, store: Store) -> None:
        """Every session of the user is gone and counted, others' are there."""
        theirs = [new_record(user_id="ann") for _ in range(3)]
        others = [new_record(user_id="bob"), new_record()]
        for record in theirs + others:
            await store.create(record)

        assert await store.delete_user("ann") == 3

        assert await store.load_many([each.id for each in theirs + others]) == [None, None, None, *others]
        assert await every(store.records(user_id="ann")) == []

    async def test_delete_user_again_ends_none(self, store: Store) -> None:
        """A second revocation finds nothing."""
        await store.create(new_record(user_id="ann"))
        await store.delete_user("ann")

        assert await store.delete_user("ann") == 0

    async def test_delete_user_ends_many(self, store: Store) -> None:
        """More sessions than fit on a page are all ended."""
        for _ in range(520):
            await store.create(new_record(user_id="ann"))

        assert await store.delete_user("ann") == 520
        assert await every(store.records()) == []

    async def test_delete_user_keeps_one(self, store: Store) -> None:
        """To log out everywhere else leaves the session that asked."""
        kept, other = new_record(user_id="ann"), new_record(user_id="ann")
        await store.create(kept)
        await store.create(other)

        assert await store.delete_user("ann", keep=kept.id) == 1

        assert await every(store.records(user_id="ann")) == [kept]

    async def test_keep_does_not_save_another_users_session(self, store: Store) -> None:
        """The session to keep may be anybody's: it changes nothing for it."""
        ann, bob = new_record(user_id="ann"), new_record(user_id="bob")
        await store.create(ann)
        await store.create(bob)

        assert await store.delete_user("ann", keep=bob.id) == 1

        assert await every(store.records()) == [bob]

    async def test_a_create_in_flight_is_refused(self, store: Store) -> None:
        """A log-in that began before its user was revoked leaves nothing."""
        record = new_record(user_id="ann", seen_at=now() - MINUTE)
        await store.delete_user("ann")

        assert await store.create(record) is False

        assert await store.load(record.id) is None
        assert await every(store.records()) == []
        assert await every(store.records(user_id="ann")) == []
        assert await store.delete_user("ann") == 0

    async def test_an_update_in_flight_is_refused(self, store: Store) -> None:
        """A session that is about to become a revoked user's is deleted."""
        record = new_record(seen_at=now() - MINUTE)
        await store.create(record)
        await store.delete_user("ann")

        assert await store.update(successor(record, user_id="ann"), expected=1) is None

        assert await store.load(record.id) is None
        assert await every(store.records()) == []
        assert await every(store.records(user_id="ann")) == []

    async def test_a_refused_update_of_another_version_is_a_lost_race(self, store: Store) -> None:
        """Who lost the race to a stranger's write is told so, and deletes nothing."""
        record = new_record(seen_at=now() - MINUTE)
        await store.create(record)
        await store.update(successor(record), expected=1)
        await store.delete_user("ann")

        assert await store.update(successor(record, user_id="ann"), expected=1) == successor(record)

        assert await store.load(record.id) == successor(record)

    async def test_the_mark_is_of_one_user(self, store: Store) -> None:
        """A revocation of one user refuses no other's log-in, nor a stranger's session."""
        await store.delete_user("ann")

        assert await store.create(new_record(user_id="bob", seen_at=now() - MINUTE)) is True
        assert await store.create(new_record(seen_at=now() - MINUTE)) is True

    async def test_the_kept_session_passes_the_mark(self, store: Store) -> None:
        """The session that a revocation keeps may still be created, or become the user's, however early it began."""
        created, updated = (new_record(user_id=user, seen_at=now() - MINUTE) for user in ("ann", None))
        await store.create(updated)

        await store.delete_user("ann", keep=created.id)
        assert await store.create(created) is True
        await store.delete_user("ann", keep=updated.id)
        bound = successor(updated, user_id="ann")
        assert await store.update(bound, expected=1) == bound

        assert await every(store.records(user_id="ann")) == [bound]

    async def test_only_the_kept_session_passes_the_mark(self, store: Store) -> None:
        """Keeping one session opens no door for another."""
        await store.delete_user("ann", keep=new_id())

        assert await store.create(new_record(user_id="ann", seen_at=now() - MINUTE)) is False

    async def test_a_log_in_after_a_revocation_stands(self, store: Store) -> None:
        """A revoked user can log in again."""
        await store.delete_user("ann")
        created, updated = new_record(user_id="ann", seen_at=now() + MINUTE), new_record()
        await store.create(updated)
        bound = successor(updated, user_id="ann", seen_at=now() + MINUTE)

        assert await store.create(created) is True
        assert await store.update(bound, expected=1) == bound

        assert {each.id for each in await every(store.records(user_id="ann"))} == {created.id, updated.id}

    async def test_a_kept_session_goes_on(self, store: Store) -> None:
        """The mark judges log-ins: a session that is the user's already is updated and touched as ever."""
        record = new_record(user_id="ann", seen_at=now() - MINUTE)
        await store.create(record)
        await store.delete_user("ann", keep=record.id)
        await store.delete_user("bob")

        assert await store.update(successor(record), expected=1) == successor(record)
        assert await store.touch(record.id, expires_at=now() + DAY, seen_at=record.seen_at, expected=2) is True
        assert await store.update(successor(record, version=3), expected=2) is not None

    async def test_a_later_log_in_outlives_the_mark_of_a_kept_session(self, store: Store) -> None:
        """A session of the user that is not the one kept, but came after, is updated as ever."""
        await store.delete_user("ann", keep=new_id())
        record = new_record(user_id="ann", seen_at=now() + MINUTE)
        await store.create(record)
        late = successor(record, seen_at=now() - MINUTE)

        assert await store.update(late, expected=1) == late

    async def test_a_sweep_keeps_the_mark(self, store: Store) -> None:
        """A mark of today outlives a sweep."""
        await store.delete_user("ann")
        await store.sweep(limit=1000)

        assert await store.create(new_record(user_id="ann", seen_at=now() - MINUTE)) is False

    async def test_no_log_in_survives_a_revocation_that_came_after_it_began(self, store: Store) -> None:
        """Log-ins and a revocation at once: whatever their order, none of those log-ins is left."""
        began = now() - MINUTE
        strangers = [new_record(seen_at=began) for _ in range(_RACERS)]
        for record in strangers:
            await store.create(record)

        async def log_in_or_revoke(number: int) -> object:
            if number == _RACERS // 2:
                return await store.delete_user("ann")
            if number % 2:
                return await store.create(new_record(user_id="ann", seen_at=began))
            return await store.update(successor(strangers[number], user_id="ann"), expected=1)

        await together(log_in_or_revoke)

        assert await every(store.records(user_id="ann")) == []

    # delete_all, sweep

    async def test_delete_all_removes_and_counts(self, store: Store) -> None:
        """Nothing is left; the count is of live ones."""
        records = [new_record(user_id="ann" if number % 2 else None) for number in range(250)]
        for record in records:
            await store.create(record)
        await store.create(new_record(expires_at=now() - HOUR))

        assert await store.delete_all() == 250

        assert await every(store.records()) == []
        assert await every(store.records(user_id="ann")) == []
        assert await store.delete_all() == 0
        assert await store.update(successor(records[0]), expected=1) is None

    async def test_a_sweep_removes_no_live_record(self, store: Store) -> None:
        """However often it is swept, a live session stays, and stays in its user's list."""
        live = new_record(user_id="ann", expires_at=now() + MINUTE)
        for record in (live, *(new_record(user_id="ann", expires_at=now() - HOUR) for _ in range(5))):
            await store.create(record)

        for _ in range(10):
            await store.sweep(limit=1)
        await store.sweep(limit=1000)

        assert await every(store.records()) == [live]
        assert await every(store.records(user_id="ann")) == [live]

    async def test_a_sweep_has_a_limit_and_an_end(self, store: Store) -> None:
        """No sweep removes more than its limit, and one that removed fewer was the last."""
        expired = 250
        for number in range(expired):
            await store.create(new_record(expires_at=now() - HOUR - number * MINUTE))

        first = await store.sweep(limit=120)
        swept = first
        while (more := await store.sweep(limit=120)) >= 120:
            swept += more

        assert 0 <= first <= 120
        assert swept + more == (0 if self.expires_by_itself else expired)
        assert await store.sweep(limit=120) == 0

    async def test_a_sweep_respects_a_touch(self, store: Store) -> None:
        """A session is swept by its latest expiry, whatever it had before."""
        record = new_record(expires_at=now() + MINUTE)
        await store.create(record)
        await store.touch(record.id, expires_at=now() + HOUR, seen_at=now(), expected=1)
        shortened = new_record()
        await store.create(shortened)
        await store.update(successor(shortened, expires_at=now() - HOUR), expected=1)

        assert await store.sweep(limit=10) == (0 if self.expires_by_itself else 1)

        assert [each.id for each in await every(store.records())] == [record.id]

    # Optional: a limit of sessions for each user

    async def test_a_limit_ends_the_oldest(self, store: Store) -> None:
        """With "end-oldest" the sessions created first make room."""
        limited, limit = limiting(store), Limit(2, "end-oldest")
        oldest, middle, newest = (
            new_record(user_id="ann", created_at=now() - age) for age in (3 * HOUR, 2 * HOUR, HOUR)
        )
        bystander = new_record(user_id="bob", created_at=now() - DAY)
        for record in (middle, bystander, oldest, newest):
            assert await limited.create(record, limit=limit) is True

        assert await store.load(oldest.id) is None
        assert {each.id for each in await every(store.records(user_id="ann"))} == {middle.id, newest.id}
        assert await store.load(bystander.id) == bystander

    async def test_a_limit_ends_as_many_as_it_must(self, store: Store) -> None:
        """A limit that came later than the sessions is met at the next log-in."""
        limited = limiting(store)
        for _ in range(5):
            await store.create(new_record(user_id="ann"))
        record = new_record(user_id="ann")

        await limited.create(record, limit=Limit(1, "end-oldest"))

        assert await every(store.records(user_id="ann")) == [record]

    async def test_a_limit_refuses(self, store: Store) -> None:
        """With "refuse" nothing is written and nobody's session ends."""
        limited, limit = limiting(store), Limit(1, "refuse")
        record, stranger = new_record(user_id="ann"), new_record()
        await limited.create(record, limit=limit)
        await store.create(stranger)

        with pytest.raises(TooManySessionsError):
            await limited.create(new_record(user_id="ann"), limit=limit)
        with pytest.raises(TooManySessionsError):
            await limited.update(successor(stranger, user_id="ann"), expected=1, limit=limit)

        assert await every(store.records(user_id="ann")) == [record]
        assert await store.load(stranger.id) == stranger

    async def test_a_limit_holds_for_a_log_in_by_update(self, store: Store) -> None:
        """A stranger's session that becomes the user's counts like a new one."""
        limited = limiting(store)
        record, stranger = new_record(user_id="ann"), new_record()
        await store.create(record)
        await store.create(stranger)
        bound = successor(stranger, user_id="ann")

        assert await limited.update(bound, expected=1, limit=Limit(1, "end-oldest")) == bound

        assert await every(store.records(user_id="ann")) == [bound]

    @pytest.mark.parametrize("when_full", ["end-oldest", "refuse"])
    async def test_a_limit_counts_neither_the_expired_nor_others(self, store: Store, when_full: Any) -> None:
        """Only the user's own live sessions take room."""
        limited = limiting(store)
        others = [new_record(user_id="bob"), new_record()]
        for record in (new_record(user_id="ann", expires_at=now() - HOUR), *others):
            await store.create(record)
        record = new_record(user_id="ann")

        assert await limited.create(record, limit=Limit(1, when_full)) is True
        assert await limited.create(new_record(), limit=Limit(1, when_full)) is True

        assert await every(store.records(user_id="ann")) == [record]
        assert await store.load_many([each.id for each in others]) == others

    async def test_a_limit_lets_sessions_that_are_there_go_on(self, store: Store) -> None:
        """An update of a session that is the user's already is not a session more."""
        limited = limiting(store)
        one, other = new_record(user_id="ann"), new_record(user_id="ann")
        await store.create(one)
        await store.create(other)

        updated = await limited.update(successor(one), expected=1, limit=Limit(1, "refuse"))

        assert updated == successor(one)
        assert await store.load(other.id) == other

    async def test_a_limit_ends_nobody_for_a_write_that_fails(self, store: Store) -> None:
        """A log-in that is gone, lost the race or was revoked costs the user no other session."""
        limited, limit = limiting(store), Limit(1, "end-oldest")
        kept, moved = new_record(user_id="ann"), new_record()
        await store.create(kept)
        await store.create(moved)
        await store.update(successor(moved), expected=1)
        await store.delete_user("ann", keep=kept.id)

        assert await limited.update(successor(new_record(), user_id="ann"), expected=1, limit=limit) is None
        lost = await limited.update(successor(moved, user_id="ann"), expected=1, limit=limit)
        assert lost == successor(moved)
        assert await limited.create(new_record(user_id="ann", seen_at=now() - MINUTE), limit=limit) is False
        early = successor(moved, user_id="ann", version=3, seen_at=now() - MINUTE)
        assert await limited.update(early, expected=2, limit=limit) is None

        assert await every(store.records()) == [kept]

    @pytest.mark.parametrize("when_full", ["end-oldest", "refuse"])
    async def test_concurrent_log_ins_stay_within_the_limit(self, store: Store, when_full: Any) -> None:
        """Twenty log-ins at once leave as many sessions as are allowed."""
        limited, limit = limiting(store), Limit(3, when_full)

        given = await together(lambda _: limited.create(new_record(user_id="ann"), limit=limit))

        assert given.count(True) == (3 if when_full == "refuse" else _RACERS)
        assert given.count(TooManySessionsError) == _RACERS - given.count(True)
        assert len(await every(store.records(user_id="ann"))) == 3

    # Optional: news of sessions that end

    async def test_a_watcher_hears_of_ended_sessions(self, store: Store) -> None:
        """Each way to end a session is news, by its ID, and what merely changed is not."""
        watched = watching(store)
        heard, changed = set[str](), new_record()

        async def listen() -> None:
            async for id in watched.watch():
                heard.add(id)

        async def end_until_heard(end: Callable[[Record], Awaitable[object]]) -> None:
            # A watcher may take a moment to begin, so that the first news may be missed.
            ended = set[str]()
            while not ended & heard:
                record = new_record(user_id="ann", seen_at=now() + MINUTE)
                await store.create(record)
                await end(record)
                ended.add(record.id)
                await checkpoint()

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(listen)
                await store.create(changed)
                await store.update(successor(changed), expected=1)
                await end_until_heard(lambda record: store.delete(record.id))
                await end_until_heard(lambda record: store.delete(record.id, expected=1))
                await end_until_heard(lambda _: store.delete_user("ann", keep=new_id()))
                assert changed.id not in heard
                await end_until_heard(lambda _: store.delete_all())
                tasks.cancel_scope.cancel()

    async def test_a_watcher_that_does_not_listen_holds_nobody_up(self, store: Store) -> None:
        """Sessions end though a watcher is far behind."""
        heard = list[str]()
        async with aclosing(cast("Any", watching(store).watch())) as news, anyio.create_task_group() as tasks:

            async def listen_once() -> None:
                heard.append(await anext(news))

            tasks.start_soon(listen_once)
            with anyio.fail_after(10):
                while not heard:
                    record = new_record()
                    await store.create(record)
                    await store.delete(record.id)
                    await checkpoint()

            for _ in range(1500):
                record = new_record()
                await store.create(record)
                assert await store.delete(record.id) is True
