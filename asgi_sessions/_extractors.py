"""
How a token travels.

Rule 1: an extractor finds candidates and says nothing about their worth; only the form of a token is judged here.
Rule 2: nothing is unquoted, decoded or repaired: what is not exactly a token is none.
Rule 3: every scan takes linear time, whatever the client sends.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Protocol, get_args, runtime_checkable

from asgi_sessions._token import Token, parse
from asgi_sessions._types import Headers, Scope
from asgi_sessions.errors import ConfigError

SameSite = Literal["lax", "strict", "none"]
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)  # RFC 9110 "token": what a cookie or header may be called


class Extractor(Protocol):
    """A way for a token to arrive."""

    @property
    def vary(self) -> str | None:
        """The request header that it reads, named in `Vary`; None where there is none."""
        ...

    def extract(self, scope: Scope) -> Iterable[str]:
        """Return every candidate of the request, in any form: what is not a token is ignored."""
        ...


@runtime_checkable
class Answers(Protocol):
    """An extractor that can also send a token back."""

    def attach(self, headers: Headers, token: str, max_age: int | None) -> None:
        """Add *token* to the response's headers, for *max_age* seconds or as long as the client likes."""
        ...

    def expire(self, headers: Headers) -> None:
        """Tell the client to forget its token."""
        ...


class Found(NamedTuple):
    """What the extractors make of a request."""

    token: Token | None
    """None for a stranger, and where two tokens disagree."""
    way: Extractor | None
    ambiguous: bool


def find(extractors: Sequence[Extractor], scope: Scope) -> Found:
    """Return the one token of the request. Two that differ are none: one of them was planted."""
    token, way = None, None
    for extractor in extractors:
        for candidate in extractor.extract(scope):
            other = parse(candidate)
            if other is None or other == token:
                continue
            if token is not None:
                return Found(None, None, ambiguous=True)
            token, way = other, extractor
    return Found(token, way, ambiguous=False)


@dataclass(frozen=True, slots=True)
class Cookie:
    """A cookie, `HttpOnly` always. Made by `cookie()`."""

    name: str | None = None
    secure: bool = True
    samesite: SameSite = "lax"
    path: str = "/"
    domain: str | None = None
    partitioned: bool = False
    persistent: bool = False

    def __post_init__(self) -> None:
        """Refuse what browsers would drop or OWASP advises against."""
        for problem, message in (
            (self.samesite not in get_args(SameSite), f"samesite={self.samesite!r}: use 'lax', 'strict' or 'none'"),
            (self.samesite == "none" and not self.secure, "samesite='none' needs secure=True: browsers drop it else"),
            (self.partitioned and not self.secure, "partitioned=True needs secure=True: browsers drop it else"),
            (not self.path.startswith("/") or _unsafe(self.path), f"path={self.path!r}: begin it with '/'"),
            (self.domain is not None and not _NAME.fullmatch(self.domain), f"domain={self.domain!r}: use a host name"),
        ):
            if problem:
                raise ConfigError(f"cookie: {message}")
        if self.name is not None:
            self._check_name(self.name)

    def _check_name(self, name: str) -> None:
        prefix = name.lower()  # browsers compare prefixes without regard to case
        if not _NAME.fullmatch(name):
            raise ConfigError(f"cookie: name={name!r}: use letters, digits, '-' and '_'")
        if prefix.startswith("__host-") and (not self.secure or self.domain is not None or self.path != "/"):
            raise ConfigError(
                f"cookie: name={name!r}: '__Host-' needs secure=True, path='/' and no domain; "
                "use '__Secure-' with a domain or a path"
            )
        if prefix.startswith("__secure-") and not self.secure:
            raise ConfigError(f"cookie: name={name!r}: '__Secure-' needs secure=True; leave the prefix out without it")

    def named(self, name: str) -> "Cookie":
        """Return this cookie with its name: the one given to it, else *name* behind the strongest prefix that fits."""
        if self.name is not None:
            return self
        if not self.secure:
            return replace(self, name=name)
        return replace(self, name=("__Host-" if self.domain is None and self.path == "/" else "__Secure-") + name)

    @property
    def vary(self) -> str:
        """The header it reads."""
        return "Cookie"

    def extract(self, scope: Scope) -> list[str]:
        """Return the value of every cookie of exactly this name. Only spaces and tabs around a pair are dropped."""
        wanted = f"{self.name}=".encode("ascii")
        return [
            pair.strip(b" \t")[len(wanted) :].decode("latin-1")
            for key, value in scope["headers"]
            if key == b"cookie" and wanted in value
            for pair in value.split(b";")
            if pair.strip(b" \t").startswith(wanted)
        ]

    def attach(self, headers: Headers, token: str, max_age: int | None) -> None:
        """Set the cookie."""
        headers.append((b"set-cookie", self._line(token, max_age)))

    def expire(self, headers: Headers) -> None:
        """Delete the cookie."""
        headers.append((b"set-cookie", self._line("", 0)))

    def _line(self, value: str, max_age: int | None) -> bytes:
        parts = [f"{self.name}={value}", f"Path={self.path}", "HttpOnly", f"SameSite={self.samesite.capitalize()}"]
        if max_age is not None:
            parts.append(f"Max-Age={max_age}")
        if self.domain is not None:
            parts.append(f"Domain={self.domain}")
        if self.secure:
            parts.append("Secure")
        if self.partitioned:
            parts.append("Partitioned")
        return "; ".join(parts).encode("ascii")


