"""The memory store: every promise of a store, and its own."""

import sys
import warnings
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from asgi_sessions.errors import ConfigError, SessionWarning, StoreUnavailableError
from asgi_sessions.stores import Limit, LimitsUsers, MemoryStore, NeverWaits, Watches
from asgi_sessions.testing import StoreConformance, every, new_record, successor
from asgi_sessions.testing._conformance import DAY, HOUR, MINUTE

T0 = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


class Time:
    """A clock that stands where it is put."""

    def __init__(self) -> None:
        self.now = T0

    def __call__(self) -> datetime:
        """Return the instant."""
        return self.now


@pytest.fixture
def time() -> Time:
    """Return a clock to move."""
    return Time()


class TestMemoryStore(StoreConformance):
    """The memory store keeps every promise of a store."""

    @pytest.fixture(scope="module", params=["asyncio", "trio"])
    @classmethod
    def anyio_backend(cls, request: pytest.FixtureRequest) -> Any:
        """Run each test on both."""
        return request.param

    @pytest.fixture
    async def store(self) -> AsyncIterator[MemoryStore]:
        """Yield a store."""
        store = MemoryStore()
        await store.open()
        yield store
        await store.close()


def test_it_says_what_it_can_do() -> None:
    """The manager finds each capability by its protocol."""
    store = MemoryStore()

    assert isinstance(store, LimitsUsers)
    assert isinstance(store, NeverWaits)
    assert isinstance(store, Watches)


@pytest.mark.anyio
async def test_records_outlive_a_close() -> None:
    """A store that is closed and opened again, as by two lifespans in one process, has lost nothing."""
    store, record = MemoryStore(), new_record()
    await store.open()
    await store.create(record)

    await store.close()
    await store.open()

    assert await store.load(record.id) == record


@pytest.mark.anyio
async def test_a_record_expires_at_its_instant(time: Time) -> None:
    """It is live until the microsecond before, and gone from the instant itself on."""
    store, record = MemoryStore(clock=time), new_record(expires_at=T0 + HOUR)
    await store.create(record)

    time.now = T0 + HOUR - timedelta(microseconds=1)
    before = await store.load(record.id)
    time.now = T0 + HOUR

    assert before == record
    assert await store.load(record.id) is None


@pytest.mark.anyio
async def test_a_sweep_leaves_nothing_behind(time: Time) -> None:
    """When all have expired and are swept, no trace of any is left, though each has moved many times."""
    store = MemoryStore(clock=time)
    records = [new_record(expires_at=T0 + MINUTE, user_id=f"user {number % 7}") for number in range(100)]
    for record in records:
        await store.create(record)
        for minutes in range(5):
            await store.touch(record.id, expires_at=T0 + minutes * MINUTE, seen_at=T0, expected=1)

    time.now = T0 + DAY
    swept = await store.sweep(limit=1000)

    assert swept == 100
    assert not store._records
    assert not store._users
    assert not store._expiries._buckets
    assert not store._expiries._heap


@pytest.mark.anyio
async def test_a_sweep_takes_no_live_record_of_the_current_second(time: Time) -> None:
    """Those that expire within the second a sweep runs in are left to the next."""
    store = MemoryStore(clock=time)
    past, live = (new_record(expires_at=T0 + SECOND / 2), new_record(expires_at=T0 + 0.9 * SECOND))
    await store.create(past)
    await store.create(live)
    time.now = T0 + 0.7 * SECOND

    assert await store.sweep(limit=10) == 0
    assert await store.load(live.id) == live
    time.now = T0 + SECOND
    assert await store.sweep(limit=10) == 2


@pytest.mark.anyio
async def test_coming_and_going_sessions_leave_the_index_of_expiries_small(time: Time) -> None:
    """Sessions that are created and deleted all day, each with its own expiry, leave no trail behind."""
    store = MemoryStore(clock=time)

    for seconds in range(5000):
        record = new_record(expires_at=T0 + DAY + seconds * SECOND)
        await store.create(record)
        await store.delete(record.id)

    assert len(store._expiries._heap) < 200


@pytest.mark.anyio
async def test_a_full_store_refuses_and_ends_nobody() -> None:
    """A stranger who creates sessions without end costs nobody theirs."""
    store = MemoryStore(max_sessions=2)
    records = [new_record(), new_record()]
    for record in records:
        await store.create(record)

    with pytest.raises(StoreUnavailableError, match="max_sessions=2"):
        await store.create(new_record())

    assert await every(store.records()) == records
    assert await store.update(successor(records[0]), expected=1) is not None


