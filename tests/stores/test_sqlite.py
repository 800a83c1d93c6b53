"""The SQLite store: every promise of a store, and its own."""

import asyncio
import gc
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from asgi_sessions._clock import now
from asgi_sessions.errors import ConfigError, RecordExistsError, StoreUnavailableError
from asgi_sessions.stores import Limit, LimitsUsers, NeverWaits, Record, SQLiteStore, Watches
from asgi_sessions.testing import StoreConformance, every, new_record, successor, together
from asgi_sessions.testing._conformance import DAY, HOUR, MINUTE

T0 = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """SQLite's threads answer to asyncio."""
    return "asyncio"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a store's file is to be."""
    return tmp_path / "sessions.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SQLiteStore]:
    """Yield a store that gives up soon on a locked file."""
    store = SQLiteStore(path, busy_timeout=timedelta(milliseconds=50))
    await store.open()
    yield store
    await store.close()


class TestSQLiteStore(StoreConformance):
    """The SQLite store keeps every promise of a store."""

    @pytest.fixture
    async def store(self, path: Path) -> AsyncIterator[SQLiteStore]:
        """Yield a store on a new file."""
        store = SQLiteStore(path)
        await store.open()
        yield store
        await store.close()


def execute(path: Path, *statements: str) -> list[tuple[Any, ...]]:
    """Execute statements as another program would; return the rows of the last."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        rows: list[tuple[Any, ...]] = []
        for statement in statements:
            rows = connection.execute(statement).fetchall()
        return rows


async def on_writer(store: SQLiteStore, *statements: str) -> None:
    """Execute statements on the connection that the store writes with."""
    for statement in statements:
        await store._here().writes.run(lambda connection, text=statement: connection.execute(text).fetchall())  # type: ignore[misc]


def run_python(source: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, with warnings as errors."""
    command = [sys.executable, "-W", "error", "-c", source, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


# What it is


def test_it_says_what_it_can_do(path: Path) -> None:
    """It holds users to a limit; it has to be waited for, and has no news."""
    store = SQLiteStore(path)

    assert isinstance(store, LimitsUsers)
    assert not isinstance(store, NeverWaits)
    assert not isinstance(store, Watches)


@pytest.mark.parametrize("place", ["", ":memory:"])
def test_a_store_in_memory_is_the_memory_store(place: str) -> None:
    """Connections in memory would each have tables of their own: the error names the store that fits."""
    with pytest.raises(ConfigError, match='store="memory:"'):
        SQLiteStore(place)


@pytest.mark.parametrize("table", ["", "a b", 'a"b', "a;b", "1a", "a-b", "sqlite_master", "SQLite_x", "t\xe9", "a\n"])
def test_a_table_has_a_plain_name(path: Path, table: str) -> None:
    """A name that would need quoting is refused, with an example."""
    with pytest.raises(ConfigError, match="app_sessions"):
        SQLiteStore(path, table=table)


@pytest.mark.anyio
async def test_a_table_may_have_a_name_of_sql(path: Path) -> None:
    """A word that SQL uses itself is a name like any."""
    store, record = SQLiteStore(path, table="order"), new_record(user_id="ann")
    await store.open()

    await store.create(record)

    assert await every(store.records()) == [record]
    await store.close()


def test_trio_is_told_of_the_memory_store(path: Path) -> None:
    """On trio the store cannot work, and says what can."""
    with pytest.raises(ConfigError, match='store="memory:"'):
        anyio.run(SQLiteStore(path).open, backend="trio")


@pytest.mark.anyio
async def test_an_old_sqlite_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python that was built with an old SQLite is told which version it has and which is needed."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 36, 0))
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.36.0")

    with pytest.raises(ConfigError, match=r"3\.36\.0.* 3\.37 or later"):
        await SQLiteStore(path).open()


@pytest.mark.anyio
async def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    """SQLite itself says only that it cannot open a file."""
    store = SQLiteStore(tmp_path / "missing" / "sessions.db")

    with pytest.raises(ConfigError, match="missing, which is not a directory"):
        await store.open()

    (tmp_path / "missing").mkdir()
    await store.open()
    await store.ping()
    await store.close()


@pytest.mark.anyio
async def test_a_file_that_is_no_database_is_an_error(path: Path) -> None:
    """A file of something else is not touched."""
    path.write_bytes(b"something else" * 1000)
    store = SQLiteStore(path)

    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        await store.open()

    await store.close()
    assert path.read_bytes() == b"something else" * 1000


@pytest.mark.anyio
async def test_a_relative_path_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of directory between making and opening a store does not move its file."""
    monkeypatch.chdir(tmp_path)
    store = SQLiteStore("sessions.db")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    await store.open()
    await store.close()

    assert (tmp_path / "sessions.db").exists()


# Tables


@pytest.mark.anyio
async def test_the_ddl_is_what_open_makes(path: Path, tmp_path: Path) -> None:
    """A migration tool can make the tables; they are those that `open` would have made, and are used as they are."""
    migrated = tmp_path / "migrated.db"
    with closing(sqlite3.connect(migrated)) as connection:
        connection.executescript(SQLiteStore.ddl())
        connection.executescript(SQLiteStore.ddl("other"))
    schema = "SELECT sql FROM sqlite_schema WHERE tbl_name LIKE 'sessions%' ORDER BY sql"
    before = execute(migrated, schema)

    for file in (path, migrated):
        store = SQLiteStore(file)
        await store.open()
        await store.create(new_record())
        await store.close()

    assert execute(path, schema) == execute(migrated, schema) == before
    assert len(before) == 6  # two tables, two indices, and the two that their keys bring


@pytest.mark.anyio
@pytest.mark.parametrize("table", ["sessions", "sessions_revoked"])
async def test_a_table_that_does_not_fit_is_named(path: Path, table: str) -> None:
    """A table of somebody else's is left alone: the error says what it lacks and what to run."""
    execute(path, f"CREATE TABLE {table} (id TEXT, data BLOB, user_id TEXT)")
    store = SQLiteStore(path)

    with pytest.raises(ConfigError, match=rf"'{table}' lacks the columns .*SQLiteStore.ddl\('sessions'\)"):
        await store.open()

    await store.close()
    assert len(execute(path, "SELECT name FROM sqlite_schema")) == 1


@pytest.mark.anyio
async def test_a_users_own_column_survives_every_write(store: SQLiteStore, path: Path) -> None:
    """A column that somebody added keeps its value through update, touch and log-in."""
    record = new_record()
    await store.create(record)
    execute(path, "ALTER TABLE sessions ADD COLUMN note TEXT DEFAULT 'new'", "UPDATE sessions SET note = 'mine'")

    await store.update(successor(record), expected=1)
    await store.touch(record.id, expires_at=now() + DAY, seen_at=now(), expected=2)
    await store.update(successor(record, version=3, user_id="ann"), expected=2)
    await store.create(new_record())

    assert execute(path, "SELECT note FROM sessions ORDER BY note") == [("mine",), ("new",)]


@pytest.mark.anyio
async def test_a_users_own_column_does_not_pass_to_another_session(store: SQLiteStore, path: Path) -> None:
    """What was noted of an expired session is not there for a later one of its ID."""
    record = new_record(expires_at=T0)
    await store.create(record)
    execute(path, "ALTER TABLE sessions ADD COLUMN note TEXT", "UPDATE sessions SET note = 'secret'")

    await store.create(new_record(id=record.id))

    assert execute(path, "SELECT note FROM sessions") == [(None,)]


@pytest.mark.anyio
async def test_a_users_own_constraint_is_not_a_taken_id(store: SQLiteStore, path: Path) -> None:
    """A trigger or a constraint that somebody added fails as itself."""
    execute(
        path,
        "CREATE TRIGGER closed BEFORE INSERT ON sessions BEGIN SELECT RAISE(ABORT, 'closed for the night'); END",
    )

    with pytest.raises(sqlite3.IntegrityError, match="closed for the night"):
        await store.create(new_record())


@pytest.mark.anyio
async def test_tables_of_one_file_are_apart(path: Path) -> None:
    """Two applications share a file, each with its table, its users and its marks."""
    one, other = SQLiteStore(path, table="one"), SQLiteStore(path, table="other")
    await one.open()
    await other.open()
    record = new_record(user_id="ann")
    await one.create(record)
    await other.create(record)

    assert await one.delete_user("ann") == 1

    assert await every(other.records()) == [record]
    assert await other.create(new_record(user_id="ann", seen_at=now() - HOUR)) is True
    await one.close()
    await other.close()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("load", r"sqlite_autoindex_sessions_1 \(id=\?\)"),
        ("update", r"sqlite_autoindex_sessions_1 \(id=\?\)"),
        ("first_page", r"sqlite_autoindex_sessions_1 \(id>\?\)"),
        ("next_page", r"sqlite_autoindex_sessions_1 \(id>\?\)"),
        ("first_page_of_user", r"sessions_user_id \(user_id=\?\)"),
        ("next_page_of_user", r"sessions_user_id \(user_id=\? AND id>\?\)"),
        ("delete_user", r"sessions_user_id \(user_id=\?\)"),
        ("sweep", r"sessions_expires_at \(expires_at<\?\)"),
    ],
)
async def test_no_statement_reads_the_whole_table(store: SQLiteStore, name: str, index: str) -> None:
    """Each statement goes through the index that fits, so that a million sessions cost no more than ten."""
    statement = "EXPLAIN QUERY PLAN " + getattr(store._sql, name)
    given = dict.fromkeys((*new_record().__slots__, "now", "expected", "room", "limit", "after", "keep"), 1)

    plan = await store._here().reads.run(lambda connection: connection.execute(statement, given).fetchall())

    steps = [row[3] for row in plan]
    assert [step for step in steps if re.fullmatch(rf"SEARCH sessions USING (COVERING )?INDEX {index}", step)]
    assert not [step for step in steps if step.startswith("SCAN sessions")]


