"""Stores by URL."""

import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

import asgi_sessions.stores
from asgi_sessions import _durations
from asgi_sessions.errors import ConfigError
from asgi_sessions.stores import MemoryStore, SQLiteStore, store_from_url
from asgi_sessions.stores._urls import count, split

_PASSWORD = "hunter2"

Plugin = Callable[[str, str], None]


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugin:
    """Return a function that installs a third party's package with an entry point and a module."""

    def install(entry_point: str, source: str, name: str = "third-party") -> None:
        information = tmp_path / "third_party-1.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text(f"[asgi_sessions.stores]\n{entry_point}\n")
        (tmp_path / "third_party.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "third_party", raising=False)

    return install


def test_each_name_is_exported() -> None:
    """What the stores' package promises to have it has."""
    assert {name for name in asgi_sessions.stores.__all__ if not hasattr(asgi_sessions.stores, name)} == set()


def test_memory_by_url() -> None:
    """A memory store needs no more than its scheme."""
    store = store_from_url("memory:")

    assert isinstance(store, MemoryStore)
    assert store._max_sessions is None


def test_memory_by_url_with_a_limit() -> None:
    """The store's room is an option of its URL."""
    store = store_from_url("MEMORY:?max_sessions=10000")

    assert isinstance(store, MemoryStore)
    assert store._max_sessions == 10_000


@pytest.mark.parametrize("url", ["memory://host", "memory:///file", "memory:file"])
def test_memory_has_no_place(url: str) -> None:
    """A file that would never be written is an error that names the store which writes files."""
    with pytest.raises(ConfigError, match="sqlite:///"):
        store_from_url(url)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///sessions.db", Path.cwd() / "sessions.db"),
        ("sqlite:///data/sessions.db", Path.cwd() / "data" / "sessions.db"),
        ("sqlite:////var/lib/sessions.db", Path("/var/lib/sessions.db")),
        ("sqlite:////var/a%20b%3Fc%23d.db", Path("/var/a b?c#d.db")),
    ],
)
def test_sqlite_by_url(url: str, path: Path) -> None:
    """Three slashes and a relative path, four and an absolute one."""
    store = store_from_url(url)

    assert isinstance(store, SQLiteStore)
    assert store._connect.args == (path, 1.0)


def test_sqlite_by_url_with_options() -> None:
    """Table and busy timeout are options, the latter with a unit."""
    store = store_from_url("sqlite:////var/sessions.db?table=web&busy_timeout=250ms")

    assert isinstance(store, SQLiteStore)
    assert store._connect.args == (Path("/var/sessions.db"), 0.25)
    assert store.ddl("web") == store._sql.ddl


@pytest.mark.parametrize("url", ["sqlite://sessions.db", "sqlite:sessions.db", "sqlite://host/sessions.db"])
def test_too_few_slashes_are_told(url: str) -> None:
    """Two slashes make the file's name a host: the error says how many it takes."""
    with pytest.raises(ConfigError, match="three slashes before a relative path and four before an absolute"):
        store_from_url(url)


@pytest.mark.parametrize("url", ["sqlite:", "sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///?table=web"])
def test_sqlite_in_memory_is_the_memory_store(url: str) -> None:
    """The spellings of a database in memory lead to the memory store."""
    with pytest.raises(ConfigError, match='store="memory:"'):
        store_from_url(url)


@pytest.mark.parametrize(
    ("url", "near"),
    [("sqllite:///sessions.db", "sqlite"), ("memmory:", "memory"), ("memori:?max_sessions=1", "memory")],
)
def test_an_unknown_scheme_names_the_nearest(url: str, near: str) -> None:
    """A slip of the finger is told with what was meant, and with all there is."""
    with pytest.raises(ConfigError, match=rf"Did you mean '{near}'\? Schemes: memory, sqlite"):
        store_from_url(url)


