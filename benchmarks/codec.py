"""
What the codecs cost, and what they keep: `python -m benchmarks.codec`.

Every round measures each contender once, one after the other, so that a slow moment of the machine falls on all alike.
The last column is tried, not claimed: how many of the values that a session may hold come back equal, of the same type.
"""

import importlib
import json
import math
import statistics
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from timeit import Timer
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from asgi_sessions import Codec, JSONCodec

ROUNDS = 15
SECONDS_PER_MEASUREMENT = 0.01


class Contender(NamedTuple):
    """A pair of functions under a name."""

    name: str
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


def contenders() -> tuple[list[Contender], list[str]]:
    """Return those that are installed, and what to install for the others."""
    codec, json_codec = Codec(), JSONCodec()
    found = [
        Contender("Codec", codec.encode, codec.decode),
        Contender("JSONCodec", json_codec.encode, json_codec.decode),
        Contender("json", lambda data: json.dumps(data).encode(), json.loads),
    ]
    missing = []
    for name, module, encode, decode in [
        ("ormsgpack", "ormsgpack", "packb", "unpackb"),
        ("msgspec.msgpack", "msgspec.msgpack", "encode", "decode"),
        ("orjson", "orjson", "dumps", "loads"),
    ]:
        try:
            imported = importlib.import_module(module)
        except ImportError:
            missing.append(f"{name} is not measured: pip install {module.partition('.')[0]}")
        else:
            found.append(Contender(name, getattr(imported, encode), getattr(imported, decode)))
    return found, missing


def session(size: int) -> dict[str, Any]:
    """Return the data of a session of about *size* bytes, of types that every contender keeps."""
    data: dict[str, Any] = {
        "user_id": "0192f3c4-7b1e-7c3a-9f55-2b1d8e6a4c10",
        "name": "Ada Lovelace",
        "is_staff": False,
        "visits": 17,
        "csrf": "q2Vf8w3kZrYpT0uLxN5bHs7dJc4aGm9e",
        "theme": "dark",
        "recent": [101, 102, 205, 309],
    }
    cart: list[dict[str, Any]] = []
    while len(json.dumps(data)) < size:
        data["cart"] = cart
        for _ in range(max(1, (size - len(json.dumps(data))) // 100)):
            number = len(cart)
            cart.append(
                {"sku": f"SKU-{number:06}", "title": "A book", "count": 1 + number % 3, "price": 1990, "gift": False}
            )
    return data


def kept_types() -> dict[str, Any]:
    """Return one value, or several, of each kind that a session may hold."""
    now = datetime(2026, 10, 25, 2, 30, 1, 123456)  # noqa: DTZ001
    return {
        "None": None,
        "bool": [True, False],
        "int": [0, -1, 2**63 - 1, -(2**63)],
        "int over 64 bits": [2**64, 10**30],
        "float": [1.5, 1.0, -0.0],
        "NaN": math.nan,
        "infinity": [math.inf, -math.inf],
        "str": ["", "a\0b", "\U0001f600"],
        "bytes": b"\0\xff",
        "list": [[], [1, [2]]],
        "tuple": (1, (2,)),
        "set": {1, "a"},
        "frozenset": frozenset({1, "a"}),
        "dict, str keys": {"b": 1, "a": 2},
        "dict, int keys": {2: 1, 1: 2},
        "dict, bool keys": {True: 1, False: 2},
        "dict, None as key": {None: 1},
        "dict, float keys": {1.5: 1},
        "dict, bytes keys": {b"k": 1},
        "datetime, naive": now,
        "datetime, UTC": now.replace(tzinfo=UTC),
        "datetime, named offset": now.replace(tzinfo=timezone(timedelta(hours=1), "CET")),
        "datetime, ZoneInfo": now.replace(tzinfo=ZoneInfo("Europe/Paris")),
        "datetime, fold": now.replace(fold=1),
        "date": date(2026, 11, 21),
        "time, naive": time(13, 5, 59, 1),
        "time, aware": time(13, 5, tzinfo=timezone(timedelta(hours=2))),
        "timedelta": [timedelta.max, timedelta(microseconds=-1)],
        "UUID": UUID(int=1),
        "Decimal": [Decimal("1.10"), Decimal("-0E+7")],
        "Decimal, not a number": [Decimal("sNaN"), Decimal("-Infinity")],
    }


def keeps(contender: Contender, value: Any) -> bool:
    """Return whether *value* comes back as it was. A repr shows type, order, sign, zone, fold and exponent."""
    try:
        found = contender.decode(contender.encode({"key": value}))["key"]
    except Exception:  # noqa: BLE001  a refusal of any kind is not kept
        return False
    return repr(found) == repr(value) or (
        isinstance(value, set | frozenset) and type(found) is type(value) and found == value
    )


def measure(call: Callable[[Any], Any], argument: Any) -> Callable[[], float]:
    """Return a function that measures *call* for a moment and returns the microseconds of one call."""
    timer = Timer(lambda: call(argument))
    once = max(timer.timeit(20) / 20, 1e-7)
    number = max(1, int(SECONDS_PER_MEASUREMENT / once))
    return lambda: timer.timeit(number) / number * 1e6


def show(times: list[float]) -> str:
    """Return the median with the quartiles."""
    low, median, high = statistics.quantiles(times, n=4)
    return f"{median:.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    """Measure and print."""
    found, missing = contenders()
    types = kept_types()
    kept = {each.name: [name for name, value in types.items() if keeps(each, value)] for each in found}
    print(f"Python {sys.version.split()[0]}; µs a call, median of {ROUNDS} interleaved rounds (quartiles)")
    print(f"{'session':>8}  {'codec':16}{'bytes':>7}  {'encode':30}{'decode':30}{'both':30}kept unchanged")
    for label, size in [("200 B", 200), ("4 kB", 4_000), ("64 kB", 64_000)]:
        data = session(size)
        rounds: list[tuple[Contender, Callable[[], float], Callable[[], float], list[tuple[float, float]]]] = []
        for each in found:
            encoded = each.encode(data)
            assert each.decode(encoded) == data
            rounds.append((each, measure(each.encode, data), measure(each.decode, encoded), []))
        for _ in range(ROUNDS):
            for _, encode, decode, times in rounds:
                times.append((encode(), decode()))
        for each, _, _, times in rounds:
            encodes, decodes = ([time[i] for time in times] for i in (0, 1))
            both = [sum(pair) for pair in times]
            columns = "".join(f"{show(column):30}" for column in (encodes, decodes, both))
            count = f"{len(kept[each.name])} of {len(types)}"
            print(f"{label:>8}  {each.name:16}{len(each.encode(data)):7}  {columns}{count}")
    for name, names in kept.items():
        print(f"\n{name} does not keep: {'; '.join(each for each in types if each not in names) or '(nothing)'}")
    for line in missing:
        print(f"\n{line}")


if __name__ == "__main__":
    main()
