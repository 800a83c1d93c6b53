"""
The only caller of the clock.

Everything else takes the time as an argument or is handed a `Clock`, so that no test waits for an expiry.
"""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
"""Returns the current instant as an aware datetime."""


def now() -> datetime:
    """Return the current instant, aware, in UTC."""
    return datetime.now(UTC)
