"""How tokens are found: byte for byte, in linear time, and nothing repaired."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_sessions._extractors import Custom, bearer, cookie, find, header, query
from asgi_sessions._token import Secret, Token, new_id, new_secret, parse

TOKEN = Token(
    "YLxn3o9GKJHfAUGGoe30Iw", Secret("V0xze_GM-COKKg87t8WP_EqfiIIvJ7aYd4SVrVtU4qQ")
)  # the same in every run: it is in the names of tests
GOOD = str(TOKEN).encode()
COOKIE = cookie().named("session")


def scope(*headers: tuple[bytes, bytes], query_string: bytes = b"") -> dict[str, Any]:
    """Return what an extractor looks at."""
    return {"type": "http", "headers": list(headers), "query_string": query_string}


def test_a_token_is_its_own_text() -> None:
    """What is issued is what is parsed."""
    for _ in range(100):
        token = Token(new_id(), new_secret())
        assert parse(str(token)) == token


@pytest.mark.parametrize("position", range(66))
def test_a_token_has_one_spelling(position: int) -> None:
    """Changing any one character to any other never yields a second spelling of the same bits."""
    import base64  # noqa: PLC0415 - only here bits matter

    def bits(text: str) -> bytes:
        return b".".join(base64.urlsafe_b64decode(part + "==") for part in text.split("."))

    text = str(TOKEN)
    for other in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_":
        changed = text[:position] + other + text[position + 1 :]
        if changed != text and parse(changed):
            assert bits(changed) != bits(text)


@given(st.text())
def test_no_text_makes_the_token_check_fail(text: str) -> None:
    """Anything may arrive."""
    assert parse(text) is None
    assert parse(str(TOKEN) + text) == (TOKEN if text == "" else None)


@pytest.mark.parametrize(
    "line",
    [
        b"__Host-session=" + GOOD,
        b"a=b; __Host-session=" + GOOD,
        b"a=b;__Host-session=" + GOOD + b";c=d",
        b"\t __Host-session=" + GOOD + b" \t; c",
        b"=; ;;__Host-session=" + GOOD,
        b"nameless; __Host-session=" + GOOD,
    ],
)
def test_a_cookie_is_found_among_others(line: bytes) -> None:
    """Whatever else the header holds."""
    assert find([COOKIE], scope((b"cookie", line))).token == TOKEN


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"__Host-session",
        b"__Host-session=",
        b'__Host-session="' + GOOD + b'"',
        b"__host-session=" + GOOD,
        b"x__Host-session=" + GOOD,
        b"\xa0__Host-session=" + GOOD,
        b"\x85__Host-session=" + GOOD,
        b"__Host-session =" + GOOD,
        b"__Host-session= " + GOOD[:40],
        b"__Host-session=" + GOOD + b"\xa0",
        b"__Host-session=" + GOOD.replace(b".", b"%2E"),
        b"__Host-session=\xc3\xa4" + GOOD,
        b"a=__Host-session=" + GOOD,
        b"=__Host-session=" + GOOD,
        b"__Host-session=" + GOOD + b",__Host-session=" + GOOD,
    ],
)
def test_what_is_not_exactly_ours_is_no_token(line: bytes) -> None:
    """No space of Unicode, no quotes, no other case, no escapes: other parsers' repairs are how cookies get planted."""
    assert find([COOKIE], scope((b"cookie", line))) == (None, None, False)


def test_several_cookie_headers_are_read() -> None:
    """HTTP/2 may split them."""
    found = find([COOKIE], scope((b"cookie", b"a=b"), (b"x", b"y"), (b"cookie", b"__Host-session=" + GOOD)))

    assert found == (TOKEN, COOKIE, False)


def test_a_planted_second_cookie_is_noticed() -> None:
    """A malformed one is not: it could never have been used."""
    other = str(Token(new_id(), new_secret())).encode()
    pair = b"__Host-session="

    assert find([COOKIE], scope((b"cookie", pair + GOOD + b"; " + pair + other))).ambiguous
    assert find([COOKIE], scope((b"cookie", pair + b"junk; " + pair + GOOD))).token == TOKEN
    assert find([COOKIE], scope((b"cookie", pair + GOOD + b"; " + pair + GOOD))).token == TOKEN


