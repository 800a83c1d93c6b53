"""Settings: what is refused, with which words, and when a session ends."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_sessions import Config, SessionManager, bearer, cookie, header, query
from asgi_sessions._envelope import Terms
from asgi_sessions.errors import ConfigError, SessionWarning, UnsupportedError
from asgi_sessions.stores import MemoryStore

T0 = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
spans = st.timedeltas(min_value=timedelta(seconds=1), max_value=timedelta(days=400))


@pytest.mark.parametrize(
    ("field", "value", "fix"),
    [
        ("name", "my session", "letters"),
        ("name", "state", "scope"),
        ("store", "", "sqlite"),
        ("extractors", (), "at least one"),
        ("extractors", "cookies", "'cookie'"),
        ("extractors", "header:", "'header:NAME'"),
        ("extractors", "bearer:x", "'bearer'"),
        ("extractors", 4, "an extractor"),
        ("extractors", ["header:two words"], "X-Session"),
        ("idle_timeout", 1800, r"timedelta\(seconds=1800\)"),
        ("idle_timeout", "30m", r"timedelta\(minutes=30\)"),
        ("idle_timeout", timedelta(0), "from 0:00:00.001000"),
        ("absolute_timeout", timedelta(days=99999), "36500 days"),
        ("first_life", None, "timedelta"),
        ("grace", timedelta(seconds=-1), "from 0:00:00"),
        ("store_timeout", timedelta(0), "from"),
        ("touch_interval", timedelta(minutes=30), "less than idle_timeout"),
        ("max_size", 0, "whole number"),
        ("max_size", None, "whole number"),
        ("max_size", True, "whole number"),
        ("max_sessions_per_user", 0, "whole number"),
        ("when_full", "end oldest", "'end-oldest' or 'refuse'"),
        ("load", "later", "'eager' or 'lazy'"),
        ("conflicts", "last", "'merge' or 'raise'"),
        ("no_store", True, "'bound' or 'token'"),
        ("skip", "/static/*", "list of patterns"),
        ("skip", 4, "list of patterns"),
        ("on_error", "503", "function"),
        ("on_gone", 401, "function"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(field: str, value: object, fix: str) -> None:
    """The error names the field, the value and what to write in its place."""
    settings: dict[str, Any] = {field: value}
    with pytest.raises(ConfigError, match=fix) as caught:
        Config(**settings)

    shown = "two words" if fix == "X-Session" else repr(value)
    assert shown in str(caught.value) or str(value) in str(caught.value)


def test_a_session_must_end_some_day() -> None:
    """One of the two timeouts may be left out, not both."""
    assert Config(idle_timeout=None).idle_timeout is None
    assert Config(absolute_timeout=None).absolute_timeout is None
    with pytest.raises(ConfigError, match="must end some day"):
        Config(idle_timeout=None, absolute_timeout=None)


def test_a_persistent_cookie_needs_an_end() -> None:
    """Its date is the absolute timeout's."""
    with pytest.raises(ConfigError, match="persistent"):
        Config(absolute_timeout=None, extractors=cookie(persistent=True))


@pytest.mark.parametrize(
    ("options", "fix"),
    [
        ({"samesite": "none", "secure": False}, "secure=True"),
        ({"samesite": "never"}, "'lax', 'strict' or 'none'"),
        ({"partitioned": True, "secure": False}, "secure=True"),
        ({"name": "__Host-a", "domain": "example.org"}, "__Secure-"),
        ({"name": "__host-a", "path": "/shop"}, "__Secure-"),
        ({"name": "__HOST-a", "secure": False}, "secure=True"),
        ({"name": "__secure-a", "secure": False}, "secure=True"),
        ({"name": "a b"}, "letters"),
        ({"name": "a=b"}, "letters"),
        ({"name": "ä"}, "letters"),
        ({"path": "shop"}, "'/'"),
        ({"path": "/; Domain=evil"}, "'/'"),
        ({"path": "/\n"}, "'/'"),
        ({"domain": "a;b"}, "host name"),
    ],
)
def test_a_cookie_that_browsers_would_drop_is_refused(options: dict[str, Any], fix: str) -> None:
    """Better an error at the start than users who cannot log in."""
    with pytest.raises(ConfigError, match=fix):
        cookie(**options)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, "__Host-shop"),
        ({"domain": "example.org"}, "__Secure-shop"),
        ({"path": "/shop"}, "__Secure-shop"),
        ({"name": "sid"}, "sid"),
    ],
)
def test_a_cookie_gets_the_strongest_prefix_that_fits(options: dict[str, Any], name: str) -> None:
    """A name of one's own is left as it is."""
    (way,) = Config(name="shop", extractors=cookie(**options)).sources
    assert getattr(way, "name", None) == name


def test_a_risky_setting_is_one_warning() -> None:
    """It works, and says what the risk is."""
    with pytest.warns(SessionWarning, match="travels in the clear"):
        (way,) = Config(extractors=cookie(secure=False)).sources
    assert getattr(way, "name", None) == "session"
    with pytest.warns(SessionWarning, match="logs and histories"):
        Config(extractors="query:s")


