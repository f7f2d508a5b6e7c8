"""Lengths of time: what can be written, and the sentence for what cannot."""

import pytest

from query.errors import LengthError
from query.lengths import length_s, step_s


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("2s", 2), ("1.5h", 5400), ("1h30m", 5400), ("1h 30m", 5400), ("2 d", 172_800), ("1w", 604_800)],
)
def test_a_length_is_as_many_seconds(text, seconds):
    assert length_s(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "s", "2 lightyears", "-1s", "1h30", "1e3s", "٣s"])
def test_what_is_no_length_is_refused_with_what_to_write(text):
    with pytest.raises(LengthError, match=r"is no length of time: write it as 500ms, 2s, 15m or 1h30m$"):
        length_s(text)


@pytest.mark.parametrize(("text", "words"), [("0s", "is nothing"), ("999999999w", "is too long")])
def test_a_length_that_cannot_be_meant_is_refused(text, words):
    with pytest.raises(LengthError, match=words):
        length_s(text)


def test_a_step_is_whole_seconds():
    assert step_s("5m") == 300
    with pytest.raises(LengthError, match="A step of 1500ms is not whole seconds: give one such as 10s, 5m or 1h"):
        step_s("1500ms")
