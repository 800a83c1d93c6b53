"""
A SQLite connection in a thread of its own.

Rule 1: a job is one function over the connection, run whole: two jobs never share a statement or a transaction.
Rule 2: nobody has to stop a thread for the process to end. It ends with the process, or when its `ConnectionThread` is
        closed or collected; by then its event loop may be gone.

Why not aiosqlite (0.22.1, tried): its thread is no daemon, so a connection that nobody closes keeps Python from
exiting; an event loop that closes while a statement runs ends it with a traceback; one hop can only be one statement.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")
Connect = Callable[[], sqlite3.Connection]
_Job = tuple[Callable[[sqlite3.Connection], Any], asyncio.Future[Any]]
_Jobs = SimpleQueue[_Job | asyncio.Future[None] | None]


class ConnectionThread:
    """Runs jobs over a connection that the first of them opens. Belongs to one event loop."""

    def __init__(self, connect: Connect) -> None:
        """Prepare; the thread starts with the first job. *connect* must not refer to this object."""
        self._connect = connect
        self._jobs: _Jobs = SimpleQueue()
        self._started = False

    async def run(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """
        Return what *job* returns.

        A caller that is cancelled leaves the connection usable: its job is not begun, or runs to its end unheard.
        """
        if not self._started:
            self._started = True
            # A daemon: a store that nobody closes must not keep the interpreter from exiting.
            Thread(target=_work, args=(self._connect, self._jobs), name="asgi-sessions-sqlite", daemon=True).start()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.put((job, future))
        return await future

    async def close(self) -> None:
        """Close the connection when the jobs before are done, and end the thread."""
        if self._started:
            self._started = False
            closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._jobs.put(closed)
            await closed

    def stop(self) -> None:
        """Do the same without waiting: also where the event loop is gone."""
        if self._started:
            self._started = False
            self._jobs.put(None)

    __del__ = stop


def _work(connect: Connect, jobs: _Jobs) -> None:
    """Do jobs until told to end. Refers to no `ConnectionThread`, so that one can be collected."""
    connection: sqlite3.Connection | None = None
    while isinstance(work := jobs.get(), tuple):
        job, future = work
        if not future.cancelled():
            try:
                connection = connection or connect()
                _settle(future, job(connection), None)
            except BaseException as error:  # noqa: BLE001 whatever it is, its caller waits for it
                _settle(future, None, error)
        del work, job, future  # while it waits for the next, this one's data is not kept
    if connection is not None:
        connection.close()
    if work is not None:
        _settle(work, None, None)


def _settle(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    """Answer the caller, in its loop."""

    def settle() -> None:
        if not future.done():
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        future.get_loop().call_soon_threadsafe(settle)