# Sharing


@pytest.mark.anyio
async def test_two_stores_on_one_file_race_fairly(path: Path) -> None:
    """Two processes' stores on one file: of all updates of a version one wins, and every increment counts."""
    stores = [SQLiteStore(path), SQLiteStore(path)]
    await together(lambda number: stores[number].open(), 2)
    record = new_record(data=b"0")
    created = await together(lambda number: stores[number % 2].create(record))

    async def increment(number: int) -> None:
        held: Record | None = record
        while held is not None:
            mine = successor(held, data=b"%d" % (int(held.data) + 1), seen_at=T0 + number * MINUTE)
            held = await stores[number % 2].update(mine, expected=held.version)
            if held == mine:
                return

    await together(increment, 50)

    assert created.count(True) == 1
    assert created.count(RecordExistsError) == 19
    held = await stores[0].load(record.id)
    assert held is not None
    assert held.data == b"50"
    for store in stores:
        await store.close()


_OPENER = """
import asyncio, sys
from asgi_sessions.stores import SQLiteStore
from asgi_sessions.testing import new_record

async def main():
    print("ready", flush=True)
    sys.stdin.readline()
    store = SQLiteStore(sys.argv[1])
    await store.open()
    for _ in range(20):
        await store.create(new_record())
    await store.close()

asyncio.run(main())
"""


