"""What a record's data hold: everything comes back, nothing of it is readable as a secret, junk is refused."""

from datetime import UTC, datetime, timedelta

import ormsgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_sessions._clock import from_microseconds, to_microseconds
from asgi_sessions._envelope import Envelope, Previous, Terms, add_nonce, seal, unseal
from asgi_sessions._token import Secret, hash_secret, new_nonce, new_secret
from asgi_sessions.errors import DecodeError

T0 = datetime(2026, 1, 1, tzinfo=UTC)
instants = st.datetimes(datetime(1900, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - aware by `timezones`
spans = st.timedeltas(timedelta(milliseconds=1), timedelta(days=36500))
hashes = st.binary(min_size=32, max_size=32)
envelopes = st.builds(
    Envelope,
    payload=st.binary(),
    secret_hash=hashes,
    issued_at=instants,
    previous=st.lists(st.builds(Previous, hashes, instants, st.booleans()), max_size=4).map(tuple),
    terms=st.builds(Terms, st.none() | instants, st.none() | spans, st.none() | instants, st.none() | st.booleans()),
    nonces=st.lists(st.binary(min_size=8, max_size=8), max_size=8).map(b"".join),
    name=st.text(max_size=8),
)


@given(envelopes)
def test_an_envelope_comes_back_as_it_was(envelope: Envelope) -> None:
    """Every field, to the microsecond."""
    assert unseal(seal(envelope)) == envelope


@given(instants)
def test_an_instant_comes_back_as_it_was(instant: datetime) -> None:
    """As a whole number, exactly."""
    assert from_microseconds(to_microseconds(instant)) == instant


@given(st.binary() | envelopes.map(seal).flatmap(lambda data: st.integers(0, len(data)).map(lambda cut: data[:cut])))
def test_junk_is_refused_and_nothing_else_is_raised(data: bytes) -> None:
    """Corrupt, cut off or foreign."""
    try:
        unseal(data)
    except DecodeError:
        return
    assert data == seal(unseal(data))


@pytest.mark.parametrize(
    "fields",
    [
        [2, b"", b"", 0, [], None, None, None, None, b"", "session"],
        [1, b"", b"", 0, [], None, None, None, None, b""],
        [1, "", b"", 0, [], None, None, None, None, b"", "session"],
        [1, b"", b"", 10**18 * 9, [], None, None, None, None, b"", "session"],
        [1, b"", b"", 0, [[b""]], None, None, None, None, b"", "session"],
        [1, b"", b"", 0, [5], None, None, None, None, b"", "session"],
        [1, b"", b"", 0, [], "now", None, None, None, b"", "session"],
        {"a": 1},
    ],
)
def test_what_has_not_our_form_is_refused(fields: object) -> None:
    """Another version, other types, instants that do not exist."""
    with pytest.raises(DecodeError, match="not a session's data"):
        unseal(ormsgpack.packb(fields))


def test_a_secret_stands_only_as_its_hash() -> None:
    """Who reads the record cannot make the token."""
    secret = new_secret()
    data = seal(Envelope(b"", hash_secret(secret), T0))

    assert secret.encode() not in data
    assert secret[:8].encode() not in data


def test_each_secret_opens_what_it_may() -> None:
    """The current one, the previous one for a while, no other."""
    current, previous, other = new_secret(), new_secret(), Secret("x" * 43)
    until = T0 + timedelta(seconds=10)
    envelope = Envelope(b"", hash_secret(current), T0, (Previous(hash_secret(previous), until, superseded=False),))

    assert envelope.standing(current, T0) == "current"
    assert envelope.standing(previous, T0) == "previous"
    assert envelope.standing(previous, until) is None
    assert envelope.standing(other, T0) is None


def test_a_log_in_supersedes_every_secret_before_it() -> None:
    """Also one that a regeneration had replaced a moment ago; what is over, and more than four, is forgotten."""
    until, secrets = T0 + timedelta(seconds=10), [new_secret() for _ in range(7)]
    envelope = Envelope(b"", hash_secret(secrets[0]), T0)
    for number, secret in enumerate(secrets[1:]):
        previous = envelope.replaced(until=until, now=T0, superseded=number == 4)
        envelope = Envelope(b"", hash_secret(secret), T0, previous)

    standings = [envelope.standing(secret, T0) for secret in secrets]
    assert standings == [None, None, "superseded", "superseded", "superseded", "previous", "current"]
    assert len(envelope.replaced(until=until, now=until, superseded=False)) == 1


def test_the_last_eight_nonces_are_kept() -> None:
    """By them a commit recognises itself, on whole nonces only."""
    nonces = [new_nonce() for _ in range(10)]
    held = b""
    for nonce in nonces:
        held = add_nonce(held, nonce)
    envelope = Envelope(b"", b"", T0, nonces=held)

    assert [envelope.has(nonce) for nonce in nonces] == [False] * 2 + [True] * 8
    assert not envelope.has(held[4:12])
    assert not Envelope(b"", b"", T0).has(nonces[0])
