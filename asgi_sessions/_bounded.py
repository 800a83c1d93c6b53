"""
How long the store may take, and what interrupts it.

Rule 1: whatever a store raises leaves here as `StoreUnavailableError`, its cause chained.
Rule 2: what has begun to be written is finished, or given up at its deadline: no cancellation reaches it.
"""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

import anyio
from anyio.lowlevel import EventLoopToken, current_token

from asgi_sessions.errors import SessionError, StoreUnavailableError
from asgi_sessions.stores._base import NeverWaits, Store

T = TypeVar("T")


class BoundedStore:
    """A store, and the time it is given."""

    def __init__(self, store: Store, timeout: timedelta) -> None:
        """Give *store* so long for a load or a commit. One that never waits needs neither deadline nor shield."""
        self.store = store
        self.waits = not (isinstance(store, NeverWaits) and store.never_waits)
        self._seconds = timeout.total_seconds()
        self._open_on: EventLoopToken | None = None
        self._users = 0

    async def open(self) -> None:
        """Open the store for as long as the application lives."""
        self._users += 1
        try:
            await self.ask(self.store.open())
        except StoreUnavailableError:
            raise  # it is tried again at first use
        except BaseException:
            self._users -= 1
            raise
        self._open_on = current_token()

    async def close(self) -> None:
        """Close it, if this was the last to use it."""
        self._users = max(0, self._users - 1)
        if self._users == 0:
            self._open_on = None
            await self.finish(lambda: self.ask_patiently(self.store.close()))

    async def ready(self) -> None:
        """Open the store for the running event loop where no lifespan has done so."""
        if self._open_on is None or (self.waits and self._open_on != current_token()):
            await self.ask(self.store.open())

    async def ask(self, answer: Awaitable[T]) -> T:
        """Await an answer of the store for as long as it may take."""
        if not self.waits:
            return await self.ask_patiently(answer)
        try:
            with anyio.fail_after(self._seconds):
                return await self.ask_patiently(answer)
        except TimeoutError as error:
            raise _unavailable(error) from error

    async def ask_patiently(self, answer: Awaitable[T]) -> T:
        """Await an answer, however long it takes: within `finish`, which has the deadline, and for an operator."""
        try:
            return await answer
        except SessionError:
            raise
        except Exception as error:  # a driver may raise anything: all of it means that the store did not answer
            raise _unavailable(error) from error

    async def finish(self, work: Callable[[], Awaitable[T]]) -> T:
        """
        Run *work* to its end, or for as long as it may take, even if this task is cancelled meanwhile.

        A shield alone keeps out anyio's cancellation, not asyncio's `Task.cancel()`: so the work has a task of its own,
        which a cancelled caller waits for.
        """
        if not self.waits:
            return await work()
        results: list[T] = []
        errors: list[Exception] = []

        async def run() -> None:
            with anyio.CancelScope(shield=True):
                try:
                    results.append(await self.ask(work()))
                except Exception as error:  # noqa: BLE001 - raised below, where no task group wraps it
                    errors.append(error)

        async with anyio.create_task_group() as group:
            group.start_soon(run)
        if errors:
            raise errors[0]
        return results[0]


def _unavailable(error: Exception) -> StoreUnavailableError:
    """Return the error that says how the store failed, without what it was asked."""
    kind = "did not answer in time" if isinstance(error, TimeoutError) else f"failed with {type(error).__name__}"
    return StoreUnavailableError(f"The session store {kind}.")
