"""The test of the test: stores that break one promise each, and what of `StoreConformance` notices."""

import inspect
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from asgi_sessions._record import Limit, Record
from asgi_sessions.errors import RecordExistsError, SessionError, TooManySessionsError
from asgi_sessions.stores import MemoryStore
from asgi_sessions.testing import StoreConformance, new_record
from asgi_sessions.testing._conformance import limiting, watching

_LONG_AGO = datetime(1900, 1, 1, tzinfo=UTC)


class AddsInUpdate(MemoryStore):
    """Writes back a session that has been logged out."""

    async def update(self, record: Record, *, expected: int, limit: Limit | None = None) -> Record | None:
        """Update, or create."""
        if self._live(record.id) is None:
            self._put(record)
        return await super().update(record, expected=expected, limit=limit)


class IgnoresTheVersion(MemoryStore):
    """The last write wins."""

    async def update(self, record: Record, *, expected: int, limit: Limit | None = None) -> Record | None:
        """Update any version."""
        held = self._live(record.id)
        return await super().update(record, expected=held.version if held else expected, limit=limit)


class ChecksThenWrites(MemoryStore):
    """Gives way between the check and the write."""

    async def update(self, record: Record, *, expected: int, limit: Limit | None = None) -> Record | None:
        """Check, wait, write."""
        del limit
        held = self._live(record.id)
        if held is None or held.version != expected:
            return held
        await checkpoint()
        self._put(record)
        return record


class ChecksThenCreates(MemoryStore):
    """Gives way between the look at the ID and its use."""

    async def create(self, record: Record, *, limit: Limit | None = None) -> bool:
        """Check, wait, write."""
        del limit
        if self._live(record.id) is not None:
            raise RecordExistsError
        await checkpoint()
        self._put(record)
        return True


class CountsThenCreates(MemoryStore):
    """Gives way between the count of a user's sessions and the new one."""

    async def create(self, record: Record, *, limit: Limit | None = None) -> bool:
        """Count, wait, write."""
        self._end(self._too_many(record, limit))
        await checkpoint()
        return await super().create(record)


class HidesTheWinner(MemoryStore):
    """Answers a lost race as if the session were gone."""

    async def update(self, record: Record, *, expected: int, limit: Limit | None = None) -> Record | None:
        """Return the record only to the winner."""
        held = await super().update(record, expected=expected, limit=limit)
        return held if held == record else None


class ReplacesInCreate(MemoryStore):
    """Lets a second session take over an ID."""

    async def create(self, record: Record, *, limit: Limit | None = None) -> bool:
        """Delete, then create."""
        self._remove(record.id)
        return await super().create(record, limit=limit)


class AddsInTouch(MemoryStore):
    """Brings a session back when it is touched."""

    async def touch(self, id: str, *, expires_at: datetime, seen_at: datetime, expected: int) -> bool:
        """Touch, or create."""
        if self._live(id) is None:
            self._put(new_record(id=id, version=expected, expires_at=expires_at))
        return await super().touch(id, expires_at=expires_at, seen_at=seen_at, expected=expected)


class TouchesEarlier(MemoryStore):
    """Lets a late touch shorten a session."""

    async def touch(self, id: str, *, expires_at: datetime, seen_at: datetime, expected: int) -> bool:
        """Set both times."""
        held = self._live(id)
        if held is None or held.version != expected:
            return False
        self._put(replace(held, expires_at=expires_at, seen_at=seen_at))
        return True


class CountsTouches(MemoryStore):
    """Takes a version for a touch, so that others lose their update."""

    async def touch(self, id: str, *, expires_at: datetime, seen_at: datetime, expected: int) -> bool:
        """Touch, and raise the version."""
        touched = await super().touch(id, expires_at=expires_at, seen_at=seen_at, expected=expected)
        held = self._live(id)
        if touched and held:
            self._put(replace(held, version=held.version + 1))
        return touched


class TouchesAnyVersion(MemoryStore):
    """Does not look at the version when touching."""

    async def touch(self, id: str, *, expires_at: datetime, seen_at: datetime, expected: int) -> bool:
        """Touch."""
        held = self._live(id)
        version = held.version if held else expected
        return await super().touch(id, expires_at=expires_at, seen_at=seen_at, expected=version)


class DeletesAnyVersion(MemoryStore):
    """Does not look at the version when deleting."""

    async def delete(self, id: str, *, expected: int | None = None) -> bool:
        """Delete."""
        del expected
        return await super().delete(id)


class DeletesWhatIsNotThere(MemoryStore):
    """Says that it removed something whenever it was asked to."""

    async def delete(self, id: str, *, expected: int | None = None) -> bool:
        """Delete."""
        await super().delete(id, expected=expected)
        return True


