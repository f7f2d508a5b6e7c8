"""Figures as people read them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from query.figures import SPARKS, age_words, significant, sparkline, spelled

INFINITY, NO_NUMBER = math.inf, math.nan


@pytest.mark.parametrize(
    ("value", "figure"),
    [
        (None, None),
        (NO_NUMBER, None),
        (INFINITY, INFINITY),
        (0, 0),
        (0.0, 0),
        (1234, 1230),
        (1234.5, 1230),
        (999.9, 1000),
        (99.94, 99.9),
        (0.00123456, 0.00123),
        (-5.678, -5.68),
        (2.0, 2),
    ],
)
def test_a_figure_has_three_significant_digits_and_whole_ones_stay_whole(value, figure):
    found = significant(value)
    assert (found, type(found)) == (figure, type(figure))


def test_a_figure_may_have_more_digits():
    assert (significant(0.98765, 4), significant(123_456, 5)) == (0.9877, 123_460)


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (None, "W", "–"),
        (NO_NUMBER, "W", "–"),
        (NO_NUMBER, "B", "–"),
        (0, "W", "0 W"),
        (93.25, "%", "93.2 %"),
        (1_000_000, "tokens", "1,000,000 tokens"),
        (12_345_678, "", "12,300,000"),
        (0.0001, "s", "0.0001 s"),
        (1023, "B", "1020 B"),
        (1536, "B", "1.5 KiB"),
        (116 * 2**30, "B", "116 GiB"),
        (-5e9, "B", "-4.66 GiB"),
        (3.3 * 2**40, "B/s", "3.3 TiB/s"),
        (2**70, "B", "1050000 PiB"),
        (1.98e9, "Hz", "1.98 GHz"),
        (999_999.5, "Hz", "1 MHz"),
        (640.4, "J/s", "640 J/s"),
        (2.5e9, "J", "2.5 GJ"),
        (0.5, "s/s", "0.5 s/s"),
    ],
)
def test_a_figure_is_spelled_with_its_unit(value, unit, words):
    assert spelled(value, unit) == words


@pytest.mark.parametrize(
    ("age_s", "words"),
    [(None, "never"), (0, "0 s"), (1.23, "1.2 s"), (119, "120 s"), (840, "14 min"), (7200, "2 h"), (271_296, "3.1 d")],
)
def test_an_age_is_spelled_in_the_unit_that_fits(age_s, words):
    assert age_words(age_s) == words


@pytest.mark.parametrize(
    ("points", "line"),
    [
        ([], ""),
        ([None, None], "  "),
        ([5.0], "▅"),
        ([5.0, None, 5.0], "▅ ▅"),
        ([1, 2, 3, 4, 5, 6, 7, 8], "▁▂▃▄▅▆▇█"),
        ([0, None, 100, 50], "▁ █▅"),
        ([-1.0, INFINITY, NO_NUMBER, 1.0], "▁  █"),
    ],
)
def test_a_sparkline_has_a_character_a_point_and_a_blank_where_there_is_none(points, line):
    assert sparkline(points) == line


def test_percentages_stand_between_0_and_100_so_that_busy_looks_busy():
    assert [sparkline([share, share], "%") for share in (0.0, 50.0, 100.0)] == ["▁▁", "▅▅", "██"]


@given(st.lists(st.none() | st.floats(-1e300, 1e300), max_size=50))
def test_a_sparkline_rises_where_its_points_rise(points):
    line = sparkline(points)
    heights = [
        (point, SPARKS.index(character)) for point, character in zip(points, line, strict=True) if point is not None
    ]
    assert [character == " " for character in line] == [point is None for point in points]
    assert [height for _, height in sorted(heights)] == sorted(height for _, height in heights)