def test_extractors_can_be_written_as_text() -> None:
    """The short forms mean the same as the objects."""
    with pytest.warns(SessionWarning):
        given_text = Config(extractors=["cookie", "cookie:sid", "header:X-Session", "bearer", "query:s"]).sources
    with pytest.warns(SessionWarning):
        given_objects = Config(extractors=(cookie(), cookie("sid"), header("X-Session"), bearer(), query("s"))).sources

    assert given_text == given_objects


def test_settings_can_come_from_the_environment() -> None:
    """Every field that text can hold, with units."""
    with pytest.warns(SessionWarning):
        config = Config.from_env(
            {
                "SESSION_STORE": "sqlite:///s.db",
                "SESSION_NAME": "shop",
                "SESSION_EXTRACTORS": "cookie, query:s",
                "SESSION_IDLE_TIMEOUT": "none",
                "SESSION_ABSOLUTE_TIMEOUT": "12h",
                "SESSION_GRACE": "500ms",
                "SESSION_MAX_SIZE": "1000",
                "SESSION_MAX_SESSIONS_PER_USER": "3",
                "SESSION_WHEN_FULL": "refuse",
                "SESSION_SKIP": "/static/*,/health",
                "SESSION_MANAGER": "a variable of the desktop's",
                "PATH": "/bin",
            },
            load="lazy",
            name="office",
        )

    assert (config.store, config.name, config.load) == ("sqlite:///s.db", "office", "lazy")
    assert len(config.sources) == 2
    assert (config.idle_timeout, config.absolute_timeout) == (None, timedelta(hours=12))
    assert (config.grace, config.max_size) == (timedelta(milliseconds=500), 1000)
    assert (config.max_sessions_per_user, config.when_full) == (3, "refuse")
    assert config.skip == ("/static/*", "/health")


def test_the_environment_is_read_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deployment sets one variable."""
    monkeypatch.setenv("SESSION_STORE", "memory:?max_sessions=5")

    assert Config.from_env().store == "memory:?max_sessions=5"


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("SESSION_IDLE_TIMOUT", "30m", "did you mean SESSION_IDLE_TIMEOUT"),
        ("SESSION_IDLE_TIMEOUT", "half an hour", "SESSION_IDLE_TIMEOUT='half an hour'"),
        ("SESSION_MAX_SIZE", "1 MB", "SESSION_MAX_SIZE='1 MB'"),
        ("SESSION_LOAD", "never", "'eager' or 'lazy'"),
    ],
)
def test_a_wrong_variable_is_named(variable: str, text: str, message: str) -> None:
    """A misspelt setting is not ignored."""
    with pytest.raises(ConfigError, match=message):
        Config.from_env({variable: text})


@given(spans, spans, spans)
def test_no_request_outlives_the_absolute_timeout(idle: timedelta, extra: timedelta, busy: timedelta) -> None:
    """However busy a session is, it never outlives its absolute timeout."""
    config = Config(idle_timeout=idle, absolute_timeout=idle + extra)

    end = config.expires_at(Terms(T0), created_at=T0, seen_at=T0 + busy, now=T0 + busy, unreturned=False)

    assert end <= T0 + idle + extra
    assert end <= T0 + busy + idle


@given(spans, st.none() | spans, st.none() | st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=1)))
def test_a_session_in_use_is_touched_before_it_ends(
    idle: timedelta, own: timedelta | None, interval: timedelta | None
) -> None:
    """Whatever the intervals, a request that comes one interval before the end moves it."""
    if interval is not None and interval >= idle:
        interval = idle / 2
    config = Config(idle_timeout=idle, absolute_timeout=None, touch_interval=interval)
    lasts = own or idle

    assert config.touch_is_due(Terms(idle_timeout=own), seen_at=T0, now=T0 + lasts)
    if interval is None:
        assert config.touch_is_due(Terms(idle_timeout=own), seen_at=T0, now=T0 + lasts / 10)
        assert not config.touch_is_due(Terms(idle_timeout=own), seen_at=T0, now=T0 + min(lasts / 10, MINUTE) * 0.9)


def test_without_an_idle_timeout_a_touch_keeps_last_seen_fresh() -> None:
    """Once a minute, for device pages."""
    config = Config(idle_timeout=None)

    assert config.touch_is_due(Terms(), seen_at=T0, now=T0 + MINUTE)
    assert not config.touch_is_due(Terms(), seen_at=T0, now=T0 + MINUTE * 0.9)


def test_a_limit_needs_a_store_that_counts() -> None:
    """A store without the capability is named, at once."""

    class Plain:
        """A store that only keeps."""

    store: Any = Plain()
    with pytest.raises(UnsupportedError, match="Plain"):
        SessionManager(Config(store=store, max_sessions_per_user=3))
    SessionManager(Config(store=MemoryStore(), max_sessions_per_user=3))


def test_a_config_does_not_change() -> None:
    """One object can serve many applications."""
    config: Any = Config()
    with pytest.raises(AttributeError):
        config.name = "other"