class ShowsTheExpired(MemoryStore):
    """Leaves expiry to the sweep."""

    def __init__(self) -> None:
        super().__init__(clock=lambda: _LONG_AGO)


class ListsTheExpired(MemoryStore):
    """Filters by expiry when it loads, and not when it lists."""

    async def records(self, *, user_id: str | None = None) -> AsyncGenerator[Record, None]:
        """Yield everything there is."""
        for record in list(self._records.values()):
            if user_id in (None, record.user_id):
                yield record


class ListsOnePage(MemoryStore):
    """Forgets that there may be a second page."""

    async def records(self, *, user_id: str | None = None) -> AsyncGenerator[Record, None]:
        """Yield one page."""
        left = 200
        async for record in super().records(user_id=user_id):
            if left:
                yield record
                left -= 1


class ListsWithoutEnd(MemoryStore):
    """Reads the last page again and again."""

    async def records(self, *, user_id: str | None = None) -> AsyncGenerator[Record, None]:
        """Yield all, for ever."""
        found = [record async for record in super().records(user_id=user_id)]
        while found:
            for record in found:
                yield record


class ListsByPosition(MemoryStore):
    """Pages by a count of what came before, which deletions shift."""

    async def records(self, *, user_id: str | None = None) -> AsyncGenerator[Record, None]:
        """Yield by offset."""
        del user_id
        offset = 0
        while page := list(self._records.values())[offset:][:100]:
            for record in page:
                yield record
            offset += len(page)


class FindsUsersByPattern(MemoryStore):
    """Compares users' names as a database with a careless collation does."""

    async def records(self, *, user_id: str | None = None) -> AsyncGenerator[Record, None]:
        """Yield the sessions of everybody of that name, in any case."""
        async for record in super().records():
            if user_id is None or (record.user_id or "").casefold().rstrip() == user_id.casefold().rstrip():
                yield record


class ForgetsTheIndex(MemoryStore):
    """Notes the user when a session is created, and never again."""

    async def update(self, record: Record, *, expected: int, limit: Limit | None = None) -> Record | None:
        """Update, and leave the index as it was."""
        users = {user: set(ids) for user, ids in self._users.items()}
        held = await super().update(record, expected=expected, limit=limit)
        self._users = users
        return held


class HasNoMark(MemoryStore):
    """Deletes a user's sessions, and lets those in flight land."""

    async def delete_user(self, user_id: str, *, keep: str | None = None) -> int:
        """Delete."""
        ended = await super().delete_user(user_id, keep=keep)
        self._marks.clear()
        return ended


class MarksOnlyCreate(MemoryStore):
    """Reads the mark when a session is created, and not when one becomes a user's."""

    async def update(self, record: Record, *, expected: int, limit: Limit | None = None) -> Record | None:
        """Update without the marks."""
        marks, self._marks = self._marks, {}
        held = await super().update(record, expected=expected, limit=limit)
        self._marks = marks
        return held


class MarksForEver(MemoryStore):
    """Refuses a revoked user for good."""

    def _is_revoked(self, record: Record) -> bool:
        return record.user_id in self._marks


class MarksTheKept(MemoryStore):
    """Keeps a session when it deletes, and refuses it when it writes."""

    async def delete_user(self, user_id: str, *, keep: str | None = None) -> int:
        """Forget what was kept."""
        ended = await super().delete_user(user_id, keep=keep)
        self._marks[user_id] = (self._marks[user_id][0], None)
        return ended


class MarksEveryUpdate(MemoryStore):
    """Judges each update of a revoked user, not only those that bind."""

    async def update(self, record: Record, *, expected: int, limit: Limit | None = None) -> Record | None:
        """Update."""
        if self._is_revoked(record):
            self._remove(record.id)
        return await super().update(record, expected=expected, limit=limit)


class SweepsTheMark(MemoryStore):
    """Drops the marks with the first sweep."""

    async def sweep(self, *, limit: int) -> int:
        """Sweep."""
        self._marks.clear()
        return await super().sweep(limit=limit)


class KeepsNobody(MemoryStore):
    """Ends the session that asked to be kept."""

    async def delete_user(self, user_id: str, *, keep: str | None = None) -> int:
        """Delete all."""
        del keep
        return await super().delete_user(user_id)


class CountsTheExpired(MemoryStore):
    """Counts what it removed, live or not."""

    async def delete_user(self, user_id: str, *, keep: str | None = None) -> int:
        """Delete."""
        there = len(self._users.get(user_id, ()))
        await super().delete_user(user_id, keep=keep)
        return there


class SweepsEverything(MemoryStore):
    """Does not look at its limit."""

    async def sweep(self, *, limit: int) -> int:
        """Sweep."""
        return await super().sweep(limit=limit * 1000)


