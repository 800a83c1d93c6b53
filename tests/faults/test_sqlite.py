"""Real faults of a SQLite file, through the middleware: full, read-only, locked, replaced, a thread that is busy."""

import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from asgi_sessions import Config, SessionManager, SessionMiddleware
from asgi_sessions.stores import SQLiteStore
from tests.support import call, handler, http_scope


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio: the SQLite store needs it."""
    return "asyncio"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the file is."""
    return tmp_path / "sessions.db"


@pytest.fixture
async def manager(path: Path) -> AsyncIterator[SessionManager]:
    """Return a manager that gives up a locked file after 0.1 s, and a silent one after 0.5 s."""
    store = SQLiteStore(path, busy_timeout=timedelta(milliseconds=100))
    async with SessionManager(Config(store=store, store_timeout=timedelta(milliseconds=500))) as manager:
        yield manager


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the file's write lock from another connection."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def busy(threads: list[Any]) -> Iterator[None]:
    """Keep connections of the store from answering until the block has ended, as a disk that hangs does."""
    go_on = threading.Event()

    async def hold(thread: Any) -> None:
        await thread.run(lambda _: go_on.wait())

    held = [hold(thread) for thread in threads]
    for each in held:
        each.send(None)
    try:
        yield
    finally:
        go_on.set()
        for each in held:
            each.close()


def count(session: Any) -> None:
    """Change something that is large enough to need a page of its own."""
    session.increment("n")
    session["large"] = "x" * 20_000 * session["n"]


async def requests(manager: SessionManager, token: str | None = None) -> tuple[int, str]:
    """Count once; return the status and the token that holds from now on."""
    reply = await call(SessionMiddleware(handler(count), manager=manager), http_scope(token))
    return reply.status, reply.token or token or ""


async def counted(manager: SessionManager, token: str) -> int:
    """Return what is stored."""
    session = await manager.load(token)
    number: int = session["n"]
    return number


async def test_a_locked_file_is_a_503_until_it_is_free(manager: SessionManager, path: Path) -> None:
    """Readers do not notice; a writer is refused, nothing of it is stored, and the next one succeeds."""
    status, token = await requests(manager)
    assert status == 200

    with locked(path):
        assert await requests(manager, token) == (503, token)
        assert await counted(manager, token) == 1

    assert await requests(manager, token) == (200, token)
    assert await counted(manager, token) == 2


async def test_a_locked_file_does_not_report_a_log_out(manager: SessionManager, path: Path) -> None:
    """The session is still there, and so is the answer's 503."""
    _, token = await requests(manager)

    with locked(path):
        app = SessionMiddleware(handler(lambda session: session.logout()), manager=manager)
        reply = await call(app, http_scope(token))

    assert (reply.status, reply.token) == (503, None)
    assert await counted(manager, token) == 1


async def test_a_full_disk_is_a_503_and_keeps_what_was_stored(manager: SessionManager) -> None:
    """Until there is room again."""
    _, token = await requests(manager)
    store: Any = manager.store
    (here,) = store._loops.values()

    def limit(connection: sqlite3.Connection) -> int:
        pages: int = connection.execute("PRAGMA page_count").fetchone()[0]
        found: int = connection.execute(f"PRAGMA max_page_count = {pages}").fetchone()[0]
        return found

    await here.writes.run(limit)
    assert await requests(manager, token) == (503, token)
    assert await counted(manager, token) == 1

    await here.writes.run(lambda connection: connection.execute("PRAGMA max_page_count = 100000").fetchone())
    assert await requests(manager, token) == (200, token)
    assert await counted(manager, token) == 2


async def test_a_read_only_file_is_a_503_for_writers_alone(manager: SessionManager) -> None:
    """Whoever only reads is served."""
    _, token = await requests(manager)
    store: Any = manager.store
    (here,) = store._loops.values()
    await here.writes.run(lambda connection: connection.execute("PRAGMA query_only = ON").fetchall())

    assert await requests(manager, token) == (503, token)
    reader = SessionMiddleware(handler(lambda session: session["n"]), manager=manager)
    assert (await call(reader, http_scope(token))).status == 200

    await here.writes.run(lambda connection: connection.execute("PRAGMA query_only = OFF").fetchall())
    assert await requests(manager, token) == (200, token)


@pytest.mark.parametrize("side", ["reads", "writes"])
async def test_a_disk_that_hangs_is_a_503_within_the_timeout(manager: SessionManager, side: str) -> None:
    """For loads and for commits; strangers who only look are served meanwhile, and all is well afterwards."""
    _, token = await requests(manager)
    store: Any = manager.store
    (here,) = store._loops.values()

    with busy([getattr(here, side)]):
        with anyio.fail_after(20):  # far beyond the store's own 0.5 s: without those it would wait for ever
            assert await requests(manager, token) == (503, token)
        assert (await call(SessionMiddleware(handler(len), manager=manager), http_scope())).status == 200

    assert await requests(manager, token) == (200, token)
    assert await counted(manager, token) == 2


async def test_a_file_that_is_none_of_ours_is_a_503(manager: SessionManager, path: Path) -> None:
    """Overwritten under our hands: the page says so, and not "a stranger"."""
    _, token = await requests(manager)
    await manager.store.close()
    for each in path.parent.iterdir():
        each.unlink()
    path.write_bytes(b"not a database, and longer than the header of one: " * 100)
    await manager._bounded.close()

    reply = await call(SessionMiddleware(handler(len), manager=manager), http_scope(token))

    assert reply.status == 503
    assert "DatabaseError" in reply.body.decode()
