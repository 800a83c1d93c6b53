"""
Sessions in this process: for one worker, for development, for tests.

Rule 1: no verb awaits anything, so that nothing comes between its check and its write.
Rule 2: what it was given it keeps until it expires or is deleted. A full store refuses; it never makes room by itself.
"""

import os
import re
import sys
import warnings
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from heapq import heapify, heappop, heappush, nsmallest
from typing import Self

import anyio
from anyio.lowlevel import checkpoint
from anyio.streams.memory import MemoryObjectSendStream

from asgi_sessions._clock import Clock, now, to_microseconds
from asgi_sessions._record import Limit, Record
from asgi_sessions.errors import (
    ConfigError,
    RecordExistsError,
    SessionWarning,
    StoreUnavailableError,
    TooManySessionsError,
)
from asgi_sessions.stores._urls import count, split

_PAGE = 200  # records between two chances for others to run
_SLICE = 100  # expired records that a create may remove when the store is full
_NEWS = 1000  # ended sessions that a slow watcher may be behind before it misses some
_MARK_LIFE = timedelta(days=1)


class MemoryStore:
    """
    Keeps records in this process: fast, gone when it ends, and not shared between workers.

    Several workers would each have sessions of their own, so that a user is logged in only now and then: opening it
    where several are configured is a `SessionWarning`.
    """

    never_waits = True
    limits_users = True

    def __init__(self, *, max_sessions: int | None = None, clock: Clock = now) -> None:
        """
        Make an empty store.

        Args:
            max_sessions: With so many live ones `create` raises `StoreUnavailableError`; None is no limit. No session
                is ended to make room for another: whoever could fill the store could end everybody's.
            clock: Says what has expired.

        """
        if max_sessions is not None and max_sessions < 1:
            raise ConfigError(f"max_sessions={max_sessions}: a store has room for at least 1 session")
        self._max_sessions = max_sessions
        self._clock = clock
        self._records: dict[str, Record] = {}
        self._users: dict[str, set[str]] = {}
        self._marks: dict[str, tuple[datetime, str | None]] = {}
        self._expiries = _Expiries()
        self._watchers: set[MemoryObjectSendStream[str]] = set()
        self._warned = False

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Return the store of `memory:` or `memory:?max_sessions=10000`."""
        parts, options = split(url, max_sessions=count)
        if parts.netloc or parts.path:
            raise ConfigError('The memory store has no place: write "memory:", or "sqlite:///sessions.db" for a file')
        return cls(**options)

    async def open(self) -> None:
        """Warn, once, where several workers would each have their own sessions."""
        if not self._warned and (workers := _workers()) > 1:
            self._warned = True
            warnings.warn(
                f"{workers} workers are configured, and each would have its own sessions in memory: a user would be "
                'logged in on one and not on the others. Share them, for example with store="sqlite:///sessions.db".',
                SessionWarning,
                stacklevel=2,
            )

    async def close(self) -> None:
        """End the watchers. The records stay, for the next `open`."""
        for news in self._watchers:
            news.close()

    async def ping(self) -> None:
        """Return: it always answers."""

    async def load(self, id: str) -> Record | None:
        """Return the live record, or None."""
        return self._live(id)

    async def load_many(self, ids: Sequence[str]) -> list[Record | None]:
        """Return what `load` would for each."""
        return [self._live(each) for each in ids]

    async def create(self, record: Record, *, limit: Limit | None = None) -> bool:
        """Add *record*; False if its user was revoked meanwhile. A full store raises `StoreUnavailableError`."""
        if self._live(record.id) is not None:
            raise RecordExistsError(f"The session ID {record.id!r} is taken")
        if self._is_revoked(record):
            return False
        too_many = self._too_many(record, limit)
        self._remove(record.id)  # one of this ID that has expired
        if not too_many:
            self._check_room()
        self._end(too_many)
        self._put(record)
        return True

    async def update(self, record: Record, *, expected: int, limit: Limit | None = None) -> Record | None:
        """Replace a live record of version *expected*; return what the store now holds."""
        held = self._live(record.id)
        if held is None or held.version != expected:
            return held
        if record.user_id != held.user_id:
            if self._is_revoked(record):
                self._end([held.id])
                return None
            self._end(self._too_many(record, limit))
        self._put(record)
        return record

    async def touch(self, id: str, *, expires_at: datetime, seen_at: datetime, expected: int) -> bool:
        """Move both times of a live record of version *expected*, never earlier."""
        held = self._live(id)
        if held is None or held.version != expected:
            return False
        self._put(replace(held, expires_at=max(held.expires_at, expires_at), seen_at=max(held.seen_at, seen_at)))
        return True

    async def delete(self, id: str, *, expected: int | None = None) -> bool:
        """Remove a live record, with *expected* only if it has that version."""
        held = self._live(id)
        if held is None or expected not in (None, held.version):
            return False
        self._end([id])
        return True

    async def records(self, *, user_id: str | None = None) -> AsyncGenerator[Record, None]:
        """Yield all live records, or one user's, out of a list of the IDs there were at the start."""
        ids = deque(self._records if user_id is None else self._users.get(user_id, ()))
        while ids:
            for _ in range(min(_PAGE, len(ids))):
                held = self._live(ids.popleft())
                if held is not None and user_id in (None, held.user_id):
                    yield held
            await checkpoint()

    async def delete_user(self, user_id: str, *, keep: str | None = None) -> int:
        """Mark the user as revoked now, and end every session of theirs but *keep*."""
        instant = self._clock()
        before, _ = self._marks.pop(user_id, (instant, None))
        self._marks[user_id] = (max(before, instant), keep)
        return self._end([each for each in self._users.get(user_id, ()) if each != keep])

    async def delete_all(self) -> int:
        """Remove every record."""
        return self._end(list(self._records))

    async def sweep(self, *, limit: int) -> int:
        """Remove at most *limit* expired records, and the revocation marks that are older than a day."""
        yesterday = self._clock() - _MARK_LIFE
        for _ in range(limit):
            oldest = next(iter(self._marks), None)  # a mark that is renewed moves to the end
            if oldest is None or self._marks[oldest][0] >= yesterday:
                break
            del self._marks[oldest]
        return self._sweep(limit)

    async def watch(self) -> AsyncGenerator[str, None]:
        """Yield the IDs of sessions as they are deleted. A watcher that is too far behind misses some."""
        news, heard = anyio.create_memory_object_stream[str](_NEWS)
        self._watchers.add(news)
        with news, heard:
            try:
                async for ended in heard:
                    yield ended
            finally:
                self._watchers.discard(news)

    def _live(self, id: str) -> Record | None:
        """Return the record unless it has expired."""
        held = self._records.get(id)
        return held if held is not None and held.expires_at > self._clock() else None

    def _put(self, record: Record) -> None:
        """Put *record* in the place of one of its ID, or in a new one."""
        self._remove(record.id)
        self._records[record.id] = record
        self._expiries.add(record)
        if record.user_id is not None:
            self._users.setdefault(record.user_id, set()).add(record.id)

    def _remove(self, id: str) -> bool:
        """Take a record out everywhere; return whether it was a live one."""
        live = self._live(id) is not None
        held = self._records.pop(id, None)
        if held is not None:
            self._expiries.discard(held)
            if held.user_id is not None:
                ids = self._users[held.user_id]
                ids.discard(id)
                if not ids:
                    del self._users[held.user_id]
        return live

    def _end(self, ids: Iterable[str]) -> int:
        """Remove records, tell the watchers of those that were live, and return how many."""
        ended = [each for each in ids if self._remove(each)]
        for news in self._watchers:
            with suppress(anyio.WouldBlock, anyio.ClosedResourceError):  # too far behind, or on its way out
                for each in ended:
                    news.send_nowait(each)
        return len(ended)

    def _sweep(self, limit: int) -> int:
        """Remove at most *limit* expired records, looking at no others."""
        swept = 0
        while swept < limit and (due := self._expiries.first(self._clock())) is not None:
            self._remove(due)
            swept += 1
        return swept

    def _check_room(self) -> None:
        """Raise if the store is full, also without some of what has expired."""
        if self._max_sessions is not None and len(self._records) >= self._max_sessions:
            self._sweep(_SLICE)
            if len(self._records) >= self._max_sessions:
                raise StoreUnavailableError(
                    f"The memory store is full: max_sessions={self._max_sessions}. It never ends a session to make room"
                )

    def _is_revoked(self, record: Record) -> bool:
        """Return whether the user of *record* was revoked since it was seen, without this ID being kept."""
        if record.user_id is None or record.user_id not in self._marks:
            return False
        at, keep = self._marks[record.user_id]
        return at >= record.seen_at and keep != record.id

    def _too_many(self, record: Record, limit: Limit | None) -> list[str]:
        """Return the sessions to end so that *record* is within *limit*, or refuse it."""
        if limit is None or record.user_id is None:
            return []
        ids = self._users.get(record.user_id, set()) - {record.id}
        others = [held for each in ids if (held := self._live(each)) is not None]
        surplus = len(others) + 1 - limit.count
        if surplus > 0 and limit.when_full == "refuse":
            raise TooManySessionsError(f"The user has {len(others)} sessions, and {limit.count} are allowed")
        return [held.id for held in nsmallest(surplus, others, key=lambda held: (held.created_at, held.id))]