def test_processes_that_start_together_all_open_a_new_file(path: Path) -> None:
    """The workers of a first deployment make the file at the same moment, and all succeed."""
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", _OPENER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(4)
    ]
    for worker in workers:
        assert worker.stdout is not None
        worker.stdout.readline()

    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write(b"\n")
        worker.stdin.flush()
    ended = [(worker.communicate(timeout=30)[1], worker.returncode) for worker in workers]

    assert ended == [(b"", 0)] * 4
    assert execute(path, "SELECT count(*) FROM sessions") == [(80,)]


@pytest.mark.anyio
async def test_a_new_file_that_is_locked_is_waited_for(path: Path) -> None:
    """While another program holds the new file, opening waits for the busy timeout, then fails; later it works."""
    store = SQLiteStore(path, busy_timeout=timedelta(milliseconds=30))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("CREATE TABLE other (id)")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            await store.open()

    await store.open()
    await store.ping()
    await store.close()


def test_opening_tries_again_when_it_is_turned_away(path: Path) -> None:
    """A file that is released within the busy timeout is opened, though SQLite itself did not wait for it."""
    store = SQLiteStore(path, busy_timeout=timedelta(seconds=10))
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE other (id)")
    other.execute("BEGIN EXCLUSIVE")
    refused = threading.Event()

    class Impatient(sqlite3.Connection):
        """Does not wait for locks, and says when it met one."""

        def execute(self, *arguments: Any) -> sqlite3.Cursor:
            """Execute."""
            try:
                return super().execute(*arguments)
            except sqlite3.OperationalError:
                refused.set()
                raise

    def release() -> None:
        refused.wait(10)
        other.close()

    releaser = threading.Thread(target=release)
    releaser.start()
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None, factory=Impatient)) as connection:
        store._prepare(connection)
    releaser.join()

    assert execute(path, "PRAGMA journal_mode") == [("wal",)]


