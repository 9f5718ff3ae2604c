from __future__ import annotations

import collections
import math
import operator
import os
import threading
from typing import Any
from unittest.mock import ANY

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepcredit.grading.programs.messages import ClosedError, Codec, Wire

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.fractions(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def codec(*, is_careful: bool = True) -> Codec:
    return Codec(lambda number: f"remote {number}", is_careful=is_careful)


@settings(max_examples=40)
@given(plain)
def test_plain_values_arrive_as_they_were(value: Any) -> None:
    copy = codec().decode(codec().encode(value))
    assert copy == value
    assert type(copy) is type(value)


def test_other_objects_stay_where_they_are() -> None:
    here, value = codec(), object()
    assert codec().decode(here.encode(value)) == "remote 0"
    assert here.decode({"yours": 0}) is value
    assert codec(is_careful=False).decode(here.encode(os.path.join)) is os.path.join


@pytest.mark.parametrize("value", [os.path.join, exec, ANY, print])
def test_of_the_library_a_program_names_plain_things_only(value: Any) -> None:
    assert codec(is_careful=False).encode(value) == {"mine": 0}
    for plain_thing in (math.gcd, collections.Counter, len, operator.add):
        message = codec(is_careful=False).encode(plain_thing)
        assert codec().decode(message) is plain_thing


@pytest.mark.parametrize(
    "message",
    [
        {"yours": 7},
        {"global": ["stepcredit.grading", "make_grader"]},
        {"global": ["builtins", "exec"]},
        {"global": ["sys", "modules"]},
        {"global": ["unittest.mock", "ANY"]},
        {"complex": ["x"]},
        {"range": [0, 1, 0]},
        {"error": [[0, "Own"], "print"]},
        {"nothing": 1},
        {"list": 1},
        {"dict": [[1]]},
        {"a": 1, "b": 2},
    ],
)
def test_nonsense_is_refused(message: Any) -> None:
    with pytest.raises(ClosedError):
        codec().decode(message)


def pipes() -> tuple[Wire, int, int]:
    (source, ours), (theirs, target) = os.pipe(), os.pipe()
    return Wire(source, target), ours, theirs


def test_a_wire_carries_large_messages_and_notices_the_end() -> None:
    (source, target), (other, unused) = os.pipe(), os.pipe()
    wire = Wire(source, target)
    text = "é" * 500_000
    sender = threading.Thread(target=wire.send, args=(text,))
    sender.start()
    assert wire.receive() == text
    sender.join()
    for end in (other, unused):
        os.close(end)
    closed, ours, theirs = pipes()
    os.close(ours)
    with pytest.raises(ClosedError):
        closed.receive()
    os.close(theirs)
    with pytest.raises(ClosedError):
        closed.send("x")


@pytest.mark.parametrize(
    "sent", [b"\x05\x00\x00\x00abcde", b"\xff\xff\xff\xff", b"\x05\x00", b"\x02\x00\x00\x00[["]
)
def test_what_is_no_message_ends_the_talk(sent: bytes) -> None:
    wire, ours, theirs = pipes()
    os.write(ours, sent)
    os.close(ours)
    with pytest.raises(ClosedError):
        wire.receive()
    os.close(theirs)
