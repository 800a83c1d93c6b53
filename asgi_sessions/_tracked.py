"""
A dict that tells of every access.

Rule 1: each method of `dict` that reads passes `_read`, each that changes passes `_change`: both may refuse.
Rule 2: what copies it gets a plain dict.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self


class TrackedDict(dict[str, Any]):
    """What `Session` is as a dict."""

    __slots__ = ()

    def _read(self) -> None:
        """Note an access, or refuse it: by raising."""

    def _change(self) -> None:
        """Note a change that is about to be made, or refuse it: by raising."""

    def __getitem__(self, key: str) -> Any:
        self._read()
        return dict.__getitem__(self, key)

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of *key*, else *default*."""
        self._read()
        return dict.get(self, key, default)

    def __contains__(self, key: object) -> bool:
        self._read()
        return dict.__contains__(self, key)

    def __len__(self) -> int:
        self._read()
        return dict.__len__(self)

    def __iter__(self) -> Iterator[str]:
        self._read()
        return dict.__iter__(self)

    def __reversed__(self) -> Iterator[str]:
        self._read()
        return dict.__reversed__(self)

    def __eq__(self, other: object) -> bool:
        self._read()
        return dict.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        self._read()
        return dict.__ne__(self, other)

    __hash__ = None  # like every dict

    def keys(self) -> Any:
        """Return a view of the keys."""
        self._read()
        return dict.keys(self)

    def values(self) -> Any:
        """Return a view of the values."""
        self._read()
        return dict.values(self)

    def items(self) -> Any:
        """Return a view of the pairs."""
        self._read()
        return dict.items(self)

    def copy(self) -> dict[str, Any]:
        """Return a plain dict of the same values."""
        self._read()
        return dict(dict.items(self))

    def __or__(self, other: Any) -> Any:
        return self.copy() | other

    def __ror__(self, other: Any) -> Any:
        return other | self.copy()

    def __reduce_ex__(self, protocol: object) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        """Copy and pickle as a plain dict: a session is of one request."""
        return dict, (self.copy(),)

    def __setitem__(self, key: str, value: Any) -> None:
        self._change()
        dict.__setitem__(self, key, value)

    def __delitem__(self, key: str) -> None:
        self._change()
        dict.__delitem__(self, key)

    def pop(self, key: str, *default: Any) -> Any:
        """Remove *key* and return its value, else *default*, which changes nothing."""
        self._read()
        if dict.__contains__(self, key):
            self._change()
        return dict.pop(self, key, *default)

    def popitem(self) -> tuple[str, Any]:
        """Remove and return the pair added last."""
        self._change()
        return dict.popitem(self)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return the value of *key*, which is *default* from now on if there was none."""
        self._read()
        if not dict.__contains__(self, key):
            self[key] = default
        return dict.__getitem__(self, key)

    def update(  # type: ignore[override]  # one signature for the three overloads of dict
        self, *others: Mapping[str, Any] | Iterable[tuple[str, Any]], **values: Any
    ) -> None:
        """Set many keys at once; none changes nothing."""
        self._read()
        if new := dict(*others, **values):
            self._change()
            dict.update(self, new)

    def __ior__(self, other: Any) -> Self:  # type: ignore[override]  # in place, where `|` copies
        self.update(other)
        return self
