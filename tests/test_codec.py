"""What a session may hold comes back as it was; everything else is refused by its path."""

import collections
import dataclasses
import decimal
import enum
import io
import json
import math
import struct
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from types import MappingProxyType
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import ormsgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asgi_sessions import AnyCodec, Codec, JSONCodec
from asgi_sessions.errors import ConfigError, DecodeError, EncodeError

PARIS = ZoneInfo("Europe/Paris")
DEEPEST = 255  # containers, the session among them: the documented limit


def same(one: Any, other: Any) -> bool:
    """Compare types, order of keys, signs of zero, fold, time zone and exponent too; a NaN equals a NaN."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, set | frozenset):
        return len(one) == len(other) and all(any(same(a, b) for b in other) for a in one)
    if isinstance(one, float):
        return math.copysign(1, one) == math.copysign(1, other) and (
            one == other or (math.isnan(one) and math.isnan(other))
        )
    if isinstance(one, Decimal):
        return repr(one) == repr(other)
    if isinstance(one, datetime | time):
        zones = (one.tzinfo, other.tzinfo)
        return one.replace(tzinfo=None) == other.replace(tzinfo=None) and one.fold == other.fold and same_zone(*zones)
    return bool(one == other)


def same_zone(one: tzinfo | None, other: tzinfo | None) -> bool:
    """Compare the class, the offset and the given name, all of which a repr shows."""
    return repr(one) == repr(other)


def nested(depth: int, wrap: Callable[[Any], Any], innermost: Any = None) -> Any:
    """Return *innermost* in so many containers."""
    for _ in range(depth):
        innermost = wrap(innermost)
    return innermost


class Money:
    """A type of the user's own."""

    def __init__(self, amount: Any, currency: str = "EUR") -> None:
        self.amount, self.currency = amount, currency

    def __eq__(self, other: object) -> bool:
        """Compare the amounts type by type."""
        return isinstance(other, Money) and same(vars(self), vars(other))

    def __hash__(self) -> int:
        """Agree with `==`."""
        return hash(self.currency)


class Basket(list[Any]):
    """A subclass of a built-in type."""


class Name(str):
    """A subclass of str."""

    __slots__ = ()


class Count(int):
    """A subclass of int."""


class Ratio(float):
    """A subclass of float."""


class Blob(bytes):
    """A subclass of bytes."""


class Group(set[Any]):
    """A subclass of set."""


class Moment(datetime):
    """A subclass of datetime."""


class Color(enum.Enum):
    """An enum."""

    RED = 1


class Role(str, enum.Enum):  # noqa: UP042  the form that mistakes are made with
    """An enum that passes for str."""

    ADMIN = "admin"


class Level(enum.IntEnum):
    """An enum that passes for int."""

    HIGH = 3


Point = collections.namedtuple("Point", "x y")  # noqa: PYI024  the untyped form is one more


@dataclasses.dataclass
class Item:
    """A dataclass."""

    price: int = 1


class Zone(tzinfo):
    """A time zone of the user's own."""

    def utcoffset(self, _: datetime | None, /) -> timedelta:
        """Return none at all."""
        return timedelta()

    dst = utcoffset

    def tzname(self, _: datetime | None, /) -> str:
        """Return its name."""
        return "home"


class Silent:
    """An object whose repr fails."""

    def __repr__(self) -> str:
        """Fail."""
        raise RuntimeError


def money_codec() -> Codec:
    """Return a codec that keeps Money."""
    return Codec().register(Money, 7, vars, lambda plain: Money(**plain))


