"""
The manager: sessions for the middleware, and for all that is no request.

Rule 1: what the client is to be told is returned, not done.
Rule 2: "no such session" is never an error.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from typing import Self

import anyio

from asgi_sessions._bounded import BoundedStore
from asgi_sessions._clock import Clock
from asgi_sessions._clock import now as system_clock
from asgi_sessions._committer import Committer
from asgi_sessions._config import Config
from asgi_sessions._draft import Answer, Issue
from asgi_sessions._events import Event, EventName, Events
from asgi_sessions._reader import Reader
from asgi_sessions._record import Record
from asgi_sessions._session import Session, UserID, user_text
from asgi_sessions._token import Token, parse
from asgi_sessions.errors import (
    CommitConflictError,
    NotLoadedError,
    SessionError,
    StoreUnavailableError,
    UnsupportedError,
)
from asgi_sessions.stores import store_from_url
from asgi_sessions.stores._base import LimitsUsers, Store

_SWEEP_EVERY = timedelta(seconds=60)
_SWEEP_BATCH = 100  # records: a larger one delays requests on SQLite
_MERGES = 16  # how often the other session may change while it is being merged
_SWEEP_PAUSE = 0.002  # seconds between batches, for the requests in between


class SessionManager:
    """
    Loads and commits sessions, for the middleware and without it.

    Args:
        config: the settings; all defaults where it is left out.
        clock: returns the current instant. For tests.
    """

    def __init__(self, config: Config | None = None, *, clock: Clock = system_clock) -> None:
        """Find the store. Nothing is opened yet."""
        self.config: Config = config or Config()
        store = self.config.store
        self.store: Store = store_from_url(store) if isinstance(store, str) else store
        if self.config.limit and not (isinstance(self.store, LimitsUsers) and self.store.limits_users):
            raise UnsupportedError(
                f"max_sessions_per_user: {type(self.store).__name__} cannot count them; leave it None"
            )
        self.events: Events = Events()
        self._clock = clock
        self._bounded = BoundedStore(self.store, self.config.store_timeout)
        self._reader = Reader(self.config, self._bounded, self.events, clock)
        self._committer = Committer(self.config, self._bounded, self._reader, self.events, clock)
        self._sweeps_in_background = False
        self._sweep_next = clock() + _SWEEP_EVERY

    def on(self, event: EventName, callback: Callable[[Event], object]) -> None:
        """Call *callback* with each event of that name. It runs inside the request: hand long work to a queue."""
        self.events.on(event, callback)

    async def __aenter__(self) -> Self:
        """Open the store, for as long as the block runs. One that is down is tried again at first use."""
        try:
            await self._bounded.open()
        except StoreUnavailableError as error:
            self.events.emit(Event("store_error"), "at start", error)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the store, unless it is in use by another block. A store that cannot be closed is logged."""
        try:
            await self._bounded.close()
        except SessionError as error:
            self.events.emit(Event("store_error"), "at close", error)

    # One request

    async def load(self, token: str | Token | None = None) -> Session:
        """Return the session of *token*: a stranger's where there is none, or it is unknown, expired or malformed."""
        session = self.defer(token)
        await self.fill(session)
        return session

    def defer(self, token: str | Token | None = None) -> Session:
        """Return a session that `await session.load()` loads; a stranger's needs no loading."""
        session = Session(self, self._clock())
        found = parse(token) if isinstance(token, str) else token
        if found is not None:
            session._pending = (found.id, found.secret)
            session._hide(NotLoadedError("This session is loaded lazily: `await session.load()` before its first use."))
        return session

    async def fill(self, session: Session) -> None:
        """Load a session that is deferred, or whose load has failed; do nothing for one that is loaded."""
        if session._pending is not None:
            id, secret = session._pending
            await self._reader.read(session, id, secret)
            session._came_known = session._known is not None or session._gone
            if secret is None:  # opened by its ID
                session._new = False
                session._gone = session._known is None and session._seal is None

    async def reload(self, session: Session) -> None:
        """Drop the changes of this request and read the session again. What the request has ended stays ended."""
        if session._seal is None:
            await self._committer.recall(session)
        known, gone = session._known, session._gone
        if known is not None:
            await self._reader.read(session, known.record.id, known.secret)
            session._gone = session._known is None and session._seal is None
        elif session._pending is not None:
            await self.fill(session)
        else:
            session._become_stranger()
            session._gone = gone

    async def commit(self, session: Session) -> Answer:
        """
        Do what the session asks for, and return what the client is to be told: `Issue`, `Expire` or None.

        Raises `EncodeError` and `TokenUndeliverableError` before anything is written; `CommitConflictError` where
        others kept winning; `TooManySessionsError`; `StoreUnavailableError` where the store may or may not have it.
        """
        await self._commit(session, deliverable=session._deliverable)
        answer: Answer = session._answer
        session._answer = None
        return answer

    async def save(self, session: Session) -> str | None:
        """Commit now; return the token if one was issued. The response still carries it where it can."""
        session._check_open()
        await self._commit(session, deliverable=True)
        return session._answer.token if isinstance(session._answer, Issue) else None

    async def abandon(self, session: Session) -> None:
        """Drop what a failed request changed, carry out what it ended. Never raises."""
        await self._committer.abandon(session)

    async def _commit(self, session: Session, *, deliverable: bool) -> None:
        if self._bounded.waits:
            session._turn = session._turn or anyio.Lock(fast_acquire=True)
            async with session._turn:  # tasks of one request that save at once do so one after the other
                await self._committer.commit(session, deliverable=deliverable)
        else:
            await self._committer.commit(session, deliverable=deliverable)
        if not self._sweeps_in_background and session._now >= self._sweep_next:
            self._sweep_next = session._now + _SWEEP_EVERY
            await self._sweep_quietly(lambda: self._bounded.ask(self._sweep_batch()))

    # Beyond one request

    @asynccontextmanager
    async def open(self, token: str | None = None) -> AsyncGenerator[Session]:
        """
        Load the session of *token*, commit it at the end of the block; a block that raises drops its changes.

        A new session's token is what `await session.save()` returns inside the block.
        """
        async with self._use(await self.load(token)) as session:
            yield session

    @asynccontextmanager
    async def open_id(self, id: str) -> AsyncGenerator[Session]:
        """Do the same by session ID, where a job holds no token. One that is not there reads empty and `is_gone`."""
        session = Session(self, self._clock())
        session._pending = (id, None)
        await self.fill(session)
        async with self._use(session):
            yield session

    @asynccontextmanager
    async def _use(self, session: Session) -> AsyncGenerator[Session]:
        session._deliverable = False
        try:
            yield session
            await self.commit(session)
        except BaseException:
            await self.abandon(session)
            raise
        finally:
            session._closed = "This session was used in a block that has ended: open it again."

    async def sessions(self, *, user_id: UserID | None = None) -> AsyncGenerator[Session]:
        """Yield the live sessions of everyone, or of one user, to be read; `open_id` opens one for changes."""
        async with aclosing(self._records(user_id)) as records:
            async for record in records:
                known = self._reader.known(record, None)
                data = known and self._reader.data(known)
                if known is not None and data is not None:
                    session = Session(self, self._clock())
                    session._become(known, data)
                    session._closed = (
                        "This session is from a listing: `manager.open_id(session.id)` opens it for changes."
                    )
                    yield session

    async def _records(self, user_id: UserID | None) -> AsyncGenerator[Record]:
        user = None if user_id is None else user_text(user_id)
        await self._bounded.ready()
        async with aclosing(self.store.records(user_id=user)) as records:
            while (record := await self._bounded.ask(anext(records, None))) is not None:
                yield record

    async def revoke(
        self,
        *,
        user_id: UserID | None = None,
        where: Callable[[Session], bool] | None = None,
        keep: str | None = None,
    ) -> int:
        """
        End sessions from outside: a user's, those that a predicate picks, or a user's that it picks. Return how many.

        Args:
            user_id: without *where*, a log-in of this user that is under way is ended, too.
            where: is called with each session.
            keep: the ID of one that stays, such as `session.id`.
        """
        if user_id is not None and where is None:
            user = user_text(user_id)
            await self._bounded.ready()
            count = await self._bounded.finish(
                lambda: self._bounded.ask_patiently(self.store.delete_user(user, keep=keep))
            )
            self.events.emit(Event("revoked", None, user, count))
            return count
        if where is None:
            message = "revoke: name a user_id or a predicate `where`; delete_all() ends everyone's"
            raise TypeError(message)
        async with aclosing(self.sessions(user_id=user_id)) as sessions:
            return sum([await self.delete(each.id) async for each in sessions if each.id != keep and where(each)])

    async def merge(self, session: Session, other_token: str) -> str | None:
        """
        Bring another session's data into this one, end the other: for a redirect that came back without its cookie.

        Saves at once, so that the data is never in neither; returns the token if one was issued. Of a key in both, the
        other's value stays.
        """
        token = None
        for _ in range(_MERGES):
            other = await self.load(other_token)
            data = other.copy()  # raises where the store did not answer
            known = other._known
            if known is None or known.record.id == session.id:
                return token
            session.update(data)
            token = await session.save() or token
            if session._known is None:
                return None  # gone: the other one keeps its data
            if await self._bounded.ask(self.store.delete(known.record.id, expected=known.record.version)):
                self.events.emit(Event("revoked", known.record.id, known.record.user_id))
                return token
        raise CommitConflictError("The other session is being changed again and again; try once more.")

    async def delete(self, id: str) -> bool:
        """End one session by its ID; return whether it was there."""
        await self._bounded.ready()
        deleted = await self._bounded.ask(self.store.delete(id))
        if deleted:
            self.events.emit(Event("revoked", id))
        return deleted

    async def delete_all(self) -> int:
        """End every session; return how many."""
        await self._bounded.ready()
        count = await self._bounded.ask_patiently(self.store.delete_all())
        self.events.emit(Event("revoked", count=count))
        return count

    async def sweep(self) -> int:
        """Remove all expired records, in batches with pauses between; return how many."""
        await self._bounded.ready()
        total = 0
        while (count := await self._sweep_batch()) == _SWEEP_BATCH:
            total += count
            await anyio.sleep(_SWEEP_PAUSE)
        return total + count

    async def sweep_forever(self) -> None:
        """Sweep now and again until cancelled: the middleware runs it for as long as the application lives."""
        self._sweeps_in_background = True
        try:
            while True:
                await anyio.sleep(_SWEEP_EVERY.total_seconds())
                await self._sweep_quietly(self.sweep)
        finally:
            self._sweeps_in_background = False

    async def _sweep_batch(self) -> int:
        count = await self._bounded.ask_patiently(self.store.sweep(limit=_SWEEP_BATCH))
        if count:
            self.events.emit(Event("expired", count=count))
        return count

    async def _sweep_quietly(self, sweep: Callable[[], Awaitable[int]]) -> None:
        """Sweep; a store that cannot is no reason to fail a request or the application."""
        try:
            await sweep()
        except SessionError as error:
            self.events.emit(Event("store_error"), "at sweep", error)