@pytest.mark.parametrize(
    "url",
    [
        f"xyz://user:{_PASSWORD}@host/0?secret={_PASSWORD}",
        f"{_PASSWORD}:{_PASSWORD}@host",
        f"/{_PASSWORD}",
        f"user@{_PASSWORD}",
        f"sqlite://user:{_PASSWORD}@host/x",
        f"sqlite:///sessions.db?tabel=1&password={_PASSWORD}",
        f"sqlite:///sessions.db?password={_PASSWORD}",
        f"sqlite:///sessions.db?busy_timeout=soon&password={_PASSWORD}",
        f"memory://user:{_PASSWORD}@host",
        f"memory:#{_PASSWORD}",
        f"sqlite://user:{_PASSWORD}@[host/x",
        f"sqlite://user:{_PASSWORD}\u2100@host/x",
    ],
)
def test_no_error_shows_more_than_it_must(url: str) -> None:
    """A URL may hold a password: neither an error nor what it is chained to repeats it."""
    with pytest.raises(ConfigError) as caught:
        store_from_url(url)

    error: BaseException | None = caught.value
    while error is not None:
        assert _PASSWORD not in str(error)
        error = error.__cause__ if error.__suppress_context__ else error.__context__


@pytest.mark.parametrize("url", ["", "sessions.db", "C:\\sessions.db", ":memory:", "redis"])
def test_what_is_no_url_is_shown_one(url: str) -> None:
    """A file name, or nothing at all, is answered with an example."""
    with pytest.raises(ConfigError, match=r"such as \"sqlite:///sessions\.db\""):
        store_from_url(url)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory:?max_session=5", "no option 'max_session'. Did you mean 'max_sessions'. Known: max_sessions"),
        ("sqlite:///a.db?colour=red", "no option 'colour'. Known: busy_timeout, table"),
        ("memory:?max_sessions=0", "option 'max_sessions': '0' is not a whole number from 1"),
        ("memory:?max_sessions=many", "option 'max_sessions': 'many' is not a whole number from 1"),
        ("memory:?max_sessions=", "option 'max_sessions': '' is not a whole number from 1"),
        ("memory:?max_sessions=1&max_sessions=2", "gives the option 'max_sessions' twice"),
        ("sqlite:///a.db?busy_timeout=1min", "option 'busy_timeout': '1min' is not a duration: write .* 90s"),
        ("sqlite:///a#b.db", 'A "#" in a sqlite URL is written as "%23"'),
    ],
)
def test_a_wrong_option_is_named_with_its_fix(url: str, message: str) -> None:
    """An option that is not there, or has a value that does not fit, is an error that says what would."""
    with pytest.raises(ConfigError, match=message):
        store_from_url(url)


def test_a_url_without_options_says_so() -> None:
    """A store that knows no option refuses any."""
    with pytest.raises(ConfigError, match=r"no option 'a'\. It has none"):
        split("x:?a=1")


def test_options_are_converted() -> None:
    """A store gets its options as values, and the parts of its URL."""
    parts, options = split("x://host/0?pool=7&wait=2m&name=a%20b", pool=count, wait=_durations.parse, name=str)

    assert (parts.hostname, parts.path) == ("host", "/0")
    assert options == {"pool": 7, "wait": timedelta(minutes=2), "name": "a b"}


def test_a_third_partys_store_plugs_in(plugin: Plugin) -> None:
    """A package that names its class by an entry point is found by its scheme, whatever follows the colon."""
    plugin(
        "third = third_party:Store",
        "class Store:\n    @classmethod\n    def from_url(cls, url):\n        return url.upper()\n",
    )

    store: object = store_from_url("third:party")

    assert store == "THIRD:PARTY"


@pytest.mark.parametrize(
    ("entry_point", "message"),
    [
        ("third = third_party:Store [driver]", r'No module named .missing_driver.*pip install "third-party\[driver\]"'),
        ("third = third_party:Store", r"'third' cannot be imported \(No module named 'missing_driver'\)$"),
    ],
)
def test_a_missing_driver_is_named_with_its_remedy(plugin: Plugin, entry_point: str, message: str) -> None:
    """A store whose driver is not installed says what to install; the import error is chained."""
    plugin(entry_point, "import missing_driver\n")

    with pytest.raises(ConfigError, match=message) as caught:
        store_from_url(f"third://user:{_PASSWORD}@host")

    assert isinstance(caught.value.__cause__, ModuleNotFoundError)
    assert _PASSWORD not in str(caught.value)
