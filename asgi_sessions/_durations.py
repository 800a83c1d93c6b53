"""Durations as text, for URLs, environment variables and the command line."""

import re
from datetime import timedelta

_UNITS = {"ms": "milliseconds", "": "seconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|)", re.ASCII)


def parse(text: str) -> timedelta:
    """
    Return the duration that *text* names: `250ms`, `90s`, `30m`, `24h`, `7d`; a number alone is seconds.

    Anything else raises `ValueError`, whose message names the accepted forms. A sign is none of them.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a duration: write {ACCEPTED}")
    number, unit = match.groups()
    try:
        return timedelta(**{_UNITS[unit]: float(number) if "." in number else int(number)})
    except (OverflowError, ValueError) as error:  # int() refuses more than 4300 digits
        raise ValueError(f"A duration of {len(number)} digits is too long: the longest is 999999999d") from error


ACCEPTED = "a number and a unit, such as 250ms, 90s, 30m, 24h or 7d; a number alone is seconds"
"""The forms that `parse` takes, for messages."""
