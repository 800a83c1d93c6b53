"""
Sessions in a SQLite file, shared by the processes of one machine.

Rule 1: each write is one statement that checks and writes, in a transaction of its own. There is no BEGIN.
Rule 2: an expired row is not there: every statement compares `expires_at`.
Rule 3: columns are named. A table may have more, and no write here loses what they hold.
"""

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncGenerator, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote

from asgi_sessions import _durations
from asgi_sessions._clock import Clock, now, to_microseconds
from asgi_sessions._record import Limit, Record
from asgi_sessions.errors import ConfigError, RecordExistsError, StoreUnavailableError, TooManySessionsError
from asgi_sessions.stores._sqlite_sql import Statements, bindable, to_parameters, to_record
from asgi_sessions.stores._sqlite_thread import Connect, ConnectionThread
from asgi_sessions.stores._urls import split

_OLDEST = (3, 37)  # the first with STRICT tables; RETURNING came before
_PAGE = 200  # records read in one go
_BATCH = 100  # rows deleted in one statement: one of many rows holds up the writes of requests
_PAUSE = 0.002  # seconds between two batches of a sweep, for those writes
_RETRY = 0.005  # seconds between two tries to make a new file ready
_CHECKPOINT = 4000  # pages of log, 16 MB: a checkpoint takes some 15 ms, so sweeps do it before a request has to
_MARK_LIFE = timedelta(days=1)
_TRIES = 20  # how often others may take the room that ending a session has made


class _OnLoop:
    """What belongs to one event loop. Dropped, it closes by itself."""

    def __init__(self, connect: Connect) -> None:
        self.opening = asyncio.Lock()
        self.is_open = False
        self.reads, self.writes, self.sweeps = (ConnectionThread(connect) for _ in range(3))

    def stop(self) -> None:
        """Let go of all three, without a loop to wait in."""
        for thread in (self.reads, self.writes, self.sweeps):
            thread.stop()


