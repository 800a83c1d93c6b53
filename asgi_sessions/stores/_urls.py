"""
Stores by URL.

Rule 1: a URL may hold a password, anywhere but in its scheme. No message here shows more than the scheme and the one
        option it is about.
Rule 2: a scheme is an entry point of the group `asgi_sessions.stores`, its value a class with `from_url`. A third
        party's store is found in the same way as ours.
"""

import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol
from urllib.parse import SplitResult, parse_qsl, urlsplit

from asgi_sessions.errors import ConfigError
from asgi_sessions.stores._base import Store

_GROUP = "asgi_sessions.stores"
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):(.*)", re.ASCII | re.IGNORECASE | re.DOTALL)


class StoreClass(Protocol):
    """What an entry point of a store names."""

    def from_url(self, url: str) -> Store:
        """Return a store, not yet open."""
        ...


def store_from_url(url: str) -> Store:
    """
    Return the store that *url* names, not yet open: `memory:`, `sqlite:///sessions.db`, `redis://…`.

    An unknown scheme, a missing driver or a wrong option raises `ConfigError` with the fix.
    """
    found = {point.name: point for point in entry_points(group=_GROUP)}
    match = _SCHEME.fullmatch(url)
    scheme, rest = (match[1].lower(), match[2]) if match else ("", "")
    if scheme in found:
        return _load(found[scheme]).from_url(url)
    if scheme and (not rest or rest.startswith(("//", "?"))):
        raise ConfigError(f"No store has the scheme {scheme!r}.{_nearest(scheme, found)} Schemes: {_listed(found)}.")
    # Without "//" what stands before the colon may be a user's name: not shown.
    raise ConfigError(f'A store is named by a URL, such as "sqlite:///sessions.db". Schemes: {_listed(found)}.')


def _load(point: EntryPoint) -> StoreClass:
    """Import a store's class; a missing driver is told by the command that installs it."""
    try:
        loaded: StoreClass = point.load()
    except ImportError as error:
        package = point.dist.name if point.dist else "asgi-sessions"
        fix = f': pip install "{package}[{",".join(point.extras)}]"' if point.extras else ""
        raise ConfigError(f"The store {point.name!r} cannot be imported ({error}){fix}") from error
    return loaded


def split(url: str, **converters: Callable[[str], Any]) -> tuple[SplitResult, dict[str, Any]]:
    """
    Return the parts of *url* and its options, each through its converter.

    A converter raises `ValueError` with the form it accepts. An option without a converter, given twice or with a
    value that its converter refuses is a `ConfigError`.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        # Not chained: its message quotes the part that may hold a password.
        raise ConfigError(f"The {url.partition(':')[0]} URL is malformed: its host cannot be read") from None
    if parts.fragment:
        raise ConfigError(f'A "#" in a {parts.scheme} URL is written as "%23"')
    options: dict[str, Any] = {}
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        if name not in converters:
            known = f"Known: {_listed(converters)}" if converters else "It has none"
            raise ConfigError(f"The {parts.scheme} URL has no option {name!r}.{_nearest(name, converters)} {known}.")
        if name in options:
            raise ConfigError(f"The {parts.scheme} URL gives the option {name!r} twice")
        try:
            options[name] = converters[name](text)
        except ValueError as error:
            raise ConfigError(f"The {parts.scheme} URL's option {name!r}: {error}") from error
    return parts, options


def count(text: str) -> int:
    """Convert a whole number from 1."""
    if not re.fullmatch("0*[1-9][0-9]{0,17}", text):
        raise ValueError(f"{text!r} is not a whole number from 1")
    return int(text)


def _nearest(word: str, known: Iterable[str]) -> str:
    """Return a question that names what was probably meant, or nothing."""
    return "".join(f" Did you mean {near!r}?" for near in get_close_matches(word, known, n=1))


def _listed(names: Iterable[str]) -> str:
    """Return names as a list to read."""
    return ", ".join(sorted(names)) or "none"