def test_opening_gives_up_after_the_busy_timeout(path: Path) -> None:
    """A file that is not released is an error, however often it is tried."""
    store = SQLiteStore(path, busy_timeout=timedelta(milliseconds=20))
    execute(path, "CREATE TABLE other (id)")

    with (
        closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection,
        closing(sqlite3.connect(path, isolation_level=None)) as other,
    ):
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            store._prepare(connection)


# Limits


@pytest.mark.anyio
@pytest.mark.parametrize("verb", ["create", "update"])
async def test_room_that_others_keep_taking_is_given_up(store: SQLiteStore, path: Path, verb: str) -> None:
    """Where each session that ends is replaced at once by another, a log-in gives up instead of spinning."""
    stranger = new_record()
    await store.create(stranger)
    await store.create(new_record(user_id="ann"))
    execute(
        path,
        """
        CREATE TRIGGER crowd AFTER DELETE ON sessions BEGIN
            INSERT INTO sessions
            SELECT hex(randomblob(9)), old.data, 1, old.created_at, old.seen_at, old.expires_at, 'ann';
        END
        """,
    )
    writes: dict[str, Callable[[], Any]] = {
        "create": partial(store.create, new_record(user_id="ann"), limit=Limit(1, "end-oldest")),
        "update": partial(store.update, successor(stranger, user_id="ann"), expected=1, limit=Limit(1, "end-oldest")),
    }

    with pytest.raises(StoreUnavailableError, match="took the room"):
        await writes[verb]()

    assert len(await every(store.records(user_id="ann"))) == 1


# Sweeps


@pytest.mark.anyio
async def test_a_sweep_drops_marks_after_a_day(path: Path) -> None:
    """Marks do not pile up, and are there as long as they may be needed."""
    time = T0
    store = SQLiteStore(path, clock=lambda: time)
    await store.open()
    await store.delete_user("ann")

    time = T0 + DAY
    await store.sweep(limit=10)
    kept = execute(path, "SELECT user_id FROM sessions_revoked")
    time = T0 + DAY + MINUTE
    await store.sweep(limit=10)

    assert kept == [("ann",)]
    assert execute(path, "SELECT user_id FROM sessions_revoked") == []
    await store.close()


@pytest.mark.anyio
async def test_a_mark_never_moves_earlier(path: Path) -> None:
    """A clock that was set back does not reopen the door to what an earlier revocation ended."""
    time = T0
    store = SQLiteStore(path, clock=lambda: time)
    await store.open()
    await store.delete_user("ann")

    time = T0 - HOUR
    await store.delete_user("ann")

    assert await store.create(new_record(user_id="ann", seen_at=T0 - MINUTE, expires_at=T0 + HOUR)) is False
    await store.close()


@pytest.mark.anyio
async def test_a_record_expires_at_its_instant(path: Path) -> None:
    """It is live until the microsecond before, and gone from the instant itself on."""
    time = T0
    store, record = SQLiteStore(path, clock=lambda: time), new_record(expires_at=T0 + HOUR)
    await store.open()
    await store.create(record)

    time = T0 + HOUR - timedelta(microseconds=1)
    before = await store.load(record.id)
    time = T0 + HOUR

    assert before == record
    assert await store.load(record.id) is None
    await store.close()


# Event loops, threads, processes


@pytest.mark.anyio
@pytest.mark.parametrize("verb", ["load", "create", "ping", "sweep"])
async def test_a_store_that_is_not_open_says_so(path: Path, verb: str) -> None:
    """Before `open` and after `close` each call is an error that names the remedy."""
    store = SQLiteStore(path)
    calls: dict[str, Callable[[], Any]] = {
        "load": partial(store.load, "id"),
        "create": partial(store.create, new_record()),
        "ping": store.ping,
        "sweep": partial(store.sweep, limit=1),
    }

    with pytest.raises(StoreUnavailableError, match=r"await store\.open\(\)"):
        await calls[verb]()
    await store.open()
    await calls[verb]()
    await store.close()
    await store.close()
    with pytest.raises(StoreUnavailableError, match=r"await store\.open\(\)"):
        await calls[verb]()


