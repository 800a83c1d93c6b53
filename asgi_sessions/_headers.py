"""Response headers that a session has a say in. Each function changes the list it is given."""

from collections.abc import Iterable

from asgi_sessions._types import Headers


def add_vary(headers: Headers, names: Iterable[str]) -> None:
    """Name *names* in `Vary`, each once, whatever the application has put there."""
    held = {item.strip().lower() for value in _values(headers, b"vary") for item in value.split(b",")}
    missing = [name for name in names if name.lower().encode() not in held]
    if missing and b"*" not in held:
        headers.append((b"vary", ", ".join(missing).encode()))


def forbid_storing(headers: Headers) -> None:
    """Make `Cache-Control` say `no-store`: in place of anything weaker, and of nothing that says it already."""
    held = [item.strip().lower() for value in _values(headers, b"cache-control") for item in value.split(b",")]
    if b"no-store" not in held:
        headers[:] = [header for header in headers if header[0].lower() != b"cache-control"]
        headers.append((b"cache-control", b"no-store"))


def _values(headers: Headers, name: bytes) -> list[bytes]:
    return [value for held, value in headers if held.lower() == name]
