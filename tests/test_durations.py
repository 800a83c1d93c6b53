"""Durations as text."""

from datetime import timedelta

import pytest

from asgi_sessions import _durations


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("250ms", timedelta(milliseconds=250)),
        ("90s", timedelta(seconds=90)),
        ("30m", timedelta(minutes=30)),
        ("24h", timedelta(hours=24)),
        ("7d", timedelta(days=7)),
        ("45", timedelta(seconds=45)),
        ("0", timedelta(0)),
        ("1.5h", timedelta(minutes=90)),
        ("0.25", timedelta(milliseconds=250)),
        ("999999999d", timedelta(days=999_999_999)),
    ],
)
def test_each_form_is_understood(text: str, duration: timedelta) -> None:
    """
    A number with a unit, or alone for seconds, is that duration exactly.
    """
    assert _durations.parse(text) == duration


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "s",
        "5 s",
        "5S",
        "5min",
        "5w",
        "-5s",
        "+5s",
        "1e3",
        ".5s",
        "5.s",
        "1h30m",
        "\u0665s",
        "5s\n",
        "nan",
        "inf",
    ],
)
def test_anything_else_names_the_accepted_forms(text: str) -> None:
    """
    A duration that is not understood is an error that shows how to write one.
    """
    with pytest.raises(ValueError, match="250ms, 90s, 30m, 24h or 7d; a number alone is seconds"):
        _durations.parse(text)


@pytest.mark.parametrize("text", ["1000000000d", "9" * 400 + ".5s", "9" * 5000])
def test_a_duration_has_a_longest(text: str) -> None:
    """
    What no duration can hold is an error of the same kind, and does not repeat thousands of digits.
    """
    with pytest.raises(ValueError, match="the longest is 999999999d") as caught:
        _durations.parse(text)

    assert len(str(caught.value)) < 100
