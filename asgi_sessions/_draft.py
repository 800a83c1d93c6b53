"""
What a session is stored as.

Rule 1: everything here is a function of its arguments: the time, a new secret and the nonce are handed in.
"""

import math
from dataclasses import replace
from datetime import datetime, timedelta
from typing import NamedTuple

from asgi_sessions._config import Config
from asgi_sessions._envelope import Envelope, add_nonce, seal
from asgi_sessions._record import Record
from asgi_sessions._session import Known, Session
from asgi_sessions._token import Secret, Token, hash_secret

_LONGEST_MAX_AGE = timedelta(days=400)  # RFC 6265bis, section 5.5: browsers cap it there


class Issue(NamedTuple):
    """Tell the client its token."""

    token: str
    max_age: int | None
    """Seconds; None for as long as the client likes."""

    def __repr__(self) -> str:
        """Return a form that is safe to log."""
        return f"Issue(token=…, max_age={self.max_age})"


class Expire(NamedTuple):
    """Tell the client to forget its token."""


Answer = Issue | Expire | None


def draft(session: Session, payload: bytes, *, secret: Secret | None, nonce: bytes, now: datetime) -> Known:
    """Return *session* as it is to be stored, under a new *secret* or the one it has."""
    before, config = session._known, session._engine.config
    name = config.name
    seen_at = _seen_at(session, now)
    issued_at = before.envelope.issued_at if before and secret is None else seen_at
    if before is None or session._login:
        issued_at = now  # what begins late lasts from then, whenever its request began
    created_at = before.record.created_at if before else session._now
    record = Record(
        id=session.id,
        data=b"",
        version=before.record.version + 1 if before else 1,
        created_at=created_at,
        seen_at=seen_at,
        expires_at=config.expires_at(
            session._terms,
            created_at=created_at,
            seen_at=max(seen_at, min(issued_at, now)),
            now=now,
            unreturned=session._is_unreturned(),
        ),
        user_id=session._user_id,
    )
    if before is None:
        assert secret is not None  # noqa: S101 - a new session has a new secret
        return _known(
            record, Envelope(payload, hash_secret(secret), issued_at, (), session._terms, nonce, name), secret
        )
    held = before.envelope
    nonces = add_nonce(held.nonces, nonce)
    if secret is None:
        envelope = Envelope(payload, held.secret_hash, held.issued_at, held.previous, session._terms, nonces, name)
        return _known(record, envelope, before.secret)._replace(standing=before.standing)
    previous = held.replaced(until=now + config.grace, now=now, superseded=session._login)
    return _known(
        record, Envelope(payload, hash_secret(secret), issued_at, previous, session._terms, nonces, name), secret
    )


def issued(before: Known | None, after: Known, config: Config, now: datetime) -> Issue | None:
    """Return what the client is to be told of a commit: its token where that is new, or where the date of it moved."""
    if after.secret is None or after.standing != "current":
        return None
    max_age = _max_age(after, config, now)
    is_new = before is None or after.envelope.secret_hash != before.envelope.secret_hash
    moved = max_age is not None and before is not None and after.envelope.terms != before.envelope.terms
    return Issue(str(Token(after.record.id, after.secret)), max_age) if is_new or moved else None


def _known(record: Record, envelope: Envelope, secret: Secret | None) -> Known:
    return Known(replace(record, data=seal(envelope)), envelope, secret, "current")


def _seen_at(session: Session, now: datetime) -> datetime:
    """
    Return when the client was seen last.

    A log-in says when its own request began, whatever came since: by that, a revocation finds it. A job that opened the
    session by its ID has not seen the client at all.
    """
    before = session._known
    if before is None or session._login:
        return session._now
    return before.record.seen_at if before.secret is None else max(min(before.record.seen_at, now), session._now)


def _max_age(known: Known, config: Config, now: datetime) -> int | None:
    remember = known.envelope.terms.remember
    if not (config.persistent if remember is None else remember):
        return None
    end = config.absolute_end(known.envelope.terms, created_at=known.record.created_at, now=now)
    left = _LONGEST_MAX_AGE if end is None else min(end - now, _LONGEST_MAX_AGE)
    return max(0, math.ceil(left.total_seconds()))