@pytest.mark.anyio
async def test_a_full_store_makes_room_of_what_has_expired(time: Time) -> None:
    """Expired records take no room, swept or not."""
    store = MemoryStore(max_sessions=2, clock=time)
    await store.create(new_record(expires_at=T0 + SECOND))
    await store.create(new_record(expires_at=T0 + HOUR))
    time.now = T0 + MINUTE

    assert await store.create(new_record(expires_at=T0 + HOUR)) is True


@pytest.mark.anyio
async def test_a_full_store_takes_a_log_in_that_ends_another() -> None:
    """Where a user's limit ends a session, the new one has its place."""
    store = MemoryStore(max_sessions=1)
    await store.create(new_record(user_id="ann"))
    record = new_record(user_id="ann")

    assert await store.create(record, limit=Limit(1, "end-oldest")) is True

    assert await every(store.records()) == [record]


@pytest.mark.anyio
async def test_a_mark_is_dropped_after_a_day(time: Time) -> None:
    """Marks do not pile up: a sweep drops those older than a day, and keeps those that were renewed."""
    store = MemoryStore(clock=time)
    await store.delete_user("ann")
    await store.delete_user("bob")
    time.now = T0 + HOUR
    await store.delete_user("ann")

    time.now = T0 + DAY + SECOND
    await store.sweep(limit=10)

    assert list(store._marks) == ["ann"]
    time.now = T0 + 2 * DAY
    await store.sweep(limit=1)
    assert not store._marks


@pytest.mark.anyio
async def test_a_watcher_ends_with_the_store() -> None:
    """A worker that listens for ended sessions is not left hanging when the store is closed."""
    store, heard = MemoryStore(), list[str]()

    async def listen() -> None:
        heard.extend([id async for id in store.watch()])

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            while not store._watchers:
                await checkpoint()
            record = new_record()
            await store.create(record)
            await store.delete(record.id)
            await store.close()
            await store.create(record)
            await store.delete(record.id)

    assert heard == [record.id]
    assert not store._watchers


@pytest.mark.anyio
async def test_expiry_is_no_news() -> None:
    """A session that merely expired was not ended by anybody: a sweep tells no watcher."""
    store, heard = MemoryStore(), list[str]()

    async def listen() -> None:
        heard.extend([id async for id in store.watch()])

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            while not store._watchers:
                await checkpoint()
            await store.create(new_record(expires_at=T0))
            swept = await store.sweep(limit=10)
            await store.close()

    assert swept == 1
    assert heard == []


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("arguments", "concurrency", "workers"),
    [
        (["uvicorn", "app:app", "--workers", "4"], None, 4),
        (["uvicorn", "app:app", "--workers=3"], None, 3),
        (["gunicorn", "-w", "2", "app:app"], None, 2),
        (["gunicorn", "-w8", "app:app"], None, 8),
        (["uvicorn", "app:app"], "5", 5),
        (["uvicorn", "app:app", "--workers", "2"], "6", 6),
    ],
)
async def test_several_workers_are_warned_of_once(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], concurrency: str | None, workers: int
) -> None:
    """Each worker would have its own sessions: the warning says so, and what to use instead."""
    monkeypatch.setattr(sys, "argv", arguments)
    if concurrency:
        monkeypatch.setenv("WEB_CONCURRENCY", concurrency)
    store = MemoryStore()

    with pytest.warns(SessionWarning, match=f"^{workers} workers .*sqlite:///"):
        await store.open()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        await store.open()


@pytest.mark.anyio
@pytest.mark.parametrize(
    "arguments",
    [
        ["uvicorn", "app:app"],
        ["uvicorn", "app:app", "--workers", "1"],
        ["uvicorn", "app:app", "--workers"],
        ["gunicorn", "-w", "many"],
        ["gunicorn", "--worker-class", "4", "-wait"],
    ],
)
async def test_one_worker_is_fine(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    """One worker, or words that only look like a number of workers, are nothing to warn of."""
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setenv("WEB_CONCURRENCY", "auto")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        await MemoryStore().open()


def test_max_sessions_has_a_floor() -> None:
    """A store without room for a single session is a mistake, told at construction."""
    with pytest.raises(ConfigError, match="max_sessions=0"):
        MemoryStore(max_sessions=0)