SCALARS: dict[str, Any] = {
    "None": None,
    "True": True,
    "False": False,
    "0": 0,
    "1": 1,
    "-1": -1,
    "2**63": 2**63,
    "2**64-1": 2**64 - 1,
    "2**64": 2**64,
    "-2**63": -(2**63),
    "-2**63-1": -(2**63) - 1,
    "10**5000": 10**5000,
    "-10**5000": -(10**5000),
    "0.0": 0.0,
    "-0.0": -0.0,
    "1.0": 1.0,
    "1e308": 1e308,
    "nan": math.nan,
    "inf": math.inf,
    "-inf": -math.inf,
    "empty str": "",
    "NUL": "a\0b",
    "astral": "\U0001f600",
    "č, which is 0xC4 0x8D": "č",
    "Ԁ, which is 0xD4 0x80": "Ԁ",
    "long str": "x" * 70_000,
    "empty bytes": b"",
    "bytes": bytes(range(256)),
    "long bytes": b"\xd4\x60\x00" * 30_000,
    "naive datetime": datetime(2026, 11, 21, 13, 5, 59, 123456),  # noqa: DTZ001
    "datetime.min": datetime.min,  # noqa: DTZ901
    "datetime.max": datetime.max,  # noqa: DTZ901
    "UTC": datetime(2026, 11, 21, tzinfo=UTC),
    "offset": datetime(2026, 11, 21, tzinfo=timezone(timedelta(hours=-5, minutes=-30))),
    "offset to the microsecond": datetime(2026, 11, 21, tzinfo=timezone(timedelta(microseconds=-1))),
    "named offset": datetime(2026, 11, 21, tzinfo=timezone(timedelta(hours=1), "CET")),
    "offset named like its default": datetime(2026, 11, 21, tzinfo=timezone(timedelta(hours=1), "UTC+01:00")),
    "ZoneInfo": datetime(2026, 7, 1, 12, tzinfo=PARIS),
    "second of two 02:30": datetime(2026, 10, 25, 2, 30, tzinfo=PARIS, fold=1),
    "naive with fold": datetime(2026, 10, 25, 2, 30, fold=1),  # noqa: DTZ001
    "date": date(2026, 11, 21),
    "date.min": date.min,
    "naive time": time(13, 5, 59, 1),
    "aware time": time(13, 5, tzinfo=timezone(timedelta(hours=2))),
    "time in a ZoneInfo": time(2, 30, tzinfo=PARIS, fold=1),
    "timedelta": timedelta(days=1, microseconds=1),
    "timedelta.min": timedelta.min,
    "timedelta.max": timedelta.max,
    "UUID": UUID("0192f3c4-7b1e-7c3a-9f55-2b1d8e6a4c10"),
    "Decimal": Decimal("1.10"),
    "Decimal zero": Decimal("-0E+7"),
    "Decimal 50 digits": Decimal("1." + "3" * 50),
    "Decimal exponent": Decimal("1E-999999"),
    "Decimal NaN": Decimal("-NaN123"),
    "Decimal sNaN": Decimal("sNaN"),
    "Decimal Infinity": Decimal("-Infinity"),
    "empty tuple": (),
    "tuple": (1, "a", None),
    "empty frozenset": frozenset(),
    "frozenset": frozenset({1, 2.5, "a", b"a", None, (1, frozenset({2**70}))}),
}
CONTAINERS: dict[str, Any] = {
    "empty list": [],
    "list": [1, [2, []]],
    "empty set": set(),
    "set": {1, "a", (2,), date(2026, 1, 1), frozenset({UUID(int=1)})},
    "set of NaN": {math.nan, 1},
    "empty dict": {},
    "dict": {"b": 1, "a": {"c": 2}},
    "int keys": {17: "a", 3: "b", 2**70: "c", -1: "d"},
    "mixed keys": {"1": 1, 2: 2, True: 3, None: 4, 2.5: 5, b"k": 6, math.inf: 7, -0.0: 8},
    "False and a list": {False: [1]},
    "many": [{"id": i, "tags": (i, str(i))} for i in range(300)],
}
VALUES = SCALARS | CONTAINERS
HASHABLE = {name: value for name, value in SCALARS.items() if name != "Decimal sNaN"}
WRAPS: dict[str, Callable[[Any], Any]] = {
    "bare": lambda v: v,
    "list": lambda v: [0, v],
    "dict": lambda v: {"a": v},
    "int-keyed dict": lambda v: {1: v},
    "tuple": lambda v: (v, 0),
    "list in tuple in dict in list": lambda v: [{"a": ([v],)}],
}


def cases(values: dict[str, Any]) -> pytest.MarkDecorator:
    """Run a test for each value, under its name."""
    return pytest.mark.parametrize("value", values.values(), ids=values.keys())


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS.keys())
@cases(VALUES)
def test_a_value_comes_back_equal_and_of_the_same_type(value: Any, wrap: Callable[[Any], Any]) -> None:
    """Each supported value survives at any nesting."""
    data = {"before": 1, "key": wrap(value), "after": [2]}

    assert same(Codec().decode(Codec().encode(data)), data)


@pytest.mark.parametrize("wrap", [lambda v: {v}, lambda v: frozenset({v}), lambda v: {(v, 1)}, lambda v: {v, "other"}])
@cases(HASHABLE)
def test_a_hashable_value_survives_in_a_set(value: Any, wrap: Callable[[Any], Any]) -> None:
    """So does each that can be in a set."""
    data = {"key": wrap(value)}

    assert same(Codec().decode(Codec().encode(data)), data)


@pytest.mark.parametrize("key", ["", "\U0001f600", 0, 2**70, True, False, None, -0.0, math.nan, b"", b"\xff"], ids=repr)
def test_a_key_keeps_its_type(key: Any) -> None:
    """A dict in a session has keys of six types, and each stays what it is."""
    data = {"key": {key: [key], "other": 1}}

    assert same(Codec().decode(Codec().encode(data)), data)


def test_an_empty_session_is_bytes_too() -> None:
    """Nothing at all can be kept."""
    assert Codec().decode(Codec().encode({})) == {}


def test_any_mapping_can_be_encoded() -> None:
    """What is encoded need not be a dict itself: a session is a subclass of it."""
    expected = Codec().encode({"a": 1})

    assert Codec().encode(MappingProxyType({"a": 1})) == expected
    assert Codec().encode(collections.OrderedDict(a=1)) == expected


