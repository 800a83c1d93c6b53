"""
From a store's record to a session.

Rule 1: what cannot be read, is over, or is not opened by the token is a stranger's; it stays in the store as it is.
Rule 2: a store that does not answer is told at the first access, so that a handler that never looks is served.
"""

from typing import Any

from asgi_sessions._bounded import BoundedStore
from asgi_sessions._clock import Clock
from asgi_sessions._config import Config
from asgi_sessions._envelope import unseal
from asgi_sessions._events import Event, Events
from asgi_sessions._record import Record
from asgi_sessions._session import Known, Session
from asgi_sessions._token import Secret
from asgi_sessions.errors import DecodeError, StoreUnavailableError


class Reader:
    """Reads records, and judges them."""

    def __init__(self, config: Config, bounded: BoundedStore, events: Events, clock: Clock) -> None:
        """Read from *bounded*; the time of *clock* decides what is over."""
        self._config, self._bounded, self._events, self._clock = config, bounded, events, clock

    async def read(self, session: Session, id: str, secret: Secret | None) -> None:
        """
        Make *session* what the store holds under *id*, if *secret* opens it; None opens any.

        Nothing is changed before the store has answered: a load that is cancelled can be done again.
        """
        pending = session._pending
        try:
            await self._bounded.ready()
            record, error = await self._bounded.ask(self._bounded.store.load(id)), None
        except StoreUnavailableError as failure:
            self._events.emit(Event("store_error", id), "at load", failure)
            record, error = None, failure
        if session._pending is not pending and (error is not None or session._seal is None):
            return  # another task of this request has loaded it meanwhile
        session._become_stranger()
        session._pending = None if error is None else (id, secret)
        if error is not None:
            session._hide(error)
            return
        known = self.known(record, secret) if record is not None else None
        if known is None:
            self._events.emit(Event("unknown_token", id))
        elif known.standing == "superseded":
            session._gone = True
            session._new = False
        elif (data := self.data(known)) is not None:
            session._become(known, data)

    def known(self, record: Record, secret: Secret | None) -> Known | None:
        """Return *record* as *secret* opens it; None if it does not, or the record is over or cannot be read."""
        now = self._clock()
        try:
            envelope = unseal(record.data)
        except DecodeError as error:
            self._events.emit(Event("corrupt", record.id, record.user_id), cause=error)
            return None
        end = self._config.absolute_end(envelope.terms, created_at=record.created_at, now=now)
        is_over = record.expires_at <= now or (end is not None and end <= now)
        if is_over or envelope.name != self._config.name:
            return None
        standing = "current" if secret is None else envelope.standing(secret, now)
        return Known(record, envelope, secret, standing) if standing else None

    def data(self, known: Known) -> dict[str, Any] | None:
        """Return the data of a session, None if it cannot be read."""
        payload = known.envelope.payload
        try:
            return self._config.codec.decode(payload) if payload else {}
        except DecodeError as error:
            self._events.emit(Event("corrupt", known.record.id, known.record.user_id), cause=error)
            return None