class _Expiries:
    """
    Which records expire in which second, so that a sweep looks at none that are live.

    A heap holds the seconds that have a bucket, and some that have one no more: those are dropped when they come up,
    or when they are the most.
    """

    def __init__(self) -> None:
        self._buckets: dict[int, set[str]] = {}
        self._heap: list[int] = []

    def add(self, record: Record) -> None:
        """Note when *record* expires."""
        second = _second(record.expires_at)
        if second not in self._buckets:
            self._buckets[second] = set()
            heappush(self._heap, second)
            if len(self._heap) > 2 * len(self._buckets) + _SLICE:
                self._heap = list(self._buckets)
                heapify(self._heap)
        self._buckets[second].add(record.id)

    def discard(self, record: Record) -> None:
        """Forget *record*."""
        second = _second(record.expires_at)
        self._buckets[second].discard(record.id)
        if not self._buckets[second]:
            del self._buckets[second]

    def first(self, now: datetime) -> str | None:
        """Return the ID of a record of the first second, if that is over."""
        while self._heap and self._heap[0] not in self._buckets:
            heappop(self._heap)
        if not self._heap or self._heap[0] >= _second(now):
            return None
        return next(iter(self._buckets[self._heap[0]]))


def _second(instant: datetime) -> int:
    """Return the whole second that *instant* is in."""
    return to_microseconds(instant) // 1_000_000


def _workers() -> int:
    """Return how many workers the environment or the command line asks for."""
    words = [os.environ.get("WEB_CONCURRENCY", "")]
    for flag, word in zip(sys.argv, [*sys.argv[1:], ""], strict=True):
        match = re.fullmatch(r"(?:--workers|-w)=?(\d*)", flag, re.ASCII)
        if match:
            words.append(match[1] or word)
    return max(int(word) if re.fullmatch("[0-9]{1,9}", word) else 1 for word in words)
