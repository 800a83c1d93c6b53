"""What a store keeps."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """
    One session as a store sees it: bytes under an ID, with a version.

    Times are aware and kept to the microsecond.
    """

    id: str
    """The public session ID: any text to a store, 22 characters where we issue it."""
    data: bytes
    """Opaque to a store."""
    version: int
    """From 1; each update adds 1."""
    created_at: datetime
    seen_at: datetime
    """When the request began that wrote or touched it last. A revocation of its user ends what was seen before."""
    expires_at: datetime
    """From this instant on it is gone."""
    user_id: str | None = None
    """Whose session: up to 255 characters, neither empty nor with a NUL."""


@dataclass(frozen=True, slots=True)
class Limit:
    """How many live sessions a user may have, the one about to be written among them."""

    count: int
    when_full: Literal["end-oldest", "refuse"]
    """End those created first until there is room, or raise `TooManySessionsError` and write nothing."""
