"""`Vary` and `Cache-Control`: added to what is there, never weakened."""

import pytest

from asgi_sessions._headers import add_vary, forbid_storing


@pytest.mark.parametrize(
    ("held", "names", "after"),
    [
        ([], ["Cookie"], ["Cookie"]),
        ([], ["Cookie", "X-S"], ["Cookie, X-S"]),
        (["Accept"], ["Cookie"], ["Accept", "Cookie"]),
        (["accept,COOKIE"], ["Cookie"], ["accept,COOKIE"]),
        (["Accept", "cookie"], ["Cookie", "X-S"], ["Accept", "cookie", "X-S"]),
        (["*"], ["Cookie"], ["*"]),
        (["Accept"], [], ["Accept"]),
    ],
)
def test_vary_names_each_header_once(held: list[str], names: list[str], after: list[str]) -> None:
    """In any case of letters; `*` says it all."""
    headers = [(b"Vary", each.encode()) for each in held]

    add_vary(headers, names)

    assert [value.decode() for _, value in headers] == after


@pytest.mark.parametrize(
    ("held", "after"),
    [
        ([], ["no-store"]),
        (["public, max-age=60"], ["no-store"]),
        (["no-cache", "private"], ["no-store"]),
        (["No-Store, private"], ["No-Store, private"]),
        (["private", "no-store"], ["private", "no-store"]),
    ],
)
def test_no_store_replaces_what_is_weaker(held: list[str], after: list[str]) -> None:
    """And leaves what says it already."""
    headers = [(b"X", b"y"), *((b"Cache-Control", each.encode()) for each in held)]

    forbid_storing(headers)

    assert headers[0] == (b"X", b"y")
    assert [value.decode() for _, value in headers[1:]] == after
