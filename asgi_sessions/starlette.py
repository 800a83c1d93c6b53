"""
Starlette's own keywords for `SessionMiddleware`, so that changing the import is the whole migration.

    from asgi_sessions.starlette import SessionMiddleware

    app.add_middleware(SessionMiddleware, secret_key="…", session_cookie="sid", max_age=3600)

Rule 1: what is written means what it means in Starlette; what is not has the default of `Config`, not Starlette's.
Rule 2: every keyword becomes a setting of `Config`, which judges it; nothing is decided here.
"""

import os
from datetime import timedelta
from typing import Any

from asgi_sessions._config import Config, check_span
from asgi_sessions._extractors import Cookie, SameSite
from asgi_sessions._manager import SessionManager
from asgi_sessions._middleware import SessionMiddleware as _SessionMiddleware
from asgi_sessions._middleware import session_from
from asgi_sessions._types import ASGIApp
from asgi_sessions.errors import ConfigError
from asgi_sessions.stores._base import Store

__all__ = ["SessionMiddleware", "session_from"]

_LEAST_ABSOLUTE_TIMEOUT = timedelta(hours=24)  # the `Config`'s: a short `max_age` does not mean to end busy sessions


class SessionMiddleware(_SessionMiddleware):
    """
    Gives each request its session, configured in Starlette's words.

    Cookies that Starlette's middleware has signed are of no use here: on the day of the change everybody logs in again.

    Args:
        app: the application inside.
        secret_key: accepted and not used: a token is a random number, which needs no signature.
        session_cookie: the cookie's exact name. None: `__Host-session`, or what `path`, `domain` and `https_only` leave
            of it. Handlers find the session at `request.session` either way.
        max_age: ends a session so many seconds after its last request, and the cookie outlives the browser. None: the
            cookie ends with the browser, the session by the timeouts of `Config`.
        path: where the cookie is sent.
        same_site: whether it is sent along from other sites.
        https_only: unlike Starlette's, on; False is obeyed, with a `SessionWarning`.
        domain: sends it to subdomains, too.
        partitioned: keeps it apart for each site that embeds this one.
        config: the settings in our own words, in place of all those above.
        manager: a manager made beforehand, in place of all those above.
        store: a store or its URL. None: the variable `SESSION_STORE`, else `"memory:"`, which each worker has for
            itself and a restart empties. Starlette's cookies outlive both: so does `"sqlite:///sessions.db"`.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - Starlette's own keywords, in its order
        self,
        app: ASGIApp,
        secret_key: object = None,  # noqa: ARG002 - accepted so that a call need not change
        session_cookie: str | None = None,
        max_age: float | None = None,
        path: str = "/",
        same_site: SameSite = "lax",
        https_only: bool = True,  # noqa: FBT001, FBT002 - Starlette takes it by position, too
        domain: str | None = None,
        partitioned: bool = False,  # noqa: FBT001, FBT002 - the same
        *,
        config: Config | None = None,
        manager: SessionManager | None = None,
        store: Store | str | None = None,
    ) -> None:
        """Wrap *app*. The store is opened when the application starts, or by the first request that needs it."""
        persistent = max_age is not None
        cookie = Cookie(session_cookie, https_only, same_site, path, domain, partitioned, persistent)
        if config is None and manager is None:
            store = os.environ.get("SESSION_STORE", "memory:") if store is None else store
            config = Config(store=store, extractors=cookie, **_timeouts(max_age))
        elif cookie != Cookie() or store is not None:
            message = "SessionMiddleware: a config or a manager says it all: write the cookie, max_age and store there"
            raise ConfigError(message)
        super().__init__(app, config, manager=manager)


def _timeouts(max_age: float | None) -> dict[str, Any]:
    """Return the timeouts that *max_age* asks for, or refuse it under its own name."""
    if max_age is None:
        return {}
    if isinstance(max_age, bool) or not isinstance(max_age, (int, float)):
        raise ConfigError(f"max_age={max_age!r}: use a number of seconds, or None: the cookie ends with the browser")
    try:
        idle = check_span("max_age", timedelta(seconds=max_age))
    except (OverflowError, ValueError):  # of `timedelta`; a `ConfigError` is a `ValueError`, too
        raise ConfigError(f"max_age={max_age!r}: use something from 1 second to 100 years, in seconds") from None
    return {"idle_timeout": idle, "absolute_timeout": max(idle, _LEAST_ABSOLUTE_TIMEOUT)}
