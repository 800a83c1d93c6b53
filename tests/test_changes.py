"""Merging, as a property: whatever two requests do to different keys is there in the end."""

from copy import deepcopy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from asgi_sessions import Codec
from asgi_sessions._changes import Operation, between

codec = Codec()
keys = st.sampled_from("abcdef")
values = st.none() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=3)
data = st.dictionaries(keys, values)


def encode(key: str, value: Any) -> bytes:
    """Encode one pair, as the manager does."""
    return codec.encode({key: value})


@given(data, data)
def test_changes_lead_from_one_to_the_other(base: dict[str, Any], mine: dict[str, Any]) -> None:
    """Put on what they started from, they make what they made."""
    changes = between(deepcopy(base), mine, (), encode)

    assert encode("all", sorted(changes.onto(deepcopy(base)).items())) == encode("all", sorted(mine.items()))
    assert changes.clash(base, base, encode) is None


@given(data, data, data)
def test_both_sides_of_a_merge_arrive(base: dict[str, Any], mine: dict[str, Any], theirs: dict[str, Any]) -> None:
    """A key that one side changed is as that side made it; one that both changed is ours, a clash if they differ."""
    changes = between(deepcopy(base), mine, (), encode)
    merged = changes.onto(deepcopy(theirs))
    clashes = set()
    for key in {*base, *mine, *theirs}:
        was, ours, other = (encode(key, each[key]) if key in each else None for each in (base, mine, theirs))
        expected = ours if ours != was else other
        assert (encode(key, merged[key]) if key in merged else None) == expected
        if ours != was and other not in (was, ours):
            clashes.add(key)

    found = changes.clash(base, theirs, encode)
    assert (found in clashes) if clashes else (found is None)


@given(st.lists(st.integers(), max_size=4), st.lists(st.integers(), max_size=4), st.lists(st.integers(), max_size=4))
def test_appends_of_both_sides_arrive(base: list[int], ours: list[int], theirs: list[int]) -> None:
    """In the order of the commits, none lost."""
    operations = [Operation("append", "list", number) for number in ours]
    changes = between({"list": list(base)}, {"list": base + ours}, operations, encode)

    assert changes.onto({"list": base + theirs}) == {"list": base + theirs + ours}


def test_an_operation_undone_by_hand_counts_as_put() -> None:
    """What the operations do not account for is an assignment."""
    operations = [Operation("increment", "n", 1)]
    changes = between({"n": 1}, {"n": 7}, operations, encode)

    assert (changes.put, dict(changes.repeated)) == ({"n": 7}, {})


def test_an_operation_whose_key_was_deleted_counts_as_dropped() -> None:
    """The deletion came later."""
    changes = between({"n": 1}, {}, [Operation("increment", "n", 1)], encode)

    assert changes.onto({"n": 5, "a": 1}) == {"a": 1}


def test_operations_that_no_longer_fit_the_loaded_value_count_as_put() -> None:
    """The value was replaced first, then counted on."""
    changes = between({"n": "text"}, {"n": 1}, [Operation("increment", "n", 1)], encode)

    assert changes.onto({"n": 5}) == {"n": 1}


def test_taking_the_last_message_takes_the_key() -> None:
    """And what came meanwhile stays, unless it is of another kind."""
    operations = [Operation("take", "_flashes", "a"), Operation("take", "_flashes", "gone")]
    changes = between({"_flashes": ["a"]}, {}, operations, encode)

    assert changes.onto({"_flashes": ["a", "b"]}) == {"_flashes": ["b"]}
    assert changes.onto({"_flashes": ["a"]}) == {}
    assert changes.onto({}) == {}
    assert changes.onto({"_flashes": "text"}) == {}


def test_a_new_session_brings_along_only_what_is_new() -> None:
    """Nothing that was there, nor anything made of it."""
    operations = [Operation("append", "new", 1), Operation("append", "old", 1)]
    base = {"old": [0], "deep": [{"a": 1}]}
    mine = {"old": [0, 1], "deep": [{"a": 2}], "new": [1], "put": 1}
    changes = between(deepcopy(base), mine, operations, encode)

    assert changes.added_to(base) == {"new": [1], "old": [1], "put": 1}
