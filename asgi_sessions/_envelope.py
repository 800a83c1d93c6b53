"""
What a record's data holds: the payload, and what the manager must know before it reads it.

Rule 1: a secret stands here only as its hash.
Rule 2: the payload stays bytes, so that a session nobody reads is never decoded.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

import ormsgpack

from asgi_sessions._clock import from_microseconds, to_microseconds
from asgi_sessions._token import Secret, hash_secret, same_hash
from asgi_sessions.errors import DecodeError

_FORMAT = 1
_NONCE_BYTES = 8
_PREVIOUS_KEPT = 4  # replacements within one grace period: a log-in and a regeneration, each submitted twice
_NONCES_KEPT = 8  # commits by which a retry may be late and still recognise itself
_MICROSECOND = timedelta(microseconds=1)

Standing = Literal["current", "previous", "superseded"]


class Previous(NamedTuple):
    """The secret before this one, which still opens the session for a moment."""

    secret_hash: bytes
    until: datetime
    superseded: bool
    """Replaced by a log-in: until then it opens an empty session, not this one."""


class Terms(NamedTuple):
    """What a session keeps for itself beside its data. None stands for what the `Config` says."""

    authenticated_at: datetime | None = None
    idle_timeout: timedelta | None = None
    absolute_end: datetime | None = None
    remember: bool | None = None

    def onto(self, theirs: "Terms", *, base: "Terms") -> "Terms":
        """Return *theirs*, but for what was changed here against *base*."""
        return theirs._replace(**{name: now for name, now in self._asdict().items() if now != getattr(base, name)})


@dataclass(frozen=True, slots=True)
class Envelope:
    """The data of a record, opened."""

    payload: bytes
    secret_hash: bytes
    issued_at: datetime
    """When the secret was made: a session not seen since has not been returned by its client."""
    previous: tuple[Previous, ...] = ()
    """Newest first."""
    terms: Terms = Terms()  # noqa: RUF009 - a tuple: it cannot change
    nonces: bytes = b""
    """Of the last commits, one after the other, newest last."""
    name: str = "session"
    """Of the `Config`: a token of one middleware opens nothing in another, though both keep their records together."""

    def standing(self, secret: Secret, now: datetime) -> Standing | None:
        """Return what *secret* opens at the instant *now*; None where it is not one of this session's."""
        presented = hash_secret(secret)
        if same_hash(presented, self.secret_hash):
            return "current"
        for previous in self.previous:
            if same_hash(presented, previous.secret_hash) and now < previous.until:
                return "superseded" if previous.superseded else "previous"
        return None

    def replaced(self, *, until: datetime, now: datetime, superseded: bool) -> tuple[Previous, ...]:
        """Return what is to be known of the secrets before the next one: a log-in supersedes them all."""
        return (
            Previous(self.secret_hash, until, superseded),
            *(each._replace(superseded=each.superseded or superseded) for each in self.previous if now < each.until),
        )[:_PREVIOUS_KEPT]

    def has(self, nonce: bytes) -> bool:
        """Return whether the commit that carried *nonce* is one of the last in here."""
        held = self.nonces
        return any(held[at : at + _NONCE_BYTES] == nonce for at in range(0, len(held), _NONCE_BYTES))


def add_nonce(nonces: bytes, nonce: bytes) -> bytes:
    """Return *nonces* with one more, the oldest dropped."""
    return (nonces + nonce)[-_NONCE_BYTES * _NONCES_KEPT :]


def seal(envelope: Envelope) -> bytes:
    """Return *envelope* as bytes for a record."""
    terms = envelope.terms
    return ormsgpack.packb(
        [
            _FORMAT,
            envelope.payload,
            envelope.secret_hash,
            to_microseconds(envelope.issued_at),
            [[each.secret_hash, to_microseconds(each.until), each.superseded] for each in envelope.previous],
            terms.authenticated_at and to_microseconds(terms.authenticated_at),
            terms.idle_timeout and terms.idle_timeout // _MICROSECOND,
            terms.absolute_end and to_microseconds(terms.absolute_end),
            terms.remember,
            envelope.nonces,
            envelope.name,
        ]
    )


def unseal(data: bytes) -> Envelope:
    """Return the envelope in *data*; `DecodeError` where it is corrupt, foreign or of a newer version."""
    try:
        match ormsgpack.unpackb(data):
            case [
                1,
                bytes(payload),
                bytes(secret_hash),
                int(issued),
                list(previous),
                auth,
                idle,
                end,
                remember,
                bytes(nonces),
                str(name),
            ]:
                return Envelope(
                    payload=payload,
                    secret_hash=secret_hash,
                    issued_at=from_microseconds(issued),
                    previous=tuple(_previous(*each) for each in previous),
                    terms=Terms(
                        None if auth is None else from_microseconds(auth),
                        None if idle is None else idle * _MICROSECOND,
                        None if end is None else from_microseconds(end),
                        remember,
                    ),
                    nonces=nonces,
                    name=name,
                )
            case _:
                message = "not a session's data, or written by a newer version of asgi_sessions"
                raise DecodeError(message)
    except (ValueError, TypeError, OverflowError) as error:
        message = f"not a session's data: {error}"
        raise DecodeError(message) from error


def _previous(secret_hash: Any, until: Any, superseded: Any) -> Previous:
    return Previous(bytes(secret_hash), from_microseconds(until), bool(superseded))