def as_tuples(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return tuples of *children*."""
    return st.lists(children, max_size=4).map(tuple)


zones = st.one_of(
    st.none(),
    st.just(UTC),
    st.sampled_from(["Europe/Paris", "America/New_York", "Asia/Kathmandu", "UTC"]).map(ZoneInfo),
    st.timedeltas(min_value=timedelta(hours=-23), max_value=timedelta(hours=23)).map(timezone),
    st.builds(timezone, st.timedeltas(min_value=timedelta(hours=-23), max_value=timedelta(hours=23)), st.text()),
)
keys = st.one_of(st.text(), st.integers(), st.booleans(), st.none(), st.floats(), st.binary())
hashable = st.recursive(
    st.one_of(
        keys,
        st.datetimes(timezones=zones),
        st.dates(),
        st.times(timezones=zones),
        st.timedeltas(),
        st.uuids(),
        st.decimals(allow_nan=False),
        st.integers(min_value=-(2**200), max_value=2**200),
    ),
    lambda children: as_tuples(children) | st.frozensets(children, max_size=4),
    max_leaves=5,
)
values = st.recursive(
    hashable | st.decimals(),
    lambda children: st.one_of(
        st.lists(children, max_size=4),
        as_tuples(children),
        st.sets(hashable, max_size=4),
        st.dictionaries(st.text(), children, max_size=4),
        st.dictionaries(keys, children, max_size=4),
    ),
    max_leaves=15,
)
sessions = st.dictionaries(st.text(), values, max_size=5)
plain_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
)
unhurried = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)


@unhurried
@given(sessions)
def test_every_session_comes_back(data: dict[str, Any]) -> None:
    """Whatever of these types a session is built from, it comes back equal, type by type."""
    assert same(Codec().decode(Codec().encode(data)), data)


@unhurried
@given(sessions)
def test_what_came_back_is_encoded_to_the_same_bytes(data: dict[str, Any]) -> None:
    """A session that was only read does not look changed."""
    encoded = Codec().encode(data)

    assert Codec().encode(Codec().decode(encoded)) == encoded


@unhurried
@given(values)
def test_the_bytes_of_a_value_do_not_depend_on_what_is_beside_it(value: Any) -> None:
    """A value next to one that takes the careful way is written as it is alone."""
    alone = Codec().encode({"k": value})
    beside = Codec().encode({"k": value, "z": {1: 1}})

    assert beside.startswith(alone[6:], 6)  # behind the length and the number of keys


@given(st.sets(hashable, min_size=2, max_size=8), st.randoms())
@unhurried
def test_a_set_is_encoded_alike_in_whatever_order_it_was_built(items: set[Any], random: Any) -> None:
    """The order of a set, which differs from process to process, does not show."""
    shuffled = sorted(items, key=lambda _: random.random())
    grown = {object() for _ in range(100)} | set(shuffled)
    grown.intersection_update(items)  # a table of another size, so another order

    assert Codec().encode({"tags": grown}) == Codec().encode({"tags": items})
    assert Codec().encode({"tags": frozenset(grown)}) == Codec().encode({"tags": frozenset(items)})


def test_equal_values_that_are_other_objects_make_equal_bytes() -> None:
    """Only the value counts, not which object holds it."""
    one = {"n": int("9" * 30), "s": "ab" * 50, "d": Decimal("1.0"), "t": (1, 2)}
    other = {"n": int("9" * 30), "s": "".join(["ab"] * 50), "d": Decimal("1.0"), "t": tuple(sorted({2, 1}))}

    assert Codec().encode(one) == Codec().encode(other)


def test_values_that_only_seem_equal_make_different_bytes() -> None:
    """A change from 1 to True, from 0.0 to -0.0, or of a Decimal's exponent is a change."""
    alike = [1, 1.0, True, Decimal(1), Decimal("1.0"), 0, 0.0, -0.0, False, "1", b"1", [1], (1,), {1}, frozenset({1})]

    assert len({Codec().encode({"k": value}) for value in alike}) == len(alike)


def test_the_decimal_context_does_not_show_in_the_bytes() -> None:
    """A request that sets `capitals=0` leaves the sessions as they were."""
    data = {"price": Decimal("1E+5"), "set": {Decimal("NaN")}}
    expected = Codec().encode(data)

    with decimal.localcontext(capitals=0, prec=1):
        assert Codec().encode(data) == expected
        assert same(Codec().decode(expected), data)


# --- Refusals ---


def cyclic_list() -> list[Any]:
    """Return a list that is in itself."""
    cycle: list[Any] = [1]
    cycle.append(cycle)
    return cycle


def cyclic_dict() -> dict[str, Any]:
    """Return a dict that is in a list that is in it."""
    cycle: dict[str, Any] = {}
    cycle["self"] = [cycle]
    return cycle


REFUSED: dict[str, tuple[Any, str, str]] = {
    "bytearray": (bytearray(b"x"), "", "is of type bytearray"),
    "long bytearray": (bytearray(256), "", "is of type bytearray"),
    "longer bytearray": (bytearray(65_536), "", "is of type bytearray"),
    "memoryview": (memoryview(b"x"), "", "is of type memoryview"),
    "memoryview with steps": (memoryview(b"xyz")[::2], "", "is of type memoryview"),
    "memoryview in a set": ({memoryview(b"x")}, "{…}", "is of type memoryview"),
    "bytearray after bytes": ([b"a", (b"b", {"c": bytearray(b"x" * 70_000)})], '[1][1]["c"]', "is of type bytearray"),
    "object": (object(), "", "is of type object"),
    "class": (int, "", "is of type type"),
    "Ellipsis": (..., "", "is of type ellipsis"),
    "complex": (1j, "", "is of type complex"),
    "range": (range(3), "", "is of type range"),
    "ZoneInfo": (PARIS, "", "is of type ZoneInfo"),
    "iterator": (iter([]), "", "is of type list_iterator"),
    "enum": (Color.RED, "", "is of type Color"),
    "str enum": (Role.ADMIN, "", "is of type Role"),
    "int enum": (Level.HIGH, "", "is of type Level"),
    "str subclass": (Name("x"), "", "is of type Name"),
    "int subclass": (Count(1), "", "is of type Count"),
    "float subclass": (Ratio(1.5), "", "is of type Ratio"),
    "bytes subclass": (Blob(b"x"), "", "is of type Blob"),
    "list subclass": (Basket([1]), "", "is of type Basket"),
    "set subclass": (Group({1}), "", "is of type Group"),
    "datetime subclass": (Moment(2026, 1, 1), "", "is of type Moment"),
    "OrderedDict": (collections.OrderedDict(a=1), "", "is of type OrderedDict"),
    "defaultdict": (collections.defaultdict(int), "", "is of type defaultdict"),
    "Counter": (collections.Counter("a"), "", "is of type Counter"),
    "namedtuple": (Point(1, 2), "", "is of type Point"),
    "dataclass": (Item(), "", "is of type Item"),
    "unregistered": (Money(1), "", "is of type Money"),
    "surrogate": ("a\ud800", "", "has a lone surrogate"),
    "surrogate in a set": ({"\udfff"}, "{…}", "has a lone surrogate"),
    "surrogate in a key": ({"a\ud800": 1}, '["a\\ud800"]', "has a lone surrogate"),
    "surrogate in a zone": (datetime(2026, 1, 1, tzinfo=timezone(timedelta(), "\ud800")), "", "cannot be kept"),
    "tzinfo": (datetime(2026, 1, 1, tzinfo=Zone()), "", "cannot be kept: its tzinfo is of type Zone"),
    "tzinfo of a time": ([time(1, tzinfo=Zone())], "[0]", "cannot be kept: its tzinfo is of type Zone"),
    "tuple key": ([{(1, 2): 3}], "[0][(1, 2)]", "its key is of type tuple"),
    "UUID key": ({UUID(int=1): 3}, f"[{UUID(int=1)!r}]", "its key is of type UUID"),
    "enum key": ({Role.ADMIN: 3}, f"[{Role.ADMIN!r}]", "its key is of type Role"),
    "int enum key": ({Level.HIGH: 3}, f"[{Level.HIGH!r}]", "its key is of type Level"),
    "str subclass key": ({Name("x"): 3}, "['x']", "its key is of type Name"),
    "datetime key": ({date(2026, 1, 1): 3}, "[datetime.date(2026, 1, 1)]", "its key is of type date"),
    "key without a repr": ({Silent(): 3}, "[<Silent>]", "its key is of type Silent"),
    "under any key": (
        {1: {None: {b"k": {2.5: {True: [...]}}}}},
        "[1][None][b'k'][2.5][True][0]",
        "is of type ellipsis",
    ),
    "under a huge key": ({10**5000: ...}, "[<int>]", "is of type ellipsis"),
    "under quotes": ({"it's": {'"q"': {"'\"": ...}}}, '["it\'s"]["\\"q\\""]["\\\'\\""]', "is of type ellipsis"),
    "in a tuple in a set": ({(1, ("a", Color.RED))}, "{…}[1][1]", "is of type Color"),
    "in a frozenset": (frozenset({frozenset({Color.RED})}), "{…}{…}", "is of type Color"),
    "after others": ([1, {"a": "b"}, (), [{"price": object()}]], '[3][0]["price"]', "is of type object"),
    "cycle": (cyclic_list(), "[1]", "contains itself"),
    "cycle of two": (cyclic_dict(), '["self"][0]', "contains itself"),
}


@pytest.mark.parametrize(("value", "path", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_a_value_that_would_change_is_refused_by_its_path(value: Any, path: str, reason: str) -> None:
    """What would not come back as it was is an error before anything is written, and the error says where it is."""
    with pytest.raises(EncodeError) as refused:
        Codec().encode({"fine": [1], "cart": value})

    assert str(refused.value).startswith(f'session["cart"]{path}: {reason}')


@pytest.mark.parametrize("key", [1, None, b"b", (1,), Name("b"), Role.ADMIN], ids=repr)
def test_the_keys_of_a_session_are_str(key: Any) -> None:
    """At the top there is no other key, since sessions are merged and compared by them."""
    with pytest.raises(EncodeError) as refused:
        Codec().encode({"a": 1, key: 2})

    assert str(refused.value) == f"session[{key!r}]: its key is of type {type(key).__qualname__}: use str"


def test_a_surrogate_in_a_key_of_the_session_is_refused() -> None:
    """Nor may such a key be something that is not text."""
    with pytest.raises(EncodeError, match=r'^session\["\\udcff"\]: has a lone surrogate'):
        Codec().encode({"\udcff": 2})


@pytest.mark.parametrize("key", [None, "No/Such/Zone"])
def test_a_zone_that_other_processes_do_not_find_is_refused(key: str | None) -> None:
    """A ZoneInfo is kept by its key, so it needs one that leads back to it."""
    utc = b"TZif" + bytes(32) + struct.pack(">II", 1, 4) + bytes(6) + b"UTC\0"  # RFC 9636: one type, no transition
    zone = ZoneInfo.from_file(io.BytesIO(utc), key=key)

    with pytest.raises(EncodeError, match=r'^session\["at"\]: cannot be kept'):
        Codec().encode({"at": datetime(2026, 1, 1, tzinfo=zone)})


NESTS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "lists": (lambda v: [v], "[0]"),
    "dicts": (lambda v: {"a": v}, '["a"]'),
    "tuples": (lambda v: (v,), "[0]"),
    "frozensets": (lambda v: frozenset({v}), "{…}"),
    "int-keyed dicts": (lambda v: {1: v}, "[1]"),
}


@pytest.mark.parametrize(("wrap", "step"), NESTS.values(), ids=NESTS.keys())
@pytest.mark.parametrize("innermost", [1, "č", b"x", UUID(int=1), 2**70], ids=repr)
def test_nesting_is_kept_up_to_a_limit_and_refused_beyond(
    wrap: Callable[[Any], Any], step: str, innermost: Any
) -> None:
    """The depth is the same for every container and every value in it; beyond it there is an error, not a crash."""
    deepest = {"a": nested(DEEPEST - 1, wrap, innermost)}
    codec = Codec()

    assert codec.decode(codec.encode(deepest)) == deepest
    assert codec.encode(codec.decode(codec.encode(deepest))) == codec.encode(deepest)
    for depth in (DEEPEST, DEEPEST + 1, 500, 5000 if step != "{…}" else 500):
        with pytest.raises(EncodeError) as refused:
            codec.encode({"a": nested(depth, wrap, innermost)})
        assert str(refused.value) == f'session["a"]{step * (DEEPEST - 1)}: is nested more than {DEEPEST} deep'


@pytest.mark.parametrize("codec", [Codec(), JSONCodec()], ids=["msgpack", "json"])
def test_a_stack_that_is_nearly_used_up_is_an_encode_error(codec: AnyCodec) -> None:
    """Deep in the application's own calls, deep data may not be kept; that, too, is an `EncodeError`."""
    data = {"a": nested(200, lambda v: [v], 2**70), "b": {1: 1}}  # both of which take the careful way
    if isinstance(codec, JSONCodec):
        del data["b"]

    def call_at(depth: int) -> bytes:
        return call_at(depth - 1) if depth else codec.encode(data)

    frame, used = sys._getframe(), 0
    while frame.f_back:
        frame, used = frame.f_back, used + 1

    assert codec.decode(call_at(0)) == data
    with pytest.raises(EncodeError, match="too deep for what is left of the stack"):
        call_at(sys.getrecursionlimit() - used - 150)


# --- Foreign bytes ---


def frame(packed: bytes) -> bytes:
    """Return *packed* as the codec frames it."""
    return b"\xc1" + len(packed).to_bytes(4, "big") + packed


def mark(tag: int) -> ormsgpack.Ext:
    """Return what the list of a container begins with."""
    return ormsgpack.Ext(tag, b"\0")


FOREIGN: dict[str, bytes] = {
    "nothing": b"",
    "a byte": b"\xc1",
    "JSON": b'{"a": 1}',
    "a pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01a\x94K\x01s.",
    "bare msgpack": ormsgpack.packb({"a": 1}),
    "an int": frame(ormsgpack.packb(1)),
    "a list": frame(ormsgpack.packb([])),
    "None": frame(ormsgpack.packb(None)),
    "an int-keyed dict": frame(ormsgpack.packb({1: 1}, option=ormsgpack.OPT_NON_STR_KEYS)),
    "a marked dict at the top": frame(ormsgpack.packb([mark(99), 1, 1])),
    "a date at the top": frame(ormsgpack.packb(ormsgpack.Ext(66, ormsgpack.packb("2026-01-01")))),
    "trailing bytes": Codec().encode({"a": 1}) + b"\0",
    "an unknown leaf": frame(ormsgpack.packb({"a": ormsgpack.Ext(80, b"xx")})),
    "an unknown mark": frame(ormsgpack.packb({"a": [mark(80), 1]})),
    "a timestamp": frame(b"\x81\xa1a\xd6\xff\x00\x00\x00\x00"),
    "a mark as value": frame(ormsgpack.packb({"a": mark(96)})),
    "a mark inside a list": frame(ormsgpack.packb({"a": [1, mark(96)]})),
    "a mark in a long form": frame(b"\x81\xa1a\x91\xc7\x01\x60\x00"),
    "a list in a set": frame(ormsgpack.packb({"a": [mark(97), [1]]})),
    "a tuple as key": frame(ormsgpack.packb({"a": [mark(99), [mark(96), 1], 1]})),
    "a list as key": frame(ormsgpack.packb({"a": [mark(99), [1], 1]})),
    "a key without value": frame(ormsgpack.packb({"a": [mark(99), 1, 1, 2]})),
    "a zone nobody knows": frame(
        ormsgpack.packb({"a": ormsgpack.Ext(65, ormsgpack.packb(["2026-01-01T00:00", 0, "No/Such"]))})
    ),
    "a path as zone": frame(
        ormsgpack.packb({"a": ormsgpack.Ext(65, ormsgpack.packb(["2026-01-01T00:00", 0, "../../etc/passwd"]))})
    ),
    "no date": frame(ormsgpack.packb({"a": ormsgpack.Ext(66, ormsgpack.packb("yesterday"))})),
    "a date of an int": frame(ormsgpack.packb({"a": ormsgpack.Ext(66, ormsgpack.packb(1))})),
    "a huge length": frame(b"\xdf\xff\xff\xff\xff\xa1a"),
    "deep lists": frame(b"\x81\xa1a" + b"\x91" * 100_000 + b"\x01"),
    "deep tuples": frame(b"\x81\xa1a" + b"\x92\xd4\x60\x00" * 100_000 + b"\x01"),
    "tuples deep enough for Python": frame(b"\x81\xa1a" + b"\x92\xd4\x60\x00" * 1020 + b"\x01"),
    "deep extensions": frame(b"\x81\xa1a" + nested(3000, lambda v: ormsgpack.packb(ormsgpack.Ext(66, v)), b"\x01")),
}


@pytest.mark.parametrize("data", FOREIGN.values(), ids=FOREIGN.keys())
def test_foreign_bytes_are_a_decode_error(data: bytes) -> None:
    """What this codec did not write is never taken for a session, least of all for an empty one."""
    with pytest.raises(DecodeError, match=r"^These bytes are not a session: "):
        Codec().decode(data)


def test_a_session_cut_short_is_a_decode_error() -> None:
    """However much of it is missing."""
    encoded = Codec().encode({"a": [1, (2, {3}), UUID(int=4)], "b": {5: b"6"}})

    for length in range(len(encoded)):
        with pytest.raises(DecodeError):
            Codec().decode(encoded[:length])
        with pytest.raises(DecodeError):
            Codec().decode(frame(encoded[5:length]))


def decode_or_refuse(codec: AnyCodec, data: bytes) -> None:
    """Decode; anything but a dict or DecodeError fails the test."""
    try:
        decoded = codec.decode(data)
    except DecodeError:
        return
    assert type(decoded) is dict
    assert all(type(key) is str for key in decoded)


@unhurried
@given(st.binary(max_size=200))
def test_random_bytes_are_a_dict_or_a_decode_error(data: bytes) -> None:
    """A broken record is never any other exception."""
    for codec in (Codec(), money_codec(), JSONCodec()):
        decode_or_refuse(codec, data)
        decode_or_refuse(codec, frame(data))
        decode_or_refuse(codec, frame(b"\x81\xa1a" + data))


@unhurried
@given(sessions, st.lists(st.integers(min_value=0), min_size=1, max_size=3), st.booleans())
def test_flipped_bits_are_a_dict_or_a_decode_error(data: dict[str, Any], flips: list[int], cut: bool) -> None:
    """Nor is one that a disk has damaged."""
    damaged = bytearray(Codec().encode(data)[5:])
    for flip in flips:
        bit = flip % (len(damaged) * 8)
        damaged[bit // 8] ^= 1 << bit % 8

    decode_or_refuse(money_codec(), frame(bytes(damaged[: len(damaged) // 2] if cut else damaged)))


# --- A type of the user's own ---


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS.keys())
@pytest.mark.parametrize(
    "amount",
    [1, 2**70, Decimal("9.99"), {1: (2,)}, [Money(3), {Money(4)}]],
    ids=["int", "big int", "Decimal", "dict", "Money in Money"],
)
def test_a_registered_type_comes_back(amount: Any, wrap: Callable[[Any], Any]) -> None:
    """A type of your own is kept like the built-in ones, at any nesting, values of its own kind in it included."""
    data = {"key": wrap(Money(amount)), "set": {Money(1)}, "deep": ({(Money(2), "x")},)}

    assert same(money_codec().decode(money_codec().encode(data)), data)


def test_a_subclass_of_a_builtin_type_can_be_registered() -> None:
    """What is refused unasked can be kept on request: an enum, an OrderedDict, a bytearray."""
    codec = (
        Codec()
        .register(Role, 0, lambda role: role.value, Role)
        .register(collections.OrderedDict, 1, dict, collections.OrderedDict)
        .register(bytearray, 63, bytes, bytearray)
    )
    data = {
        "role": Role.ADMIN,
        "roles": {Role.ADMIN},
        "o": collections.OrderedDict(b=1, a=2),
        "b": [bytearray(b"\xff")],
    }

    assert same(codec.decode(codec.encode(data)), data)


def test_the_path_goes_through_a_registered_type() -> None:
    """A value inside one is named as an attribute where its plain form is a dict, else by its place."""
    codec = money_codec().register(Basket, 8, list, Basket).register(Item, 9, lambda _: {"a b": ..., 1: 1}, Item)

    for value, path in [
        ([0, 1, Money(object())], "[2].amount"),
        (Money(Money({"amount": ...})), '.amount.amount["amount"]'),
        (Basket([1, Money(...)]), "[1].amount"),
        ({Money(bytearray(b"x"))}, "{…}.amount"),
        (Item(), '["a b"]'),
    ]:
        with pytest.raises(EncodeError) as refused:
            codec.encode({"cart": value})
        assert str(refused.value).startswith(f'session["cart"]{path}: is of type ')


def test_an_encode_function_that_raises_is_an_encode_error_with_its_cause() -> None:
    """The fault of a function of your own is found by path, too."""

    def encode(_: Money) -> Any:
        raise RuntimeError("no rate")

    with pytest.raises(EncodeError, match=r'^session\["price"\]\[1\]: .*no rate') as refused:
        Codec().register(Money, 0, encode, Money).encode({"price": [1, Money(1)]})

    assert isinstance(refused.value.__cause__, RuntimeError)


def test_an_encode_function_that_never_ends_is_refused() -> None:
    """One that returns what it was given, or ever more of its kind, is stopped."""
    with pytest.raises(EncodeError, match=r'^session\["a"\]: contains itself'):
        Codec().register(Money, 0, lambda money: money, Money).encode({"a": Money(1)})
    with pytest.raises(EncodeError, match=r'^session\["a"\]: is nested more than 255 deep'):
        Codec().register(Money, 0, lambda money: Money(money.amount), Money).encode({"a": Money(1)})


def test_a_decode_function_that_raises_is_a_decode_error() -> None:
    """A type whose fields have changed leaves an unreadable record, not a failed request."""
    encoded = money_codec().encode({"a": Money(1)})

    with pytest.raises(DecodeError, match="unexpected keyword argument"):
        Codec().register(Money, 7, vars, lambda plain: Money(**plain | {"more": 1})).decode(encoded)


def test_a_tag_nobody_registered_is_a_decode_error_that_names_it() -> None:
    """A worker of an older version cannot read what a newer one has written, and says what it lacks."""
    encoded = money_codec().encode({"a": Money(1)})

    with pytest.raises(DecodeError, match=r"no type has the tag 7\. Codec\.register gives it one"):
        Codec().decode(encoded)


@pytest.mark.parametrize("kind", [int, str, dict, list, tuple, set, frozenset, bytes, datetime, UUID, type(None)])
def test_a_builtin_type_is_not_registered(kind: type) -> None:
    """What the codec keeps by itself has one form for ever."""
    with pytest.raises(ConfigError, match="register only types of your own"):
        Codec().register(kind, 1, str, kind)


@pytest.mark.parametrize("tag", [-1, 64, 96, 127, 1000])
def test_a_tag_out_of_range_is_refused(tag: int) -> None:
    """The tags above 63 are the codec's."""
    with pytest.raises(ConfigError, match=rf"^tag={tag} for Money is out of range: choose one from 0 to 63"):
        Codec().register(Money, tag, vars, Money)


def test_a_tag_and_a_type_are_registered_once() -> None:
    """Two types of one tag could not be told apart."""
    with pytest.raises(ConfigError, match=r"^tag=7 for Item is taken by another type: choose a free one"):
        money_codec().register(Item, 7, vars, Item)
    with pytest.raises(ConfigError, match=r"^Money is registered already: register each type once"):
        money_codec().register(Money, 8, vars, Money)


def test_codecs_do_not_share_their_types() -> None:
    """A type registered with one codec is unknown to the next."""
    money_codec()

    with pytest.raises(EncodeError):
        Codec().encode({"a": Money(1)})


# --- JSON ---

JSON_NAMES = """
None;True;False;0;1;-1;2**63;2**64-1;2**64;-2**63;-2**63-1;0.0;-0.0;1.0;1e308;empty str;NUL;astral;
č, which is 0xC4 0x8D;Ԁ, which is 0xD4 0x80;long str;empty list;list;empty dict;dict
"""
JSON_VALUES = {name: VALUES[name] for name in JSON_NAMES.replace("\n", "").split(";")}


@cases(JSON_VALUES)
def test_json_keeps_what_json_holds(value: Any) -> None:
    """Each of them comes back as it was, and any other program reads the same."""
    data = {"key": value, "list": [value], "dict": {"a": {"b": value}}}
    encoded = JSONCodec().encode(data)

    assert same(JSONCodec().decode(encoded), data)
    assert same(json.loads(encoded), data)


@cases({name: value for name, value in VALUES.items() if name not in JSON_VALUES and name != "many"})
def test_json_refuses_what_it_would_change(value: Any) -> None:
    """Everything else is refused, though other encoders write a tuple as a list and an int key as text."""
    with pytest.raises(EncodeError, match=r'^session\["cart"\]\[2\]'):
        JSONCodec().encode({"cart": [1, {"a": "b"}, value]})


JSON_REFUSED: dict[str, tuple[Any, str, str]] = {
    "tuple": ((1,), "", "is of type tuple, which JSON has not"),
    "bytes": ([b"x"], "[0]", "is of type bytes, which JSON has not"),
    "bytearray": ([1, {"a": bytearray(b"x")}], '[1]["a"]', "is of type bytearray, which JSON has not"),
    "packed already": ([ormsgpack.Fragment(b"x")], "[0]", "is of type Fragment, which JSON has not"),
    "str enum": ([Role.ADMIN], "[0]", "is of type Role, which JSON has not"),
    "int enum": ({"a": Level.HIGH}, '["a"]', "is of type Level, which JSON has not"),
    "OrderedDict": (collections.OrderedDict(a=1), "", "is of type OrderedDict, which JSON has not"),
    "nan": ({"a": math.nan}, '["a"]', "is nan, which JSON has not"),
    "-inf": ([1.5, -math.inf], "[1]", "is -inf, which JSON has not"),
    "int of many digits": ([10**5000], "[0]", "has more digits than Python reads back"),
    "int key": ({1: 2}, "[1]", "its key is of type int: use str"),
    "enum key": ({Role.ADMIN: 2}, f"[{Role.ADMIN!r}]", "its key is of type Role: use str"),
    "surrogate": (["\ud800"], "[0]", "has a lone surrogate"),
    "surrogate in a key": ({"a": {"\ud800": 2}}, '["a"]["\\ud800"]', "has a lone surrogate"),
    "cycle": (cyclic_list(), "[1]", "contains itself"),
    "cycle of two": (cyclic_dict(), '["self"][0]', "contains itself"),
    "deep": (nested(DEEPEST, lambda v: [v]), "[0]" * (DEEPEST - 1), "is nested more than 255 deep"),
    "deeper": (nested(50_000, lambda v: [v]), "[0]" * (DEEPEST - 1), "is nested more than 255 deep"),
}


@pytest.mark.parametrize(("value", "path", "reason"), JSON_REFUSED.values(), ids=JSON_REFUSED.keys())
def test_json_names_the_path(value: Any, path: str, reason: str) -> None:
    """A refusal says where, as the default codec does."""
    with pytest.raises(EncodeError) as refused:
        JSONCodec().encode({"fine": [1], "cart": value})

    assert str(refused.value).startswith(f'session["cart"]{path}: {reason}')


def test_json_takes_any_mapping_with_str_keys() -> None:
    """A session is a subclass of dict; its keys are str."""
    assert JSONCodec().encode(collections.OrderedDict(b=1, a="č")) == '{"b":1,"a":"č"}'.encode()
    with pytest.raises(EncodeError, match=r"^session\[1\]: its key is of type int: use str"):
        JSONCodec().encode({1: 2})  # type: ignore[dict-item]


def test_json_is_kept_up_to_the_same_depth() -> None:
    """255 containers, the session among them."""
    data = {"a": nested(DEEPEST - 1, lambda v: [v])}

    assert JSONCodec().decode(JSONCodec().encode(data)) == data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"1",
        b"null",
        b'"a"',
        b'{"a": NaN}',
        b'{"a": [Infinity]}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": -1e999}',
        b'{"a": "\\ud800"}',
        b'{"\\uDFFF": 1}',
        b'{"a": "\xff"}',
        b'{"a": 1} {}',
        b'{"a": 1,}',
        b"{'a': 1}",
        b'{"a": ' + b"9" * 5000 + b"}",
        b'\xef\xbb\xbf{"a": 1}',
        '{"a": 1}'.encode("utf-16"),
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        Codec().encode({"a": 1}),
    ],
    ids=lambda data: repr(data[:20]),
)
def test_json_decodes_an_object_or_raises_a_decode_error(data: bytes) -> None:
    """What is not an object of real JSON is not a session."""
    with pytest.raises(DecodeError, match=r"^These bytes are not a session: "):
        JSONCodec().decode(data)


def test_json_reads_what_other_languages_write() -> None:
    """White space, escapes and exponents included."""
    written = b'{ "a" : "\\u00e9\\ud83d\\ude00\\/", "b" : [ 1.5E2, -0 ] }\n'

    assert same(JSONCodec().decode(written), {"a": "é\U0001f600/", "b": [150.0, 0]})


@unhurried
@given(st.dictionaries(st.text(), plain_values))
def test_every_json_session_comes_back(data: dict[str, Any]) -> None:
    """Whatever it is built from, and it makes the same bytes again."""
    encoded = JSONCodec().encode(data)

    assert same(JSONCodec().decode(encoded), data)
    assert JSONCodec().encode(JSONCodec().decode(encoded)) == encoded