class SweepsTheLiving(MemoryStore):
    """Removes whatever comes first."""

    async def sweep(self, *, limit: int) -> int:
        """Sweep."""
        return sum(self._remove(id) for id in list(self._records)[:limit])


class SweepsByTheFirstExpiry(MemoryStore):
    """Does not follow an expiry that moves."""

    async def update(self, record: Record, *, expected: int, limit: Limit | None = None) -> Record | None:
        """Update the record, and leave the index of expiries as it was."""
        before = self._live(record.id)
        held = await super().update(record, expected=expected, limit=limit)
        if before is not None:
            self._expiries.discard(record)
            self._expiries.add(before)
        return held


class RoundsToSeconds(MemoryStore):
    """Keeps times as whole seconds."""

    def _put(self, record: Record) -> None:
        super()._put(replace(record, expires_at=record.expires_at.replace(microsecond=0)))


class KeepsText(MemoryStore):
    """Keeps data as text."""

    def _put(self, record: Record) -> None:
        super()._put(replace(record, data=record.data.decode("utf-8", "replace").encode()))


class FoldsIds(MemoryStore):
    """Compares IDs without regard to case."""

    def _live(self, id: str) -> Record | None:
        return super()._live(id) or super()._live(id.swapcase())


class LoadsInAnyOrder(MemoryStore):
    """Answers many questions as a set of rows comes back."""

    async def load_many(self, ids: Sequence[str]) -> list[Record | None]:
        """Load each ID once, in order of ID."""
        return await super().load_many(sorted(set(ids)))


class RaisesOnBadText(MemoryStore):
    """Lets a driver's error through for text that it cannot encode."""

    async def load_many(self, ids: Sequence[str]) -> list[Record | None]:
        """Load."""
        "".join(ids).encode()
        return await super().load_many(ids)


class EndsTheNewest(MemoryStore):
    """Ends the wrong session when a user has too many."""

    def _too_many(self, record: Record, limit: Limit | None) -> list[str]:
        ids = super()._too_many(record, limit)
        others = [each for id in self._users.get(record.user_id or "", ()) if (each := self._live(id))]
        return [each.id for each in sorted(others, key=lambda each: each.created_at, reverse=True)[: len(ids)]]


class LimitsByRefusingAll(MemoryStore):
    """Refuses where it should end the oldest."""

    def _too_many(self, record: Record, limit: Limit | None) -> list[str]:
        if super()._too_many(record, limit):
            raise TooManySessionsError
        return []


class EndsBeforeItLooks(MemoryStore):
    """Makes room before it knows whether the write will stand."""

    async def update(self, record: Record, *, expected: int, limit: Limit | None = None) -> Record | None:
        """End others, then update."""
        self._end(self._too_many(record, limit))
        return await super().update(record, expected=expected, limit=limit)


class TellsNobody(MemoryStore):
    """Has no news of what `delete_user` ends."""

    async def delete_user(self, user_id: str, *, keep: str | None = None) -> int:
        """Delete without telling."""
        watchers, self._watchers = self._watchers, set()
        ended = await super().delete_user(user_id, keep=keep)
        self._watchers = watchers
        return ended


class WaitsForWatchers(MemoryStore):
    """Holds a log-out up until every watcher has heard of it."""

    async def delete(self, id: str, *, expected: int | None = None) -> bool:
        """Delete, and send with patience."""
        watchers, self._watchers = self._watchers, set()
        deleted = await super().delete(id, expected=expected)
        self._watchers = watchers
        with anyio.fail_after(0.2):
            for news in watchers if deleted else ():
                await news.send(id)
        return deleted


