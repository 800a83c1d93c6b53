"""
The only randomness and the only hash.

A token is `<id>.<secret>` in URL-safe base64 without padding. The ID is public and names the record; the secret proves
that the client may use it, and is at rest only as its SHA-256.
"""

import hashlib
import hmac
import re
import secrets
from typing import NamedTuple

_ID_BYTES = 16  # 128 bits: no two sessions of the world share one
_SECRET_BYTES = 32  # 256 bits; ASVS 7.2.3 asks for at least 128
_NONCE_BYTES = 8  # told apart only from the seven others of its record

# The last character of each half carries spare bits. Only zeros are issued, so each token has exactly one spelling.
_TOKEN = re.compile(r"([A-Za-z0-9_-]{21}[AQgw])\.([A-Za-z0-9_-]{42}[AEIMQUYcgkosw048])", re.ASCII)


class Secret(str):
    """The half of a token that proves it. Tracebacks and logs show reprs: this one shows nothing."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Return a form that is safe to log."""
        return "Secret(…)"


class Token(NamedTuple):
    """What a client holds. `str(token)` is for the client alone; its repr shows the public half."""

    id: str
    secret: Secret

    def __str__(self) -> str:
        """Return the token as the client sends it."""
        return f"{self.id}.{self.secret}"

    def __repr__(self) -> str:
        """Return a form that is safe to log."""
        return f"Token({self.id}.…)"


def new_id() -> str:
    """Return a new session ID, 22 characters."""
    return secrets.token_urlsafe(_ID_BYTES)


def new_secret() -> Secret:
    """Return a new secret, 43 characters."""
    return Secret(secrets.token_urlsafe(_SECRET_BYTES))


def new_nonce() -> bytes:
    """Return the mark by which a commit recognises itself."""
    return secrets.token_bytes(_NONCE_BYTES)


def parse(text: str) -> Token | None:
    """Return *text* as a token, or None where it has not the form of one we issue. Takes linear time."""
    match = _TOKEN.fullmatch(text)
    return Token(match[1], Secret(match[2])) if match else None


def hash_secret(secret: Secret) -> bytes:
    """Return what is kept of *secret*, 32 bytes."""
    return hashlib.sha256(secret.encode("ascii")).digest()


def same_hash(one: bytes, other: bytes) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(one, other)
