"""
From a session to the store: the table of docs/design.md, "What a commit does".

Rule 1: what to do is decided before anything is awaited, and has a name: `Verb`.
Rule 2: each name is one method, and one conditional write unless a race is lost.
Rule 3: a lost race ends in a merge, in "gone", or in an error; never in a write without a condition.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal
from weakref import WeakValueDictionary

import anyio
from anyio.lowlevel import EventLoopToken, current_token

from asgi_sessions._bounded import BoundedStore
from asgi_sessions._changes import Changes, between
from asgi_sessions._clock import Clock
from asgi_sessions._config import Config
from asgi_sessions._draft import Expire, Issue, draft, issued
from asgi_sessions._envelope import unseal
from asgi_sessions._events import Event, EventName, Events
from asgi_sessions._reader import Reader
from asgi_sessions._record import Limit, Record
from asgi_sessions._session import Ended, Known, Session
from asgi_sessions._token import new_nonce, new_secret
from asgi_sessions.errors import (
    CommitConflictError,
    DecodeError,
    EncodeError,
    RecordExistsError,
    StoreUnavailableError,
    TokenUndeliverableError,
)

_LATE_KEPT = 8  # unanswered writes of one request that may still arrive: as many as a record keeps nonces
_ATTEMPTS = 64  # each lost race means that another process has won: so many in a row are no accident

Verb = Literal["nothing", "drop", "create", "touch", "update", "log in anew", "delete if empty"]


class Committer:
    """Decides and writes."""

    def __init__(self, config: Config, bounded: BoundedStore, reader: Reader, events: Events, clock: Clock) -> None:
        """Write to *bounded*."""
        self._config, self._bounded, self._reader, self._events, self._clock = config, bounded, reader, events, clock
        self._store = bounded.store
        self._queues: WeakValueDictionary[tuple[EventLoopToken, str], anyio.Lock] = WeakValueDictionary()

    async def commit(self, session: Session, *, deliverable: bool) -> None:
        """Do what *session* asks for, and note in it what the client is to be told, if it can be: *deliverable*."""
        await self.recall(session)
        verb, payload = self._plan(session)
        if verb == "touch":
            await self._touch(session)
            return
        if verb == "nothing" and session._ended is None:
            return
        if not deliverable and (verb in ("create", "log in anew") or (verb == "update" and _replaces_secret(session))):
            message = (
                "The session gets a new token, and the way it came has none back: "
                "`token = await session.save()` in the handler, and send it in the response."
            )
            raise TokenUndeliverableError(message)
        try:
            await self._bounded.finish(lambda: self._carry_out(session, verb, payload))
        except StoreUnavailableError as error:
            self._tell("store_error", session, "at commit", error)
            raise

    async def recall(self, session: Session) -> None:
        """Settle a write that was not answered, before anything else is read or written."""
        if (unanswered := session._unanswered) is None:
            return
        try:
            await self._bounded.finish(lambda: self._recall(session, *unanswered))
        except StoreUnavailableError as error:
            self._tell("store_error", session, "at commit", error)
            raise

    async def abandon(self, session: Session) -> None:
        """Carry out only what the request has ended. Never raises: the request has failed already."""
        if session._ended is None or session._ended.event == "replaced":
            return
        try:
            await self._bounded.finish(lambda: self._delete_ended(session))
        except StoreUnavailableError as error:
            self._tell("store_error", session, "at destroy", error)

    def _plan(self, session: Session) -> tuple[Verb, bytes]:
        """Decide what to do about the session as it stands, and encode what would be written."""
        known = session._known
        if session._seal is not None:
            return "nothing", b""
        payload = self._encode(session) if known is None or session._accessed else known.envelope.payload
        if known is None:
            if session._gone:
                return ("drop" if payload else "nothing"), payload
            return ("create" if payload or session._login else "nothing"), payload
        if session._login:
            return ("update" if known.standing == "current" else "log in anew"), payload
        changed = payload != known.envelope.payload
        if changed and not payload and session._user_id is None:
            return "delete if empty", payload
        if changed or session._terms != known.envelope.terms or _replaces_secret(session):
            return "update", payload
        return ("touch" if session._touch or self._touch_is_due(session, known) else "nothing"), payload

    def _encode(self, session: Session) -> bytes:
        payload = session._encoded()
        if len(payload) > self._config.max_size:
            message = (
                f"session is {len(payload)} bytes long, max_size is {self._config.max_size}: "
                "keep large things elsewhere, and their key here"
            )
            raise EncodeError(message)
        return payload

    def _touch_is_due(self, session: Session, known: Known) -> bool:
        if known.secret is None:
            return False  # a job is no request of the client
        seen_at = known.record.seen_at
        first_return = seen_at <= known.envelope.issued_at < session._now
        return first_return or self._config.touch_is_due(session._terms, seen_at=seen_at, now=session._now)

    async def _carry_out(self, session: Session, verb: Verb, payload: bytes) -> None:
        await self._delete_ended(session)
        if verb == "create":
            await self._create(session, payload)
        elif verb == "update":
            await self._update(session, payload)
        elif verb == "log in anew":
            await self._log_in_anew(session)
        elif verb == "delete if empty":
            await self._delete_if_empty(session)
        elif verb == "drop":
            self._drop(session)

    async def _delete_ended(self, session: Session) -> None:
        """Delete what the request ended. Only who ended it tells the client: another has a newer token by now."""
        ended = session._ended
        if ended is None:
            return
        record = ended.known.record
        session._ended = ended._replace(is_tried=True)
        if await self._delete_unless_logged_in(ended):
            session._answer = Expire()
            self._events.emit(Event("logout" if ended.event == "logout" else "destroyed", record.id, record.user_id))
        session._ended = None

    async def _delete_unless_logged_in(self, ended: Ended) -> bool:
        """Delete it whatever others have written meanwhile, unless one of them logged in: that is not ours to end."""
        known = ended.known
        version = known.record.version
        for _ in range(_ATTEMPTS):
            if await self._bounded.ask_patiently(self._store.delete(known.record.id, expected=version)):
                return True
            held = await self._bounded.ask_patiently(self._store.load(known.record.id))
            if held is None:
                return ended.is_tried  # by a delete of which nobody has waited for the answer
            theirs = self._reader.known(held, None)
            if theirs is None or theirs.envelope.terms.authenticated_at != known.envelope.terms.authenticated_at:
                return False
            version = theirs.record.version
        return await self._bounded.ask_patiently(self._store.delete(known.record.id))

    async def _create(self, session: Session, payload: bytes) -> None:
        await self._bounded.ready()
        for _ in range(_ATTEMPTS):
            nonce = new_nonce()
            known = draft(session, payload, secret=new_secret(), nonce=nonce, now=self._clock())
            session._unanswered = (nonce, known)
            try:
                stands = await self._bounded.ask_patiently(
                    self._store.create(known.record, **self._limit(known.record))
                )
            except RecordExistsError:
                if not await self._has_arrived(known.record.id, nonce):
                    session._id = session._unanswered = None
                    continue
                stands = True
            except StoreUnavailableError:
                if not await self._has_arrived(known.record.id, nonce):
                    raise
                stands = True
            session._unanswered = None
            if stands:
                self._events.emit(Event("created", known.record.id, known.record.user_id))
                self._conclude(session, known)
            else:
                self._drop(session)
            return
        self._give_up(session)

    async def _update(self, session: Session, payload: bytes) -> None:
        """
        Write over what was loaded, or merge with what came meanwhile.

        Requests of this process queue up for one session: fifty that write to it at once would else lose to one another
        many times each. Where the store never waits, none comes between.
        """
        if not self._bounded.waits:
            await self._update_in_turn(session, payload)
            return
        async with self._queues.setdefault((current_token(), session.id), anyio.Lock(fast_acquire=True)):
            await self._update_in_turn(session, payload)

    async def _update_in_turn(self, session: Session, payload: bytes) -> None:
        await self._catch_up(session)
        for _ in range(_ATTEMPTS):
            nonce, before = new_nonce(), session._known
            assert before is not None  # noqa: S101 - only a known session is updated
            secret = new_secret() if _replaces_secret(session) else None
            known = draft(session, payload, secret=secret, nonce=nonce, now=self._clock())
            session._unanswered = (nonce, known)
            held = await self._write(known.record, before.record.version, nonce)
            session._unanswered = None
            if held is None:
                self._drop(session)
                return
            if held == known.record or _has(held, nonce):
                self._conclude(session, known)
                return
            for late_nonce, late in session._late:
                if _has(held, late_nonce):
                    self._conclude(session, late)
            match self._rebase(session, held):
                case "gone":
                    self._drop(session)
                    return
                case "anew":
                    await self._log_in_anew(session)
                    return
            payload = self._encode(session)
        self._give_up(session)

    async def _catch_up(self, session: Session) -> None:
        """Learn what a long request has missed: touches leave the version alone, and an update must not undo them."""
        mine = session._known
        if mine is None or not (
            session._is_unreturned()
            or self._config.touch_is_due(session._terms, seen_at=session._now, now=self._clock())
        ):
            return
        held = await self._bounded.ask_patiently(self._store.load(mine.record.id))
        if held is not None and held.version == mine.record.version:
            session._known = mine._replace(record=held)

    async def _recall(self, session: Session, nonce: bytes, known: Known) -> None:
        """Find out whether a write arrived whose answer nobody has waited for: it is not to be done twice."""
        if await self._has_arrived(known.record.id, nonce):
            self._conclude(session, known)
        else:
            session._late = [*session._late, (nonce, known)][-_LATE_KEPT:]
        session._unanswered = None

    async def _write(self, record: Record, expected: int, nonce: bytes) -> Record | None:
        try:
            return await self._bounded.ask_patiently(
                self._store.update(record, expected=expected, **self._limit(record))
            )
        except StoreUnavailableError:
            if not await self._has_arrived(record.id, nonce):
                raise
            return record

    async def _delete_if_empty(self, session: Session) -> None:
        for _ in range(_ATTEMPTS):
            known = session._known
            assert known is not None  # noqa: S101 - only a known session is deleted
            record = known.record
            if await self._bounded.ask_patiently(self._store.delete(record.id, expected=record.version)):
                self._events.emit(Event("destroyed", record.id))
                brought = session.copy()  # by another task, meanwhile
                session._become_stranger()
                dict.update(session, brought)
                session._was_ended = session._new = True
                session._answer = Expire()
                return
            held = await self._bounded.ask_patiently(self._store.load(record.id))
            if held is None or self._rebase(session, held) != "again":
                self._drop(session)
                return
            if (payload := self._encode(session)) or session._user_id is not None:
                await self._update(session, payload)
                return
        self._give_up(session)

    async def _log_in_anew(self, session: Session) -> None:
        """Log in to a new session: another request's log-in or regeneration has won the one that was loaded."""
        user, terms, base = session._user_id, session._terms, self._base(session)
        brought = self._changes(session).added_to(base)
        session._become_stranger()
        session._user_id, session._terms, session._login = user, terms, True
        dict.update(session, brought)
        await self._create(session, self._encode(session))

    def _rebase(self, session: Session, held: Record) -> Literal["again", "gone", "anew"]:
        """Put the session's changes on top of what the store holds now, if its secret still opens that."""
        mine = session._known
        assert mine is not None  # noqa: S101 - only a known session loses a race
        theirs = self._reader.known(held, mine.secret)
        if session._login and (theirs is None or theirs.standing != "current") and self._reader.known(held, None):
            return "anew"
        if session._login and held.user_id not in (None, session._user_id):
            return "anew"
        data = self._reader.data(theirs) if theirs is not None else None
        if theirs is None or data is None or theirs.standing == "superseded":
            return "gone"
        self._tell("conflict", session)
        changes = self._changes(session)
        if self._config.conflicts == "raise" and (key := changes.clash(self._base(session), data, self._encode_one)):
            message = f"Another request has changed session[{key!r}] since this one loaded it."
            raise CommitConflictError(message)
        dict.clear(session)
        dict.update(session, changes.onto(data))
        session._terms = session._terms.onto(theirs.envelope.terms, base=mine.envelope.terms)
        session._user_id = session._user_id if session._login else held.user_id
        session._known = theirs
        return "again"

    def _conclude(self, session: Session, known: Known) -> None:
        """Go on from what was stored, and note what the client is to be told of it."""
        before = session._known
        is_new_secret = before is None or known.envelope.secret_hash != before.envelope.secret_hash
        authenticated_at = known.envelope.terms.authenticated_at
        was_authenticated_at = before.envelope.terms.authenticated_at if before else None
        if is_new_secret and authenticated_at is not None and authenticated_at != was_authenticated_at:
            self._events.emit(Event("login", known.record.id, known.record.user_id))
            if session._ambiguous:
                self._events.emit(Event("ambiguous_token", known.record.id), "at log-in: use a `__Host-` cookie")
        elif is_new_secret and before is not None:
            self._events.emit(Event("regenerated", known.record.id, known.record.user_id))
        session._answer = issued(before, known, self._config, self._clock()) or session._answer
        if session._ended is None:
            self._adopt(session, known, keeps_secret=not is_new_secret)
        else:  # ended while this was being written: what is to be deleted is what is there now
            session._ended = session._ended._replace(known=known)

    @staticmethod
    def _adopt(session: Session, known: Known, *, keeps_secret: bool) -> None:
        """Go on from *known*, and keep what was asked for while it was being written."""
        user, terms, login, regenerate = session._user_id, session._terms, session._login, session._regenerate
        session._adopt(known)
        if (user, terms) != (known.record.user_id, known.envelope.terms):
            session._user_id, session._terms, session._login = user, terms, login
        session._regenerate = regenerate and keeps_secret

    async def _touch(self, session: Session) -> None:
        """Move the record later. It may fail: the response does not wait for its repair."""
        known = session._known
        assert known is not None  # noqa: S101 - only a known session is touched
        record, now = known.record, session._now
        ends = self._config.expires_at(
            session._terms, created_at=record.created_at, seen_at=now, now=self._clock(), unreturned=False
        )
        touch = self._store.touch
        try:
            await self._bounded.finish(
                lambda: self._bounded.ask_patiently(
                    touch(record.id, expires_at=ends, seen_at=now, expected=record.version)
                )
            )
        except StoreUnavailableError as error:
            self._tell("store_error", session, "at touch", error)
        session._touch = False
        session._known = known._replace(record=replace(record, seen_at=now))

    def _drop(self, session: Session) -> None:
        """Give up a session that has ended elsewhere: nothing is written, nothing is told to the client."""
        self._tell("gone", session)
        session._become_stranger()
        session._answer = None if isinstance(session._answer, Issue) else session._answer
        session._gone = session._dropped = True

    def _give_up(self, session: Session) -> None:
        self._tell("conflict", session, f"given up after {_ATTEMPTS} attempts")
        message = "Other requests changed this session again and again; try once more."
        raise CommitConflictError(message)

    async def _has_arrived(self, id: str, nonce: bytes) -> bool:
        """Return whether a write that was not answered has been carried out: the record has its nonce."""
        held = await self._bounded.ask_patiently(self._store.load(id))
        return held is not None and _has(held, nonce)

    def _base(self, session: Session) -> dict[str, Any]:
        """Return the data that were loaded, each time anew."""
        return (session._known and self._reader.data(session._known)) or {}

    def _changes(self, session: Session) -> Changes:
        return between(self._base(session), session.copy(), session._operations, self._encode_one)

    def _limit(self, record: Record) -> Mapping[str, Any]:
        limit: Limit | None = self._config.limit
        return {"limit": limit} if limit and record.user_id is not None else {}

    def _encode_one(self, key: str, value: Any) -> bytes:
        return self._config.codec.encode({key: value})

    def _tell(self, name: EventName, session: Session, detail: str = "", cause: Exception | None = None) -> None:
        self._events.emit(Event(name, session._id, session._user_id), detail, cause)


def _replaces_secret(session: Session) -> bool:
    """Return whether an update would issue a token. Who came with a replaced secret has lost that race already."""
    known = session._known
    return session._login or (session._regenerate and known is not None and known.standing == "current")


def _has(record: Record, nonce: bytes) -> bool:
    try:
        return unseal(record.data).has(nonce)
    except DecodeError:
        return False