@pytest.mark.anyio
async def test_concurrent_opens_connect_once(path: Path) -> None:
    """Ten first requests at once: one connection for reads, one for writes."""
    store, before = SQLiteStore(path), threading.active_count()

    await together(lambda _: store.open(), 10)

    assert threading.active_count() == before + 2
    await store.close()


@pytest.mark.anyio
async def test_records_survive_close_and_open(path: Path) -> None:
    """What was written is there for the next process."""
    store, record = SQLiteStore(path), new_record(user_id="ann", data=bytes(range(256)))
    await store.open()
    await store.create(record)

    await store.close()
    await store.open()

    assert await every(store.records(user_id="ann")) == [record]
    await store.close()


def test_one_store_serves_several_event_loops(path: Path) -> None:
    """Three loops after each other, none of which closed the store: each opens it anew, and finds the records."""
    store, records = SQLiteStore(path), [new_record() for _ in range(3)]

    async def use(record: Record) -> list[Record]:
        await store.open()
        await store.create(record)
        await store.sweep(limit=1)
        return await every(store.records())

    found = [asyncio.run(use(record)) for record in records]

    assert [len(each) for each in found] == [1, 2, 3]
    assert len(store._loops) == 1
    asyncio.run(store.close())


def test_a_dropped_store_ends_its_threads(path: Path) -> None:
    """A store that was left open when its loop closed, and is collected, leaves neither a thread nor a warning."""
    store, before = SQLiteStore(path), set(threading.enumerate())
    asyncio.run(store.open())
    threads = set(threading.enumerate()) - before

    del store
    gc.collect()
    for thread in threads:
        thread.join(5)

    assert len(threads) == 2
    assert not any(thread.is_alive() for thread in threads)


class Held:
    """A job that stands still in the middle, on the connection that a store writes with."""

    def __init__(self) -> None:
        self.begun, self.go_on, self.ended = threading.Event(), threading.Event(), threading.Event()

    def __call__(self, connection: sqlite3.Connection) -> None:
        """Stand still, then write."""
        self.begun.set()
        self.go_on.wait(10)
        connection.execute("UPDATE sessions SET data = x'01'")
        self.ended.set()

    async def begin(self, store: SQLiteStore) -> asyncio.Task[None]:
        """Return the task of a caller whose job has begun."""
        task = asyncio.create_task(store._here().writes.run(self))
        await asyncio.to_thread(self.begun.wait, 10)
        return task


def test_a_loop_that_closes_during_a_write_makes_no_noise(path: Path) -> None:
    """A statement that ends after its event loop did is a write like any: nothing is printed, its thread goes on."""
    store, record, held = SQLiteStore(path), new_record(), Held()

    async def leave() -> None:
        await store.open()
        await store.create(record)
        await held.begin(store)  # cancelled when the loop ends

    async def load() -> Record | None:
        await store.open()
        loaded = await store.load(record.id)
        await store.close()
        return loaded

    before = set(threading.enumerate())
    asyncio.run(leave())
    held.go_on.set()
    held.ended.wait(10)
    loaded = asyncio.run(load())  # drops what belonged to the first loop
    for thread in set(threading.enumerate()) - before:
        thread.join(10)

    assert loaded == replace(record, data=b"\x01")
    assert not set(threading.enumerate()) - before


_UNCLOSED = """
import asyncio, sys
from asgi_sessions.stores import SQLiteStore
from asgi_sessions.testing import new_record

store = SQLiteStore(sys.argv[1])

async def main():
    await store.open()
    await store.create(new_record())
    await store.sweep(limit=1)

asyncio.run(main())
print("end")
"""


def test_an_unclosed_store_lets_the_interpreter_exit(path: Path) -> None:
    """A script that forgets to close its store ends all the same, and quietly."""
    ended = run_python(_UNCLOSED, path)

    assert (ended.stdout, ended.stderr, ended.returncode) == ("end\n", "", 0)
    assert execute(path, "SELECT count(*) FROM sessions") == [(1,)]


# Faults


@pytest.mark.anyio
async def test_a_full_disk_leaves_the_old_record(store: SQLiteStore, path: Path) -> None:
    """A write that finds no room raises; the record is what it was; with room again it goes on."""
    record = new_record(data=b"old")
    await store.create(record)
    [(pages,)] = execute(path, "PRAGMA page_count")
    await on_writer(store, f"PRAGMA max_page_count = {pages}")

    with pytest.raises(sqlite3.OperationalError, match="full"):
        await store.update(successor(record, data=bytes(1_000_000)), expected=1)
    with pytest.raises(sqlite3.OperationalError, match="full"):
        await store.create(new_record(data=bytes(1_000_000)))

    assert await every(store.records()) == [record]
    await on_writer(store, "PRAGMA max_page_count = 1000000")
    changed = successor(record, data=bytes(1_000_000))
    assert await store.update(changed, expected=1) == changed


