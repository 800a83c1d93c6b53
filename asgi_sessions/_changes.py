"""
What a request did to a session's data, and how it is done again on top of another request's.

Rule 1: everything here is a function of its arguments.
Rule 2: values are compared as encoded bytes: `1 == True` and `nan != nan` mislead `==`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

EncodeOne = Callable[[str, Any], bytes]
Data = dict[str, Any]


class Operation(NamedTuple):
    """A change that can be repeated on whatever value is there then, so that two at once both arrive."""

    verb: Literal["increment", "append", "add", "discard", "take"]
    key: str
    value: Any

    def apply(self, data: Data) -> None:
        """Do it to *data*; TypeError where the value there is of another kind, and *data* is as it was."""
        key, value = self.key, self.value
        match self.verb:
            case "increment":
                data[key] = data.get(key, 0) + value
            case "append":
                self._collection(data, list, []).append(value)
            case "add":
                self._collection(data, set, set()).add(value)
            case "discard" if key in data:
                held = self._collection(data, (set, list), None)
                if value in held:
                    held.remove(value)
            case "take" if key in data:
                held = self._collection(data, list, None)
                if value in held:
                    held.remove(value)
                if not held:
                    del data[key]

    def _collection(self, data: Data, kind: type | tuple[type, ...], empty: Any) -> Any:
        held = data.get(self.key, empty)
        if not isinstance(held, kind):
            message = f"session[{self.key!r}] is a {type(held).__name__}: {self.verb} needs a list or set"
            raise TypeError(message)
        data[self.key] = held
        return held


@dataclass(frozen=True, slots=True)
class Changes:
    """One request's changes, key by key, against what it had loaded."""

    put: Mapping[str, Any]
    dropped: frozenset[str]
    repeated: Mapping[str, tuple[Operation, ...]]
    """The operations of keys whose value is exactly what these make of the loaded one."""
    results: Mapping[str, Any]
    """What the operations came to here."""

    def onto(self, theirs: Data) -> Data:
        """Return *theirs* with these changes. Operations that do not fit their value put ours in its place."""
        merged = {key: value for key, value in theirs.items() if key not in self.dropped} | dict(self.put)
        for key, operations in self.repeated.items():
            try:
                for operation in operations:
                    operation.apply(merged)
            except TypeError:
                merged.pop(key, None)
                merged |= {key: self.results[key]} if key in self.results else {}
        return merged

    def clash(self, base: Data, theirs: Data, encode: EncodeOne) -> str | None:
        """Return a key that the sides changed to different values, operations aside; None where there is none."""
        ours = dict(self.put)
        for key in (*self.put, *self.dropped):
            was, now = _encoded(base, key, encode), _encoded(theirs, key, encode)
            if now not in (was, _encoded(ours, key, encode)):
                return key
        return None

    def added_to(self, base: Data) -> Data:
        """Return only what this request brought along: nothing that *base* held, nor anything made of it."""
        fresh = {key: value for key, value in self.put.items() if key not in base}
        return Changes(fresh, frozenset(), self.repeated, self.results).onto({})


def between(base: Data, mine: Data, operations: Sequence[Operation], encode: EncodeOne) -> Changes:
    """
    Return what leads from *base* to *mine*.

    A key counts as changed by operations only if they account for all of it; a key that was also assigned, or changed
    deep inside, counts as put. The values of *base* are used up.
    """
    before = {key: encode(key, value) for key, value in base.items()}
    repeated = {}
    for key in {operation.key for operation in operations}:
        own = tuple(operation for operation in operations if operation.key == key)
        if _replayed({key: base[key]} if key in base else {}, key, own, encode) == _encoded(mine, key, encode):
            repeated[key] = own
    return Changes(
        put={key: mine[key] for key in mine.keys() - repeated.keys() if encode(key, mine[key]) != before.get(key)},
        dropped=frozenset(before.keys() - mine.keys() - repeated.keys()),
        repeated=repeated,
        results={key: mine[key] for key in repeated if key in mine},
    )


def _replayed(data: Data, key: str, operations: Sequence[Operation], encode: EncodeOne) -> bytes | None:
    try:
        for operation in operations:
            operation.apply(data)
    except TypeError:
        return b""  # equal to no encoded value, and to no missing one
    return _encoded(data, key, encode)


def _encoded(data: Data, key: str, encode: EncodeOne) -> bytes | None:
    return encode(key, data[key]) if key in data else None