BROKEN: dict[type[MemoryStore], str] = {
    AddsInUpdate: "test_a_log_out_wins_over_a_later_update",
    IgnoresTheVersion: "test_an_update_that_lost_returns_the_winner",
    ChecksThenWrites: "test_of_many_updates_of_one_version_one_wins",
    ChecksThenCreates: "test_of_many_creates_of_one_id_one_wins",
    CountsThenCreates: "test_concurrent_log_ins_stay_within_the_limit",
    HidesTheWinner: "test_an_update_that_lost_returns_the_winner",
    ReplacesInCreate: "test_create_never_replaces",
    AddsInTouch: "test_touch_never_adds",
    TouchesEarlier: "test_touch_never_moves_a_time_earlier",
    CountsTouches: "test_an_update_after_a_touch_wins",
    TouchesAnyVersion: "test_touch_of_another_version_does_nothing",
    DeletesAnyVersion: "test_delete_of_a_version",
    DeletesWhatIsNotThere: "test_delete_again_is_false",
    ShowsTheExpired: "test_an_expired_record_is_gone_for_every_verb",
    ListsTheExpired: "test_an_expired_record_is_gone_for_every_verb",
    ListsOnePage: "test_records_of_many",
    ListsWithoutEnd: "test_records_of_all_and_of_one_user",
    ListsByPosition: "test_records_while_others_write",
    FindsUsersByPattern: "test_users_of_similar_names_are_apart",
    ForgetsTheIndex: "test_the_index_follows_a_log_in",
    HasNoMark: "test_a_create_in_flight_is_refused",
    MarksOnlyCreate: "test_an_update_in_flight_is_refused",
    MarksForEver: "test_a_log_in_after_a_revocation_stands",
    MarksTheKept: "test_the_kept_session_passes_the_mark",
    MarksEveryUpdate: "test_a_later_log_in_outlives_the_mark_of_a_kept_session",
    SweepsTheMark: "test_a_sweep_keeps_the_mark",
    KeepsNobody: "test_delete_user_keeps_one",
    CountsTheExpired: "test_an_expired_record_counts_nowhere",
    SweepsEverything: "test_a_sweep_has_a_limit_and_an_end",
    SweepsTheLiving: "test_a_sweep_removes_no_live_record",
    SweepsByTheFirstExpiry: "test_a_sweep_respects_a_touch",
    RoundsToSeconds: "test_times_are_kept_to_the_microsecond",
    KeepsText: "test_data_comes_back_byte_for_byte",
    FoldsIds: "test_ids_of_other_case_are_other_ids",
    LoadsInAnyOrder: "test_load_many_keeps_order_and_repetition",
    RaisesOnBadText: "test_a_bad_id_spoils_only_itself",
    EndsTheNewest: "test_a_limit_ends_the_oldest",
    LimitsByRefusingAll: "test_a_limit_holds_for_a_log_in_by_update",
    EndsBeforeItLooks: "test_a_limit_ends_nobody_for_a_write_that_fails",
    TellsNobody: "test_a_watcher_hears_of_ended_sessions",
    WaitsForWatchers: "test_a_watcher_that_does_not_listen_holds_nobody_up",
}


# Not every error: a slip in a broken store above must not pass for a promise that was noticed.
_NOTICED = (AssertionError, pytest.fail.Exception, SessionError, TimeoutError, UnicodeError, BaseExceptionGroup)


def cases(name: str) -> Iterator[dict[str, Any]]:
    """Yield the arguments of each case of a test, but its store."""
    marks = [mark for mark in getattr(getattr(StoreConformance, name), "pytestmark", []) if mark.name == "parametrize"]
    parameters = []
    for mark in marks:
        names = [mark.args[0]] if isinstance(mark.args[0], str) else mark.args[0]
        values = [(value,) if len(names) == 1 else value for value in mark.args[1]]
        parameters.append([dict(zip(names, value, strict=True)) for value in values])
    for chosen in product(*parameters):
        yield {key: value for arguments in chosen for key, value in arguments.items()}


def fails(kind: type[MemoryStore], name: str) -> bool:
    """Return whether any case of a test of the suite fails on a new store of this kind."""

    async def run(arguments: dict[str, Any]) -> None:
        store = kind()
        await store.open()
        try:
            with anyio.fail_after(1):
                await getattr(StoreConformance(), name)(store, **arguments)
        finally:
            await store.close()

    for arguments in cases(name):
        try:
            anyio.run(run, arguments)
        except _NOTICED:
            return True
    return False


TESTS = [name for name, _ in inspect.getmembers(StoreConformance, inspect.iscoroutinefunction) if name[:5] == "test_"]


def test_the_suite_is_large() -> None:
    """The suite has a test for each promise: more than sixty, more than a hundred with their cases."""
    assert len(TESTS) > 60
    assert sum(len(list(cases(name))) for name in TESTS) > 100


@pytest.mark.parametrize("name", TESTS)
def test_a_sound_store_passes(name: str) -> None:
    """What the suite fails is the store's fault: one that keeps its promises passes, run as below."""
    assert not fails(MemoryStore, name)


@pytest.mark.parametrize(("kind", "name"), BROKEN.items(), ids=[kind.__name__ for kind in BROKEN])
def test_a_broken_promise_is_noticed(kind: type[MemoryStore], name: str) -> None:
    """A store that breaks a promise fails the test of that promise."""
    assert fails(kind, name)


def test_every_broken_store_is_tried() -> None:
    """No broken store above is left out."""
    assert set(MemoryStore.__subclasses__()) >= set(BROKEN)
    assert len([each for each in MemoryStore.__subclasses__() if each.__module__ == __name__]) == len(BROKEN)


@pytest.mark.parametrize("capability", [limiting, watching])
def test_what_a_store_does_not_claim_is_skipped(capability: Callable[[object], object]) -> None:
    """A store without an optional capability passes the suite: those tests say why they do not run."""
    with pytest.raises(pytest.skip.Exception, match="the store "):
        capability(object())