@pytest.mark.anyio
async def test_a_read_only_file_refuses_writes_and_serves_reads(store: SQLiteStore) -> None:
    """Every write raises, every read answers."""
    record = new_record()
    await store.create(record)
    await on_writer(store, "PRAGMA query_only = on")

    for write in (
        store.create(new_record()),
        store.update(successor(record), expected=1),
        store.touch(record.id, expires_at=now() + DAY, seen_at=now(), expected=1),
        store.delete(record.id),
        store.delete_user("ann"),
        store.delete_all(),
    ):
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await write

    assert await store.load(record.id) == record
    await on_writer(store, "PRAGMA query_only = off")
    assert await store.delete(record.id) is True


@pytest.mark.anyio
async def test_a_locked_file_is_waited_for_and_given_up(store: SQLiteStore, path: Path) -> None:
    """While another program holds the file reads answer, writes fail after the busy timeout; then all is well."""
    record = new_record()
    await store.create(record)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("DELETE FROM sessions")
        began = time.monotonic()

        with pytest.raises(sqlite3.OperationalError, match="locked"):
            await store.update(successor(record), expected=1)

        waited = time.monotonic() - began
        assert await store.load(record.id) == record
        other.execute("ROLLBACK")

    assert waited > 0.04
    assert await store.update(successor(record), expected=1) == successor(record)


@pytest.mark.anyio
async def test_a_cancelled_write_is_whole_or_not_begun(store: SQLiteStore) -> None:
    """The write that a cancelled request had under way happens whole; one that waited behind it does not happen."""
    record, waiting, after, held = new_record(), new_record(), new_record(), Held()
    await store.create(record)
    under_way = await held.begin(store)
    behind = asyncio.create_task(store.create(waiting))
    await asyncio.sleep(0)

    under_way.cancel()
    behind.cancel()
    given = await asyncio.gather(under_way, behind, return_exceptions=True)
    held.go_on.set()

    assert await store.create(after) is True
    assert [type(each) for each in given] == [asyncio.CancelledError] * 2
    assert await store.load_many([record.id, waiting.id]) == [replace(record, data=b"\x01"), None]


@pytest.mark.anyio
@pytest.mark.parametrize("turns", range(6))
async def test_a_write_cancelled_at_any_turn_leaves_the_store_usable(store: SQLiteStore, turns: int) -> None:
    """Whenever a request is cancelled, its record is the old or the new one, and the next request is served."""
    record = new_record()
    await store.create(record)

    task = asyncio.create_task(store.update(successor(record), expected=1))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    held = await store.load(record.id)
    assert held in (record, successor(record))
    later = successor(held, data=b"later")
    assert await store.update(later, expected=held.version) is not None


_WRITER = """
import asyncio, sys
from asgi_sessions.stores import SQLiteStore
from asgi_sessions.testing import new_record, successor

async def main():
    store, record = SQLiteStore(sys.argv[1]), new_record(data=bytes(2000))
    await store.open()
    await store.create(record)
    for _ in range(20_000):
        record = await store.update(successor(record), expected=record.version)
        print(record.id, record.version, flush=True)

asyncio.run(main())
"""


@pytest.mark.anyio
@pytest.mark.parametrize("acknowledged", [1, 50, 300])
async def test_a_killed_process_loses_no_acknowledged_write(path: Path, acknowledged: int) -> None:
    """Killed in the middle of its writes, a process leaves the last one that it was told of, whole."""
    with subprocess.Popen([sys.executable, "-c", _WRITER, path], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for _ in range(acknowledged):
            writer.stdout.readline()
        os.kill(writer.pid, signal.SIGKILL)
        rest = writer.stdout.read().splitlines()
    *_, last = [line for line in rest if len(line.split()) == 2] or [f"? {acknowledged + 1}"]

    store = SQLiteStore(path)
    await store.open()
    [record] = await every(store.records())

    assert record.version >= int(last.split()[1])
    assert record.data == bytes(2000)
    assert execute(path, "PRAGMA integrity_check") == [("ok",)]
    await store.close()