class SQLiteStore:
    """
    Keeps records in a table of a SQLite file.

    On asyncio; each event loop has connections of its own, in threads: one for reads, one for writes, one for sweeps.
    """

    limits_users = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        table: str = "sessions",
        busy_timeout: timedelta = timedelta(seconds=1),
        clock: Clock = now,
    ) -> None:
        """
        Name the file, which `open` makes if need be.

        Args:
            path: A file in a directory that exists.
            table: An ASCII identifier. Several tables, each with its own store, may be in one file.
            busy_timeout: How long a write waits for another process's before it fails. Less than the manager's
                `store_timeout`, so that what went wrong is told.
            clock: Says what has expired.

        """
        if os.fspath(path) in ("", ":memory:"):
            raise ConfigError('SQLite keeps sessions in a file: give its path. For sessions in memory, store="memory:"')
        self._sql = Statements(table)
        self._clock = clock
        # Not a method: what a thread refers to must not keep the store alive.
        self._connect = partial(_connect, Path(path).absolute(), busy_timeout.total_seconds())
        self._prepare = partial(_prepare, self._sql, busy_timeout.total_seconds())
        self._loops: dict[asyncio.AbstractEventLoop, _OnLoop] = {}

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Return the store of `sqlite:///relative.db` or `sqlite:////absolute.db`, with `?table=…&busy_timeout=1s`."""
        parts, options = split(url, table=str, busy_timeout=_durations.parse)
        path = unquote(parts.path)
        if parts.netloc or (path and not path.startswith("/")):
            raise ConfigError("A sqlite URL has three slashes before a relative path and four before an absolute one")
        return cls(path[1:], **options)

    @staticmethod
    def ddl(table: str = "sessions") -> str:
        """Return the statements that make *table*, for a migration tool. `open` executes the same."""
        return Statements(table).ddl

    async def open(self) -> None:
        """Connect, and make the table unless it is there. On trio it raises `ConfigError`."""
        loop = _running_loop()
        if sqlite3.sqlite_version_info < _OLDEST:
            needed = ".".join(map(str, _OLDEST))
            raise ConfigError(f"Python has SQLite {sqlite3.sqlite_version}, and its store needs {needed} or later")
        for closed in [other for other in self._loops if other.is_closed()]:
            self._loops.pop(closed).stop()
        here = self._loops.setdefault(loop, _OnLoop(self._connect))
        async with here.opening:
            await self._open(here)

    async def close(self) -> None:
        """Close the connections of the running event loop."""
        here = self._loops.pop(_running_loop(), None)
        if here is not None:
            for thread in (here.reads, here.sweeps, here.writes):
                await thread.close()

    async def ping(self) -> None:
        """Return if the table can be read."""
        await self._here().reads.run(partial(_rows, self._sql.ping, {}))

    async def load(self, id: str) -> Record | None:
        """Return the live record, or None."""
        now = self._now()
        return await self._here().reads.run(lambda connection: self._load(connection, id, now))

    async def load_many(self, ids: Sequence[str]) -> list[Record | None]:
        """Return what `load` would for each, in one hop to the thread: the hop is what costs."""
        now = self._now()
        return await self._here().reads.run(lambda connection: [self._load(connection, each, now) for each in ids])

    async def create(self, record: Record, *, limit: Limit | None = None) -> bool:
        """Add *record*; False if its user was revoked meanwhile."""
        given = {**to_parameters(record), "now": self._now(), "room": limit and limit.count}
        return await self._here().writes.run(lambda connection: self._create(connection, given, limit))

    async def update(self, record: Record, *, expected: int, limit: Limit | None = None) -> Record | None:
        """Replace a live record of version *expected*; return what the store now holds."""
        given = {**to_parameters(record), "now": self._now(), "room": limit and limit.count}
        given |= {"id": bindable(record.id), "expected": expected}
        won, held = await self._here().writes.run(lambda connection: self._update(connection, given, limit))
        return record if won else held

    async def touch(self, id: str, *, expires_at: datetime, seen_at: datetime, expected: int) -> bool:
        """Move both times of a live record of version *expected*, never earlier."""
        given = {"id": bindable(id), "expected": expected, "now": self._now()}
        given |= {"expires_at": to_microseconds(expires_at), "seen_at": to_microseconds(seen_at)}
        return await self._here().writes.run(partial(_changed, self._sql.touch, given)) > 0

    async def delete(self, id: str, *, expected: int | None = None) -> bool:
        """Remove a record, with *expected* only if it has that version; return whether it was live."""
        given = {"id": bindable(id), "expected": expected, "now": self._now()}
        return await self._here().writes.run(partial(_deleted, self._sql.delete, given)) > 0

    async def records(self, *, user_id: str | None = None) -> AsyncGenerator[Record, None]:
        """Yield all live records, or one user's, in the order of their IDs, a page at a time."""
        first, following = self._sql.first_page, self._sql.next_page
        if user_id is not None:
            first, following = self._sql.first_page_of_user, self._sql.next_page_of_user
        statement, given = first, {"user_id": bindable(user_id), "limit": _PAGE}
        while rows := await self._here().reads.run(partial(_rows, statement, {**given, "now": self._now()})):
            for row in rows:
                yield to_record(row)
            statement, given = following, {**given, "after": rows[-1][0]}

    async def delete_user(self, user_id: str, *, keep: str | None = None) -> int:
        """Mark the user as revoked now, and remove every session of theirs but *keep*."""
        given = {"user_id": bindable(user_id), "keep": bindable(keep), "now": self._now()}

        def mark_and_delete(connection: sqlite3.Connection) -> int:
            connection.execute(self._sql.mark, given)
            return _deleted(self._sql.delete_user, given, connection)

        return await self._here().writes.run(mark_and_delete)

    async def delete_all(self) -> int:
        """Remove every record, in batches between which other writes have their turn."""
        given = {"limit": _BATCH, "now": self._now()}
        removed = 0
        while lived := await self._here().writes.run(partial(_rows, self._sql.delete_some, given)):
            removed += sum(live for (live,) in lived)
        return removed

    async def sweep(self, *, limit: int) -> int:
        """Remove at most *limit* expired records, in batches, over a connection that no request waits for."""
        sweeps, now, swept = self._here().sweeps, self._now(), 0
        while (batch := min(_BATCH, limit - swept)) > 0:
            gone = await sweeps.run(partial(_changed, self._sql.sweep, {"now": now, "limit": batch}))
            swept += gone
            if gone < batch:
                await sweeps.run(lambda connection: self._tidy(connection, now))
                break
            await asyncio.sleep(_PAUSE)
        return swept

    async def _open(self, here: _OnLoop) -> None:
        """Connect, unless another caller just has."""
        if not here.is_open:
            await here.writes.run(self._prepare)
            await here.reads.run(partial(_rows, self._sql.ping, {}))
            here.is_open = True

    def _now(self) -> int:
        """Return the instant by which rows count as expired."""
        return to_microseconds(self._clock())

    def _here(self) -> _OnLoop:
        """Return the connections of the running event loop."""
        here = self._loops.get(_running_loop())
        if here is None or not here.is_open:
            raise StoreUnavailableError("The SQLite store is not open on this event loop: `await store.open()` first")
        return here

    # What follows runs in a thread of connections.

    def _load(self, connection: sqlite3.Connection, id: str, now: int) -> Record | None:
        """Read one record by its key: no text of statement depends on how many are asked for."""
        row = connection.execute(self._sql.load, {"id": bindable(id), "now": now}).fetchone()
        return to_record(row) if row else None

    def _create(self, connection: sqlite3.Connection, given: dict[str, Any], limit: Limit | None) -> bool:
        """Insert, ending other sessions of the user where *limit* says so."""
        for _ in range(_TRIES):
            if self._insert(connection, given):
                return True
            if limit is None or self._is_marked(connection, given):
                return False
            self._make_room(connection, given, limit)
        raise _crowded()

    def _insert(self, connection: sqlite3.Connection, given: dict[str, Any]) -> bool:
        """Insert if nothing forbids it. A taken ID raises."""
        try:
            return connection.execute(self._sql.create, given).rowcount > 0
        except sqlite3.IntegrityError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY:
                raise  # a constraint of the user's own
            if connection.execute(self._sql.delete_expired, given).rowcount:
                return self._insert(connection, given)
            raise RecordExistsError(f"The session ID {given['id']!r} is taken") from error

    def _update(
        self, connection: sqlite3.Connection, given: dict[str, Any], limit: Limit | None
    ) -> tuple[bool, Record | None]:
        """Return whether the write won, and if not what the store holds."""
        for _ in range(_TRIES):
            if connection.execute(self._sql.update, given).rowcount:
                return True, None
            held = self._load(connection, given["id"], given["now"])
            if held is None or held.version != given["expected"]:
                return False, held
            if limit is None or self._is_marked(connection, given):
                connection.execute(self._sql.delete, given).fetchall()
                # None, unless another write came first: then this one has lost to it.
                return False, self._load(connection, given["id"], given["now"])
            self._make_room(connection, given, limit)
        raise _crowded()

    def _is_marked(self, connection: sqlite3.Connection, given: dict[str, Any]) -> bool:
        """Return whether it was the revocation mark that forbade a write."""
        return bool(connection.execute(self._sql.is_marked, given).fetchone()[0])

    def _make_room(self, connection: sqlite3.Connection, given: dict[str, Any], limit: Limit) -> None:
        """End the oldest sessions of the user until one more is within *limit*, or refuse."""
        if limit.when_full == "refuse":
            raise TooManySessionsError(f"The user already has the {limit.count} sessions that are allowed")
        connection.execute(self._sql.make_room, given)

    def _tidy(self, connection: sqlite3.Connection, now: int) -> None:
        """Drop the marks that are older than a day, and empty the log before a request's write has to."""
        connection.execute(self._sql.sweep_marks, {"yesterday": now - _MARK_LIFE // timedelta(microseconds=1)})
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def _running_loop() -> asyncio.AbstractEventLoop:
    """Return asyncio's running loop."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigError('The SQLite store needs asyncio: on trio, use store="memory:"') from None


def _connect(path: Path, busy_timeout: float) -> sqlite3.Connection:
    """Open a connection."""
    if not path.parent.is_dir():
        raise ConfigError(f"The SQLite store's file is to be in {path.parent}, which is not a directory: make it first")
    connection = sqlite3.connect(path, timeout=busy_timeout, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT}").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(sql: Statements, busy_timeout: float, connection: sqlite3.Connection) -> None:
    """Make the tables, once whatever is there has been found to fit."""
    _switch_to_wal(connection, busy_timeout)
    for table, columns in sql.tables:
        found = {name for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", [table])}
        if found and (missing := [name for name in columns if name not in found]):
            raise ConfigError(
                f"The table {table!r} lacks the columns {', '.join(missing)}: rename it, or choose another by table=…, "
                f"and let `open` make it, or run what `SQLiteStore.ddl({sql.table!r})` returns"
            )
    connection.executescript(sql.ddl)


def _switch_to_wal(connection: sqlite3.Connection, busy_timeout: float) -> None:
    """Try until it works: of two processes that do this to a new file at once, SQLite turns one away unheard."""
    give_up = time.monotonic() + busy_timeout
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise
            time.sleep(_RETRY)
        else:
            return


def _rows(statement: str, given: dict[str, Any], connection: sqlite3.Connection) -> list[tuple[Any, ...]]:
    """Execute and fetch to the end, which is when a write is committed."""
    return connection.execute(statement, given).fetchall()


def _changed(statement: str, given: dict[str, Any], connection: sqlite3.Connection) -> int:
    """Execute a write; return how many rows it changed."""
    return connection.execute(statement, given).rowcount


def _deleted(statement: str, given: dict[str, Any], connection: sqlite3.Connection) -> int:
    """Execute a DELETE that returns whether each row was live; return how many were."""
    return sum(live for (live,) in _rows(statement, given, connection))


def _crowded() -> StoreUnavailableError:
    """Return the error of a user who logs in faster than room can be made."""
    return StoreUnavailableError("Other log-ins of the same user took the room each time it was made")
