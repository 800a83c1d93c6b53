"""
The contract of a store.

Rule 1: a store keeps bytes; it knows no session, no cookie, no codec, and does not decide when a session ends.
Rule 2: there is no upsert. Each write is one conditional operation on one record.
Rule 3: "not there" and "expired" are the same answer everywhere: None or False, never an exception. Exceptions are for
        a store that cannot answer; the manager turns whatever is raised into `StoreUnavailableError`.

A third party's store inherits nothing: it has these methods, and proves them by a subclass of
`asgi_sessions.testing.StoreConformance`.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from datetime import datetime
from typing import Protocol, runtime_checkable

from asgi_sessions._record import Limit, Record


class Store(Protocol):
    """Keeps records until they expire."""

    async def open(self) -> None:
        """
        Get ready for the running event loop. Called again on the same loop it does nothing.

        What belongs to a loop that has been closed since is dropped here.
        """
        ...

    async def close(self) -> None:
        """Give back what the store itself has opened. A client handed in stays open: it is the caller's."""
        ...

    async def ping(self) -> None:
        """Return if the store answers, raise if it does not."""
        ...

    async def load(self, id: str) -> Record | None:
        """Return the live record, or None. Any text may be asked for, whatever its length or characters."""
        ...

    async def load_many(self, ids: Sequence[str]) -> list[Record | None]:
        """Return what `load` would for each of *ids*, in order, in one round trip. A bad ID spoils only itself."""
        ...

    async def create(self, record: Record) -> bool:
        """
        Add *record*. Never replaces: a taken ID raises `RecordExistsError`.

        Return True if it stands; False, and leave nothing, if its user was revoked (`delete_user`) at or after
        *record.seen_at* and the revocation did not keep this ID.
        """
        ...

    async def update(self, record: Record, *, expected: int) -> Record | None:
        """
        Replace a live record whose version is *expected*. Never adds.

        Return what the store now holds: *record* if this call won, another's record if it lost the race, None if the
        session is gone. A write that gives the record a user it did not have is judged like `create`: if that user was
        revoked at or after *record.seen_at*, the record is deleted and None returned.

        *record.created_at* is that of the record replaced.
        """
        ...

    async def touch(self, id: str, *, expires_at: datetime, seen_at: datetime, expected: int) -> bool:
        """
        Move both times of a live record of version *expected* later; each stays where it would move earlier.

        Never adds; never changes data or version. Return whether such a record was there.
        """
        ...

    async def delete(self, id: str, *, expected: int | None = None) -> bool:
        """Remove a record, with *expected* only if it has that version. Return whether a live one was removed."""
        ...

    def records(self, *, user_id: str | None = None) -> AsyncGenerator[Record]:
        """
        Yield all live records, or one user's, in no particular order, each at most once.

        Reads in pages. A record that is live from before the first to after the last page is never missed.
        """
        ...

    async def delete_user(self, user_id: str, *, keep: str | None = None) -> int:
        """
        End every session of a user but *keep*; return how many live ones were removed.

        First leaves the user's revocation mark, which holds this instant and *keep* and lives for a day, then deletes:
        a log-in that is under way meanwhile ends itself when it reads the mark.
        """
        ...

    async def delete_all(self) -> int:
        """Remove every record; return how many live ones were removed."""
        ...

    async def sweep(self, *, limit: int) -> int:
        """Remove at most *limit* expired records, return how many: fewer than *limit* means that it is done for now."""
        ...


@runtime_checkable
class LimitsUsers(Protocol):
    """A store whose `create` and `update` also hold a user to so many sessions, counted and written in one step."""

    limits_users: bool
    """True: what tells such a store from the others."""

    async def create(self, record: Record, *, limit: Limit | None = None) -> bool:
        """Like `Store.create`; where *record* would be one session too many, as *limit* says."""
        ...

    async def update(self, record: Record, *, expected: int, limit: Limit | None = None) -> Record | None:
        """Like `Store.update`; *limit* counts only when the record gets a user that it did not have."""
        ...


@runtime_checkable
class NeverWaits(Protocol):
    """A store in this process: its calls return without giving way, so they need no deadline and no shield."""

    never_waits: bool


@runtime_checkable
class Watches(Protocol):
    """A store that can tell of sessions ended elsewhere, so that sockets of theirs close on every worker."""

    def watch(self) -> AsyncIterator[str]:
        """Yield the IDs of sessions as they are deleted by any client, from now on. Best effort: news may be missed."""
        ...
