"""
A session as bytes, and back.

Rule 1: what would not come back equal and of the same type is refused, with its path. Nothing is changed in silence,
        nothing is pickled.
Rule 2: equal data makes equal bytes (the order of a dict is part of the data, that of a set is not), since what has
        changed is found by comparing bytes.
Rule 3: any bytes whatever decode to a dict or raise `DecodeError`.

`Codec` first tries the fast way, one call of ormsgpack, which hands over each type that it would change. Where that
fails, or may have passed something over, `_Walk` makes the same bytes in Python and knows where it stands.
"""

import struct
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any, NamedTuple, Protocol, Self, TypeVar, cast
from uuid import UUID
from zoneinfo import ZoneInfo

import ormsgpack
from ormsgpack import Ext, Fragment, packb, unpackb

from asgi_sessions._trail import Trail, show
from asgi_sessions.errors import ConfigError, DecodeError, EncodeError

T = TypeVar("T")

_TAGS = 64  # of the user's own types, from 0 up; the built-in ones are above

FLAGS = (
    ormsgpack.OPT_PASSTHROUGH_BIG_INT
    | ormsgpack.OPT_PASSTHROUGH_DATACLASS
    | ormsgpack.OPT_PASSTHROUGH_DATETIME
    | ormsgpack.OPT_PASSTHROUGH_ENUM
    | ormsgpack.OPT_PASSTHROUGH_SUBCLASS
    | ormsgpack.OPT_PASSTHROUGH_TUPLE
    | ormsgpack.OPT_PASSTHROUGH_UUID
)

# unpackb ignores what follows the first value: a pickle (0x80 …) would read as an empty session. So the length goes
# first, after a byte that begins neither a msgpack nor a pickle nor a text.
_frame = struct.Struct(">BI")
_FIRST = 0xC1


class AnyCodec(Protocol):
    """Turns the data of a session into bytes, and back."""

    def encode(self, data: Mapping[str, Any]) -> bytes:
        """Return *data* as bytes, equal bytes for equal data. `EncodeError` names the path of what cannot be kept."""
        ...

    def decode(self, data: bytes) -> dict[str, Any]:
        """Return what `encode` was given. Whatever else the bytes are, raise `DecodeError` and nothing else."""
        ...


# What msgpack does not know: each type with its tag, how it is written, how it is read. A tag is for ever.


class _Extension(NamedTuple):
    tag: int
    write: Callable[[Any], Any]
    read: Callable[[Any], Any]

    @property
    def mark(self) -> Ext:
        """Return what a container's list begins with."""
        return Ext(self.tag, b"\0")


def _write_zone(zone: tzinfo | None) -> str | list[Any] | None:
    if zone is None:
        return None
    if type(zone) is ZoneInfo and zone.key:
        return ZoneInfo(zone.key).key  # looked up, since one made from a file may bear a key that nobody finds
    if type(zone) is timezone:
        offset, *name = cast("Any", zone).__getinitargs__()  # nothing else tells whether it was given a name
        return [offset.days, offset.seconds, offset.microseconds, *name]
    raise ValueError(f"its tzinfo is of type {type(zone).__qualname__}: use a ZoneInfo that has a key, or a timezone")


def _read_zone(plain: Any) -> tzinfo | None:
    if isinstance(plain, list):
        return timezone(timedelta(*plain[:3]), *plain[3:])
    return None if plain is None else ZoneInfo(plain)


def _write_clock(value: datetime | time) -> list[Any]:
    return [value.replace(tzinfo=None).isoformat(), value.fold, _write_zone(value.tzinfo)]


def _read_datetime(plain: Any) -> datetime:
    return datetime.fromisoformat(plain[0]).replace(fold=plain[1], tzinfo=_read_zone(plain[2]))


def _read_time(plain: Any) -> time:
    return time.fromisoformat(plain[0]).replace(fold=plain[1], tzinfo=_read_zone(plain[2]))


def _read_dict(items: list[Any]) -> dict[Any, Any]:
    if not _KEYS.issuperset(map(type, items[::2])):
        raise ValueError("a key of a foreign type")
    return dict(zip(items[::2], items[1::2], strict=True))


def _write_set(value: Iterable[Any]) -> list[Fragment]:
    return [Fragment(item) for item in sorted([packb(item, _write_leaf, FLAGS) for item in value])]


_LEAVES = {  # hold no other values: an Ext of packed bytes
    int: _Extension(64, lambda v: f"{v:x}", lambda p: int(p, 16)),  # over 64 bits; hex takes linear time and any length
    datetime: _Extension(65, _write_clock, _read_datetime),
    date: _Extension(66, date.isoformat, date.fromisoformat),
    time: _Extension(67, _write_clock, _read_time),
    timedelta: _Extension(68, lambda v: [v.days, v.seconds, v.microseconds], lambda p: timedelta(*p)),
    UUID: _Extension(69, lambda v: v.hex, UUID),
    Decimal: _Extension(70, lambda v: str(v).upper(), Decimal),  # upper: the context's `capitals` must not show
}
_LEAF_READERS = {leaf.tag: leaf.read for leaf in _LEAVES.values()}