def test_a_huge_header_takes_linear_time() -> None:
    """Twice the bytes make twice the pieces, of each kind that is quadratic elsewhere."""

    class Counting(bytes):
        """Bytes that count how often they are cut."""

        cuts = 0

        def split(self, *args: Any) -> list[bytes]:
            """Count the pieces."""
            pieces = bytes.split(self, *args)
            Counting.cuts += len(pieces)
            return pieces

    steps = []
    for size in (1 << 15, 1 << 16):
        for filler in (b";", b"\\", b'"', b" ", b"__Host-session=", b"a=b; "):
            Counting.cuts = 0
            line = Counting(b"__Host-session=" + filler * (size // len(filler)))
            assert find([COOKIE], scope((b"cookie", line))).token is None
            assert Counting.cuts <= len(line)
            steps.append(Counting.cuts)

    half = len(steps) // 2
    assert all(large <= 2 * small + 2 for small, large in zip(steps[:half], steps[half:], strict=True))


def _reference(line: bytes, name: bytes) -> list[bytes]:
    """Return the values of cookies called *name*, in the plainest way."""
    found = []
    for piece in line.split(b";"):
        pair = piece
        while pair[:1] in (b" ", b"\t"):
            pair = pair[1:]
        while pair[-1:] in (b" ", b"\t"):
            pair = pair[:-1]
        if pair[: len(name) + 1] == name + b"=":
            found.append(pair[len(name) + 1 :])
    return found


pieces = st.sampled_from([b"__Host-session", b"=", b";", b" ", b"\t", b'"', b"\xa0", b"\\", b",", b"a", GOOD, b"\x00"])


@given(st.lists(pieces | st.binary(max_size=3)).map(b"".join))
def test_the_parser_agrees_with_a_plain_one(line: bytes) -> None:
    """For any header, the same values and no exception."""
    found = COOKIE.extract(scope((b"cookie", line)))

    assert [each.encode("latin-1") for each in found] == _reference(line, b"__Host-session")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"Bearer " + GOOD, True),
        (b"bEARER  " + GOOD, True),
        (b"Bearer" + GOOD, False),
        (b"Basic " + GOOD, False),
        (b"Bearer " + GOOD + b" x", False),
        (b"Bearer\t" + GOOD, False),
        (b"", False),
    ],
)
def test_a_bearer_token_is_found(value: bytes, found: bool) -> None:
    """The scheme in any case, then spaces, then the token."""
    assert find([bearer()], scope((b"authorization", value))).token == (TOKEN if found else None)


def test_a_header_and_a_parameter_are_found() -> None:
    """By exactly their name."""
    assert find([header("X-Session")], scope((b"x-session", GOOD))).token == TOKEN
    assert find([header("X-Session")], scope((b"x-sessions", GOOD))).token is None
    assert find([query("s")], scope(query_string=b"as=1&s=" + GOOD)).token == TOKEN
    assert find([query("s")], scope(query_string=b"ss=" + GOOD)).token is None
    assert find([query("s")], {"headers": []}).token is None


def test_a_function_may_find_a_token() -> None:
    """Of the application's own, or None."""
    assert find([Custom(lambda _: str(TOKEN))], scope()).token == TOKEN
    assert find([Custom(lambda _: None)], scope()).token is None


def test_each_way_names_the_header_it_reads() -> None:
    """For `Vary`."""
    assert [way.vary for way in (COOKIE, header("X-S"), bearer(), query("s"), Custom(lambda _: None))] == [
        *("Cookie", "X-S", "Authorization", None, None)
    ]


def test_nothing_found_shows_a_token() -> None:
    """What a traceback prints of a request is safe to keep."""
    found = find([COOKIE], scope((b"cookie", b"__Host-session=" + GOOD)))

    assert TOKEN.secret[:10] not in repr(found)


def test_a_cookie_line_has_every_attribute() -> None:
    """In one place, from values that have been checked."""
    headers: list[tuple[bytes, bytes]] = []
    way = cookie(domain="example.org", samesite="none", partitioned=True, path="/shop").named("session")
    way.attach(headers, "token", 60)

    ((name, line),) = headers
    assert name == b"set-cookie"
    assert line.decode().split("; ") == [
        *("__Secure-session=token", "Path=/shop", "HttpOnly", "SameSite=None"),
        *("Max-Age=60", "Domain=example.org", "Secure", "Partitioned"),
    ]