@dataclass(frozen=True, slots=True)
class Header:
    """A header of the request, sent back in one of the same name. Made by `header()`."""

    name: str

    def __post_init__(self) -> None:
        """Refuse what is no header's name."""
        if not _NAME.fullmatch(self.name):
            raise ConfigError(f"header: name={self.name!r}: use a header's name, such as 'X-Session'")

    @property
    def vary(self) -> str:
        """The header it reads."""
        return self.name

    def extract(self, scope: Scope) -> list[str]:
        """Return the value of every header of this name."""
        wanted = self.name.lower().encode("ascii")
        return [value.decode("latin-1") for key, value in scope["headers"] if key == wanted]

    def attach(self, headers: Headers, token: str, max_age: int | None) -> None:  # noqa: ARG002 - headers carry no date
        """Send the token."""
        headers.append((self.name.lower().encode("ascii"), token.encode("ascii")))

    def expire(self, headers: Headers) -> None:
        """Send the header without a value."""
        headers.append((self.name.lower().encode("ascii"), b""))


@dataclass(frozen=True, slots=True)
class Bearer:
    """`Authorization: Bearer <token>`, read only. Made by `bearer()`."""

    @property
    def vary(self) -> str:
        """The header it reads."""
        return "Authorization"

    def extract(self, scope: Scope) -> list[str]:
        """Return what follows the scheme, in any case of letters."""
        return [
            value[7:].strip(b" ").decode("latin-1")
            for key, value in scope["headers"]
            if key == b"authorization" and value[:7].lower() == b"bearer "
        ]


@dataclass(frozen=True, slots=True)
class Query:
    """A parameter of the query string, read only. Made by `query()`."""

    name: str

    @property
    def vary(self) -> None:
        """None: caches tell URLs apart by themselves."""
        return

    def extract(self, scope: Scope) -> list[str]:
        """Return the value of every parameter of exactly this name."""
        wanted = f"{self.name}=".encode()
        pairs = scope.get("query_string", b"").split(b"&")
        return [pair[len(wanted) :].decode("latin-1") for pair in pairs if pair.startswith(wanted)]


@dataclass(frozen=True, slots=True)
class Custom:
    """A function of the application's own, read only."""

    function: Callable[[Scope], str | None]
    vary: str | None = None

    def extract(self, scope: Scope) -> list[str]:
        """Return what the function finds."""
        found = self.function(scope)
        return [] if found is None else [found]


def cookie(  # noqa: PLR0913 - a cookie has these attributes
    name: str | None = None,
    *,
    secure: bool = True,
    samesite: SameSite = "lax",
    path: str = "/",
    domain: str | None = None,
    partitioned: bool = False,
    persistent: bool = False,
) -> Cookie:
    """
    Carry the token in a cookie, `HttpOnly` always.

    Args:
        name: as it stands on the wire. By default the `Config`'s name behind `__Host-`, with which a browser lets no
            other host and no path set it; behind `__Secure-` where a *domain* or *path* is given.
        persistent: keep it across a restart of the browser, for what is left of the absolute timeout, at most 400
            days (RFC 6265bis). `session.login(remember=…)` decides it for one session.
    """
    return Cookie(name, secure, samesite, path, domain, partitioned, persistent)


def header(name: str) -> Header:
    """Carry the token in a request header, and back in a response header of the same name."""
    return Header(name)


def bearer() -> Bearer:
    """Read the token from `Authorization: Bearer …`. `await session.save()` returns a new one for you to send."""
    return Bearer()


def query(name: str) -> Query:
    """Read the token from the query string. A risk: URLs end up in logs and histories (ASVS 14.2.1)."""
    return Query(name)


def resolve(given: Any, name: str) -> tuple[Extractor, ...]:
    """Return what a `Config` was given as extractors: one or several; objects, functions, `"cookie:session_id"`."""
    several = given if isinstance(given, (tuple, list)) else (given,)
    if not several:
        raise ConfigError("extractors=(): name at least one, such as cookie()")
    return tuple(_resolve_one(one, name) for one in several)


def _resolve_one(given: Any, name: str) -> Extractor:
    match given:
        case str():
            kind, _, detail = given.partition(":")
            match kind:
                case "cookie":
                    return cookie(detail or None).named(name)
                case "header" if detail:
                    return header(detail)
                case "query" if detail:
                    return query(detail)
                case "bearer" if not detail:
                    return bearer()
            raise ConfigError(
                f"extractors={given!r}: use 'cookie', 'cookie:NAME', 'header:NAME', 'query:NAME' or 'bearer'"
            )
        case Cookie():
            return given.named(name)
        case _ if hasattr(given, "extract") and hasattr(given, "vary"):
            extractor: Extractor = given
            return extractor
        case _ if callable(given):
            return Custom(given)
    raise ConfigError(f"extractors={given!r}: use an extractor, a function of the scope, or a text such as 'cookie'")


def _unsafe(text: str) -> bool:
    return not text.isascii() or not text.isprintable() or ";" in text