# Hold other values: a list that begins with a mark. Were they an Ext of packed bytes too, each level of them would be a
# reading inside a reading, every one with a depth of its own: hostile bytes could use up any C stack.
_CONTAINERS: dict[type, _Extension] = {
    tuple: _Extension(96, list, tuple),
    set: _Extension(97, _write_set, set),
    frozenset: _Extension(98, _write_set, frozenset),
}
_DICT = _Extension(99, dict.items, _read_dict)  # with keys that are not all str: key, value, key, value
_MARK_BYTE = 0xD4  # what a mark begins with when packed

_ATOMS = frozenset({type(None), bool, float, bytes})
_KEYS = _ATOMS | {str, int}
_VALUES = _KEYS | _LEAVES.keys()
_HOLDERS = _CONTAINERS.keys() | {list, dict}


class _Mark(NamedTuple):
    tag: int


def _write_leaf(value: Any) -> Ext:
    tag, write, _ = _LEAVES[type(value)]
    return Ext(tag, packb(write(value)))


def _read_leaf(tag: int, data: bytes) -> Any:
    return _LEAF_READERS[tag](unpackb(data))


def _read_leaf_or_mark(tag: int, data: bytes) -> Any:
    return _Mark(tag) if data == b"\0" else _read_leaf(tag, data)


class Codec:
    """
    The default codec: msgpack, with an extension for each type that msgpack lacks.

    Keeps None, bool, int, float, str, bytes, list, tuple, set, frozenset, dict (its keys str, int, bool, None, float or
    bytes), datetime, date, time, timedelta, UUID and Decimal, 255 containers deep with the session itself. Subclasses
    (enums, named tuples, OrderedDict, …) would come back as something else and are refused: store their plain value, or
    register them.
    """

    def __init__(self) -> None:
        """Begin with the built-in types."""
        self._containers = dict(_CONTAINERS)
        self._readers = {each.tag: each.read for each in (*_CONTAINERS.values(), _DICT)}

    def register(self, type: type[T], tag: int, encode: Callable[[T], Any], decode: Callable[[Any], T]) -> Self:
        """
        Keep values of exactly this *type* too. Returns the codec.

        Args:
            type: a type of your own.
            tag: 0 to 63, written with each value: never give it to another type while old sessions live.
            encode: returns a value that the codec keeps, such as a dict of the attributes; registered types may be in
                it. Equal values must give equal results.
            decode: its inverse. It will also meet what earlier versions of your application wrote.
        """
        name = type.__qualname__
        if type in _VALUES or type in _HOLDERS:
            raise ConfigError(f"{name} is kept without being registered: register only types of your own.")
        if type in self._containers:
            raise ConfigError(f"{name} is registered already: register each type once.")
        if not 0 <= tag < _TAGS:
            raise ConfigError(f"tag={tag} for {name} is out of range: choose one from 0 to 63.")
        if tag in self._readers:
            raise ConfigError(f"tag={tag} for {name} is taken by another type: choose a free one from 0 to 63.")
        self._containers[type] = _Extension(tag, lambda value: [encode(value)], lambda items: decode(*items))
        self._readers[tag] = self._containers[type].read
        return self

    def encode(self, data: Mapping[str, Any]) -> bytes:
        """Return *data* as bytes, equal bytes for equal data. `EncodeError` names the path of what cannot be kept."""
        plain = data if type(data) is dict else dict(data)
        try:
            packed = packb(plain, self._default, FLAGS)
        except ormsgpack.MsgpackEncodeError:
            packed = b""
        if not packed or (may_have_bytes(packed) and not are_all(_VALUES, plain.values())):
            packed = _Walk(self._containers).pack(plain)
        return _frame.pack(_FIRST, len(packed)) + packed

    def decode(self, data: bytes) -> dict[str, Any]:
        """Return what `encode` was given. Whatever else the bytes are, raise `DecodeError` and nothing else."""
        try:
            return self._read(data)
        except Exception as error:  # whatever readers, and decode functions of the user's, make of foreign bytes
            raise DecodeError(f"These bytes are not a session: {error}") from error

    def _read(self, data: bytes) -> dict[str, Any]:
        if data[:5] != _frame.pack(_FIRST, len(data) - 5):
            raise ValueError("not written by this codec, or not whole")
        packed = data[5:]
        marked = _MARK_BYTE in packed  # else none is let in, so that none is left in
        value = unpackb(packed, ext_hook=_read_leaf_or_mark if marked else _read_leaf)
        if type(value) is not dict:
            raise TypeError("not a dict")
        if marked:
            self._revive(value)
        return value

    def _default(self, value: Any) -> Any:
        """Return what stands for a value that packb handed over. Raise what it likes for one that needs a walk."""
        kind = type(value)
        if kind in _LEAVES:
            return _write_leaf(value)
        container = self._containers[kind]
        return [container.mark, *container.write(value)]

    def _revive(self, value: Any) -> Any:
        """Return a list or dict after replacing each marked list by what it stands for."""
        is_list = type(value) is list
        for key, item in enumerate(value) if is_list else value.items():
            kind = type(item)
            if kind is list or kind is dict:
                value[key] = self._revive(item)
            elif kind is _Mark and not (is_list and key == 0):
                raise ValueError("a mark out of place")
        if not is_list or not value or type(value[0]) is not _Mark:
            return value
        tag = value[0].tag
        if tag not in self._readers:
            raise ValueError(f"no type has the tag {tag}. Codec.register gives it one")
        return self._readers[tag](value[1:])


