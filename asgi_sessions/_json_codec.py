"""
A session as JSON, and back: what JSON cannot hold is refused, with its path.

Whether it can is asked of ormsgpack first, which knows the types of a whole session in one call; only where its answer
is no, or uncertain, is every value looked at here.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

from ormsgpack import MsgpackEncodeError, packb

from asgi_sessions._codec import FLAGS, are_all, may_have_bytes
from asgi_sessions._trail import Trail
from asgi_sessions.errors import DecodeError

_KINDS = frozenset({type(None), bool, float, int, str})


class JSONCodec:
    """
    JSON in UTF-8, to share sessions with programs in other languages.

    Keeps None, bool, int, finite float, str, list, and dict with str keys, 255 containers deep with the session itself.
    Everything else is refused instead of changed, and so is an int of more digits than Python reads back
    (`sys.set_int_max_str_digits`).
    """

    def encode(self, data: Mapping[str, Any]) -> bytes:
        """Return *data* as bytes, equal bytes for equal data. `EncodeError` names the path of what JSON cannot hold."""
        plain = data if type(data) is dict else dict(data)
        try:
            if _is_json(plain):
                return _json_encoder.encode(plain).encode()
        except (TypeError, ValueError):  # a number that JSON has not, or a value of ormsgpack's: the walk finds where
            pass
        trail = Trail()
        try:
            _check_json(plain, trail)
            return _json_encoder.encode(plain).encode()
        except RecursionError as error:
            raise trail.error("is nested too deep for what is left of the stack") from error

    def decode(self, data: bytes) -> dict[str, Any]:
        """Return the object in *data*. Whatever else the bytes are, raise `DecodeError` and nothing else."""
        try:
            return self._read(data.decode())
        except Exception as error:  # ValueError, RecursionError, EncodeError: all the same to the caller
            raise DecodeError(f"These bytes are not a session: {error}") from error

    def _read(self, text: str) -> dict[str, Any]:
        value = _json_decoder.decode(text)
        if type(value) is not dict:
            raise TypeError("not an object")
        if "\\u" in text:  # the only way to write a lone surrogate
            _check_json(value, Trail())
        return value


def _is_json(data: dict[str, Any]) -> bool:
    """Return whether JSON holds *data*, numbers aside. No is not certain; packing is the quickest check of types."""
    try:
        packed = packb(data, None, FLAGS)
    except MsgpackEncodeError:
        return False
    return not may_have_bytes(packed) or are_all(_KINDS, data.values())


def _check_json(value: Any, trail: Trail) -> None:
    kind = type(value)
    if value is None or kind is bool:
        return
    if kind is str:
        trail.check(value)
    elif kind is int or kind is float:
        _check_number(value, trail)
    elif kind is list or kind is dict:
        trail.enter(value)
        for key, item in enumerate(value) if kind is list else value.items():
            trail.at("[", key)
            if kind is dict:
                if type(key) is not str:
                    raise trail.error(f"its key is of type {type(key).__qualname__}: use str")
                trail.check(key)
            _check_json(item, trail)
        trail.leave(value)
    else:
        raise trail.error(f"is of type {kind.__qualname__}, which JSON has not")


def _check_number(value: float, trail: Trail) -> None:
    try:
        text = repr(value)
    except ValueError as error:
        raise trail.error("has more digits than Python reads back") from error
    if text in ("nan", "inf", "-inf"):
        raise trail.error(f"is {text}, which JSON has not")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError("a number out of range")
    return value


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


_json_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"))
_json_decoder = json.JSONDecoder(parse_float=_finite, parse_constant=_refuse)
