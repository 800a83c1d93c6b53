"""
The only caller of the clock.

Everything else takes the time as an argument or is handed a `Clock`, so that no test waits for an expiry.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]
"""Returns the current instant as an aware datetime."""


def now() -> datetime:
    """Return the current instant, aware, in UTC."""
    return datetime.now(UTC)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_microseconds(instant: datetime) -> int:
    """Return an aware *instant* as microseconds since 1970, exactly."""
    return (instant - _EPOCH) // _MICROSECOND


def from_microseconds(microseconds: int) -> datetime:
    """Return the instant *microseconds* since 1970, in UTC. Inverse of `to_microseconds`."""
    return _EPOCH + timedelta(microseconds=microseconds)