def may_have_bytes(packed: bytes) -> bool:
    """Return whether bytes may be in *packed*; if so, a bytearray or memoryview may be, which packb takes for bytes."""
    # What they begin with: up to 255 bytes, up to 65535, and more. So a short text or number is seldom suspected.
    size = len(packed)
    return 0xC4 in packed or (size > 0xFF and 0xC5 in packed) or (size > 0xFFFF and 0xC6 in packed)  # noqa: PLR2004


def are_all(kinds: frozenset[type], values: Iterable[Any]) -> bool:
    """Return whether *values*, and all in containers among them, are of *kinds*. packb took them: there is no cycle."""
    todo, known = [values], kinds | _HOLDERS
    for each in todo:
        if kinds.issuperset(map(type, each)):
            continue
        if not known.issuperset(map(type, each)):
            return False
        todo += [item.values() if type(item) is dict else item for item in each if type(item) in _HOLDERS]
    return True


class _Walk:
    """The careful way to the same bytes. Each container becomes one list or dict, and enters the trail once."""

    def __init__(self, containers: Mapping[type, _Extension]) -> None:
        self._containers = containers
        self._trail = Trail()

    def pack(self, data: dict[Any, Any]) -> bytes:
        for key in data:
            if type(key) is not str:
                raise EncodeError(f"session{show('[', key)}: its key is of type {type(key).__qualname__}: use str")
        try:
            return packb(self._plain(data), None, FLAGS)
        except RecursionError as error:
            raise self._trail.error("is nested too deep for what is left of the stack") from error

    def _plain(self, value: Any, form: str = "[") -> Any:
        kind = type(value)
        if kind is str:
            return self._trail.check(value)
        if kind in _ATOMS or (kind is int and -(1 << 63) <= value < 1 << 64):
            return value
        if kind in _LEAVES:
            return self._leaf(value)
        if kind is list:
            return self._items(value)
        if kind is dict:
            return self._dict(value, form)
        if kind not in self._containers:
            raise self._trail.error(f"is of type {kind.__qualname__}: store a plain value, or use Codec.register")
        mark = self._containers[kind].mark
        if kind is tuple:
            return [mark, *self._items(value)]
        if kind in _CONTAINERS:
            return [mark, *_write_set(self._items(value, "{…}"))]
        return [mark, self._custom(value)]

    def _leaf(self, value: Any) -> Ext:
        try:
            return _write_leaf(value)
        except Exception as error:  # a time zone that cannot be named, or not in Unicode
            raise self._trail.error(f"cannot be kept: {error}") from error

    def _items(self, value: Iterable[Any], form: str = "[") -> list[Any]:
        self._trail.enter(value)
        plain = []
        for index, item in enumerate(value):
            self._trail.at(form, index)
            plain.append(self._plain(item))
        self._trail.leave(value)
        return plain

    def _dict(self, value: dict[Any, Any], form: str) -> dict[str, Any] | list[Any]:
        self._trail.enter(value)
        keys, plain = [], []
        for key, item in value.items():
            self._trail.at(form, key)
            if type(key) not in _KEYS:
                raise self._trail.error(
                    f"its key is of type {type(key).__qualname__}: use str, int, bool, None, float, bytes"
                )
            keys.append(self._plain(key))
            plain.append(self._plain(item))
        self._trail.leave(value)
        if all(type(key) is str for key in keys):
            return dict(zip(keys, plain, strict=True))
        return [_DICT.mark, *(each for pair in zip(keys, plain, strict=True) for each in pair)]

    def _custom(self, value: Any) -> Any:
        self._trail.enter(value)
        try:
            (encoded,) = self._containers[type(value)].write(value)
        except Exception as error:  # the function is the user's
            raise self._trail.error(f"is refused by the function registered for it: {error!r}") from error
        plain = self._plain(encoded, ".")
        self._trail.leave(value)
        return plain
