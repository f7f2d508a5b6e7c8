"""The window grammar: the examples of its table, days when clocks change, every refusal by its sentence."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from query import windows
from query.errors import WindowError
from query.windows import Window, host_time_zone, resolve_window, zone_info

BERLIN = "Europe/Berlin"
NEW_YORK = "America/New_York"
KATHMANDU = "Asia/Kathmandu"
HAVANA = "America/Havana"  # its autumn midnight comes twice
BEIRUT = "Asia/Beirut"  # its spring midnight does not come at all
ZONES = (BERLIN, NEW_YORK, KATHMANDU, HAVANA, BEIRUT, "UTC")


def at(wall: str, zone: str = BERLIN, *, fold: int = 0) -> datetime:
    return datetime.fromisoformat(wall).replace(tzinfo=ZoneInfo(zone), fold=fold)


NOW = at("2026-11-23 14:31:07")  # a Monday
EXAMPLES = "'15m', 'last 2 hours', 'yesterday 9-17' and '2026-11-22 09:00..17:00'"


def window(asked: str, *, now: datetime = NOW, zone: str = BERLIN) -> Window:
    return resolve_window(asked, now=now, time_zone=zone)


def shown(found: Window) -> tuple[str, str]:
    return found.start.isoformat(" "), found.end.isoformat(" ")


def refusal(asked: str, *, now: datetime = NOW, zone: str = BERLIN) -> str:
    with pytest.raises(WindowError) as refused:
        window(asked, now=now, zone=zone)
    return str(refused.value)


def test_a_window_keeps_what_was_asked_and_knows_its_edges_in_every_unit():
    found = window("  Yesterday 9-17 ")
    assert found == Window(at("2026-11-22 09:00"), at("2026-11-22 17:00"), BERLIN, "  Yesterday 9-17 ")
    assert (found.start_us, found.end_us) == (1_795_334_400_000_000, 1_795_363_200_000_000)
    assert found.seconds == 28_800.0


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        ("15m", 900),
        ("1h", 3_600),
        ("90s", 90),
        ("0.5s", 0.5),
        ("7d", 604_800),
        ("2w", 1_209_600),
        ("1h30m", 5_400),
        ("1h 30m", 5_400),
        ("1 hour 30 minutes", 5_400),
        ("1h30M", 5_400),
        ("1.5h", 5_400),
        ("30 minutes", 1_800),
        ("2 hours", 7_200),
        ("5 mins", 300),
        ("1D", 86_400),
        ("last hour", 3_600),
        ("LAST  Hour", 3_600),
        ("past hour", 3_600),
        ("last 30 minutes", 1_800),
        ("last 2 days", 172_800),
        ("last 1h30m", 5_400),
        ("last day", 86_400),
        ("last week", 604_800),
    ],
)
def test_a_duration_is_elapsed_time_that_ends_now(asked, seconds):
    assert window(asked) == Window(NOW - timedelta(seconds=seconds), NOW, BERLIN, asked)


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("today", "2026-11-23 00:00", "2026-11-23 14:31:07"),
        ("yesterday", "2026-11-22 00:00", "2026-11-23 00:00"),
        ("this week", "2026-11-23 00:00", "2026-11-23 14:31:07"),
        ("monday", "2026-11-23 00:00", "2026-11-23 14:31:07"),
        ("Tuesday", "2026-11-17 00:00", "2026-11-18 00:00"),
        ("saturday", "2026-11-21 00:00", "2026-11-22 00:00"),
        ("sunday", "2026-11-22 00:00", "2026-11-23 00:00"),
        ("2026-11-22", "2026-11-22 00:00", "2026-11-23 00:00"),
        ("2026-02", "2026-02-01 00:00", "2026-03-01 00:00"),
        ("2026-11", "2026-11-01 00:00", "2026-11-23 14:31:07"),
        ("2025-12", "2025-12-01 00:00", "2026-01-01 00:00"),
        ("all", "1970-01-01 01:00", "2026-11-23 14:31:07"),
        ("Everything", "1970-01-01 01:00", "2026-11-23 14:31:07"),
    ],
)
def test_a_calendar_word_is_the_calendar_day_cut_at_now(asked, start, end):
    assert window(asked) == Window(at(start), at(end), BERLIN, asked)


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("yesterday 9-17", "2026-11-22 09:00", "2026-11-22 17:00"),
        ("yesterday 9 - 17", "2026-11-22 09:00", "2026-11-22 17:00"),
        ("yesterday 9\u201317", "2026-11-22 09:00", "2026-11-22 17:00"),
        ("yesterday 9am-5pm", "2026-11-22 09:00", "2026-11-22 17:00"),
        ("yesterday 12am-12pm", "2026-11-22 00:00", "2026-11-22 12:00"),
        ("yesterday 9:30 PM - 10 pm", "2026-11-22 21:30", "2026-11-22 22:00"),
        ("yesterday 0-24", "2026-11-22 00:00", "2026-11-23 00:00"),
        ("yesterday 22:00-24:00", "2026-11-22 22:00", "2026-11-23 00:00"),
        ("friday 9 to 17", "2026-11-20 09:00", "2026-11-20 17:00"),
        ("monday 09:00-12:00", "2026-11-23 09:00", "2026-11-23 12:00"),
        ("today 8-10", "2026-11-23 08:00", "2026-11-23 10:00"),
        ("today 8-20", "2026-11-23 08:00", "2026-11-23 14:31:07"),
        ("2026-11-22 09:00..17:00", "2026-11-22 09:00", "2026-11-22 17:00"),
        ("2026-11-22T09:00..17:00", "2026-11-22 09:00", "2026-11-22 17:00"),
        ("2026-11-22 09:00:30.5-09:00:31", "2026-11-22 09:00:30.500", "2026-11-22 09:00:31"),
        ("2026-11-20 22:00-02:00", "2026-11-20 22:00", "2026-11-21 02:00"),
        ("2026-11-20 22:00..02:00", "2026-11-20 22:00", "2026-11-21 02:00"),
        ("2025-12-31 22:00-02:00", "2025-12-31 22:00", "2026-01-01 02:00"),
        ("9-17", "2026-11-23 09:00", "2026-11-23 14:31:07"),
        ("09:00-12:00", "2026-11-23 09:00", "2026-11-23 12:00"),
        ("9..12", "2026-11-23 09:00", "2026-11-23 12:00"),
        ("14-2", "2026-11-23 14:00", "2026-11-23 14:31:07"),
    ],
)
def test_a_clock_range_lies_on_its_day_and_may_cross_midnight(asked, start, end):
    assert window(asked) == Window(at(start), at(end), BERLIN, asked)


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("2026-11-20T09:00..2026-11-21T10:30", "2026-11-20 09:00", "2026-11-21 10:30"),
        ("2026-11-20 09:00/2026-11-21 10:30:15", "2026-11-20 09:00", "2026-11-21 10:30:15"),
        ("2026-11-20 to 2026-11-21", "2026-11-20 00:00", "2026-11-22 00:00"),
        ("2026-11-20..2026-11-20", "2026-11-20 00:00", "2026-11-21 00:00"),
        ("2026-09..2026-10", "2026-09-01 00:00", "2026-11-01 00:00"),
        ("2026-11-20T09:00Z..2026-11-20t10:00z", "2026-11-20 10:00", "2026-11-20 11:00"),
        ("2026-11-20T09:00+05:45/2026-11-20T09:00-0500", "2026-11-20 04:15", "2026-11-20 15:00"),
        ("2026-11-20 09:00-05:00..2026-11-20 10:00-05", "2026-11-20 15:00", "2026-11-20 16:00"),
        ("2026-11-20T09:00Z..17:00", "2026-11-20 10:00", "2026-11-20 17:00"),
        ("2026-11-20T22:00Z..02:00", "2026-11-20 23:00", "2026-11-21 02:00"),
        ("2026-11-20..14:30", "2026-11-20 00:00", "2026-11-20 14:30"),
        ("2026-11-20..24:00", "2026-11-20 00:00", "2026-11-21 00:00"),
        ("2026-11..14:30", "2026-11-01 00:00", "2026-11-23 14:30"),
        ("2026-11-20..", "2026-11-20 00:00", "2026-11-23 14:31:07"),
        ("2026-11-20..now", "2026-11-20 00:00", "2026-11-23 14:31:07"),
        ("2026-11-20..2026-12-31", "2026-11-20 00:00", "2026-11-23 14:31:07"),
        ("yesterday 14:00..now", "2026-11-22 14:00", "2026-11-23 14:31:07"),
        ("yesterday 14:00..today 09:00", "2026-11-22 14:00", "2026-11-23 09:00"),
        ("saturday..sunday", "2026-11-21 00:00", "2026-11-23 00:00"),
        ("friday 17:00 to monday 8am", "2026-11-20 17:00", "2026-11-23 08:00"),
        ("13:00..14:30", "2026-11-23 13:00", "2026-11-23 14:30"),
        ("2h..1h", "2026-11-23 12:31:07", "2026-11-23 13:31:07"),
        ("-2h..-1h", "2026-11-23 12:31:07", "2026-11-23 13:31:07"),
        ("now-2h..now-1h", "2026-11-23 12:31:07", "2026-11-23 13:31:07"),
        ("now - 2h..now - 1h", "2026-11-23 12:31:07", "2026-11-23 13:31:07"),
        ("2 hours ago to 1 hour ago", "2026-11-23 12:31:07", "2026-11-23 13:31:07"),
        ("2h..14:00", "2026-11-23 12:31:07", "2026-11-23 14:00"),
        ("1763900000..1763903600", "2025-11-23 13:13:20", "2025-11-23 14:13:20"),
        ("1763900000123/1763900001123", "2025-11-23 13:13:20.123", "2025-11-23 13:13:21.123"),
    ],
)
def test_a_pair_of_times_runs_from_the_first_to_the_end_of_the_second(asked, start, end):
    assert window(asked) == Window(at(start), at(end), BERLIN, asked)


@pytest.mark.parametrize(
    ("asked", "start"),
    [
        ("since 14:30", "2026-11-23 14:30"),
        ("since 14:32", "2026-11-22 14:32"),
        ("since 14:31:07", "2026-11-22 14:31:07"),
        ("since 9", "2026-11-23 09:00"),
        ("since 9pm", "2026-11-22 21:00"),
        ("since 24:00", "2026-11-23 00:00"),
        ("since yesterday", "2026-11-22 00:00"),
        ("since yesterday 14:00", "2026-11-22 14:00"),
        ("Since Monday", "2026-11-23 00:00"),
        ("since tuesday 5pm", "2026-11-17 17:00"),
        ("since 2026-11-20", "2026-11-20 00:00"),
        ("since 2026-11", "2026-11-01 00:00"),
        ("since 2026-11-20T12:00Z", "2026-11-20 13:00"),
        ("since 2h", "2026-11-23 12:31:07"),
        ("since 2 hours ago", "2026-11-23 12:31:07"),
    ],
)
def test_since_begins_at_its_time_or_at_the_latest_such_clock_time(asked, start):
    assert window(asked) == Window(at(start), NOW, BERLIN, asked)


def test_the_year_boundary_is_crossed_like_any_midnight():
    new_year = at("2027-01-01 00:10")  # a Friday
    assert shown(window("yesterday", now=new_year)) == (
        "2026-12-31 00:00:00+01:00",
        "2027-01-01 00:00:00+01:00",
    )
    assert shown(window("this week", now=new_year)) == (
        "2026-12-28 00:00:00+01:00",
        "2027-01-01 00:10:00+01:00",
    )
    assert shown(window("since 23:30", now=new_year)) == (
        "2026-12-31 23:30:00+01:00",
        "2027-01-01 00:10:00+01:00",
    )


@pytest.mark.parametrize(
    ("zone", "yesterday"),
    [
        (BERLIN, ("2026-11-22 00:00:00+01:00", "2026-11-23 00:00:00+01:00")),
        (NEW_YORK, ("2026-11-21 00:00:00-05:00", "2026-11-22 00:00:00-05:00")),
        (KATHMANDU, ("2026-11-22 00:00:00+05:45", "2026-11-23 00:00:00+05:45")),
        ("UTC", ("2026-11-21 00:00:00+00:00", "2026-11-22 00:00:00+00:00")),
    ],
)
def test_yesterday_is_the_day_before_in_the_asked_zone_whatever_zone_now_is_told_in(zone, yesterday):
    found = window("yesterday", now=at("2026-11-23 00:30"), zone=zone)
    assert (shown(found), found.time_zone) == (yesterday, zone)


@pytest.mark.parametrize(
    ("asked", "zone", "start", "end", "hours"),
    [
        # Berlin skips 02:00 to 03:00 on 2026-03-29
        ("2026-03-29", BERLIN, "2026-03-29 00:00:00+01:00", "2026-03-30 00:00:00+02:00", 23),
        ("2026-03-29 1-4", BERLIN, "2026-03-29 01:00:00+01:00", "2026-03-29 04:00:00+02:00", 2),
        ("2026-03-29 02:30-05:00", BERLIN, "2026-03-29 03:30:00+02:00", "2026-03-29 05:00:00+02:00", 1.5),
        ("2026-03-29 01:00-02:30", BERLIN, "2026-03-29 01:00:00+01:00", "2026-03-29 03:30:00+02:00", 1.5),
        # and has 02:00 to 03:00 twice on 2026-10-25
        ("2026-10-25", BERLIN, "2026-10-25 00:00:00+02:00", "2026-10-26 00:00:00+01:00", 25),
        ("2026-10-25 02:30-04:00", BERLIN, "2026-10-25 02:30:00+02:00", "2026-10-25 04:00:00+01:00", 2.5),
        ("2026-10-25 01:00-02:30", BERLIN, "2026-10-25 01:00:00+02:00", "2026-10-25 02:30:00+01:00", 2.5),
        ("2026-10-25 02:30-02:10", BERLIN, "2026-10-25 02:30:00+02:00", "2026-10-25 02:10:00+01:00", 2 / 3),
        # New York on 2026-03-08 and 2026-11-01
        ("2026-03-08", NEW_YORK, "2026-03-08 00:00:00-05:00", "2026-03-09 00:00:00-04:00", 23),
        ("2026-11-01", NEW_YORK, "2026-11-01 00:00:00-04:00", "2026-11-02 00:00:00-05:00", 25),
        ("2026-11-01 01:30-02:00", NEW_YORK, "2026-11-01 01:30:00-04:00", "2026-11-01 02:00:00-05:00", 1.5),
        # Kathmandu never
        ("2026-03-29", KATHMANDU, "2026-03-29 00:00:00+05:45", "2026-03-30 00:00:00+05:45", 24),
        # Havana has the midnight of 2026-11-01 twice, Beirut has none on 2026-03-29; days still join
        ("2026-10-31", HAVANA, "2026-10-31 00:00:00-04:00", "2026-11-01 00:00:00-04:00", 24),
        ("2026-11-01", HAVANA, "2026-11-01 00:00:00-04:00", "2026-11-02 00:00:00-05:00", 25),
        ("2026-03-28", BEIRUT, "2026-03-28 00:00:00+02:00", "2026-03-29 01:00:00+03:00", 24),
        ("2026-03-29", BEIRUT, "2026-03-29 01:00:00+03:00", "2026-03-30 00:00:00+03:00", 23),
    ],
)
def test_clock_changes_move_edges_forward_or_keep_the_hour_that_comes_twice(asked, zone, start, end, hours):
    found = window(asked, zone=zone)
    assert (*shown(found), found.seconds) == (start, end, hours * 3_600)


@pytest.mark.parametrize(("now", "hours"), [("2026-03-30 08:00", 23), ("2026-10-26 08:00", 25)])
def test_yesterday_is_23_or_25_hours_long_when_clocks_changed_and_last_day_is_not(now, hours):
    lengths = [window(asked, now=at(now)).seconds for asked in ("yesterday", "1d", "last day")]
    assert lengths == [hours * 3_600, 86_400, 86_400]


def test_a_window_within_the_hour_that_comes_twice_has_its_true_length():
    second_half_past_two = at("2026-10-25 02:30", fold=1)
    found = window("15m", now=second_half_past_two)
    assert (*shown(found), found.seconds) == ("2026-10-25 02:15:00+01:00", "2026-10-25 02:30:00+01:00", 900)
    assert window("1h", now=second_half_past_two).start.fold == 0


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ("1M", "can be read in two ways: for one minute say '1m', for one month say '30d'"),
        ("5M", "can be read in two ways: for 5 minutes say '5m', for 5 months say '150d'"),
        ("1.5 M", "can be read in two ways: for 1.5 minutes say '1.5m', for 1.5 months say '45d'"),
        ("last 1M", "can be read in two ways: for one minute say '1m', for one month say '30d'"),
        ("2M..1M", "can be read in two ways: for 2 minutes say '2m', for 2 months say '60d'"),
        ("5000M", "can be read in two ways: for 5000 minutes say '5000m'"),
        ("last month", "has no fixed length: say '30d' or '365d' or '2026-10'"),
        ("2 Years", "has no fixed length: say '30d' or '365d' or '2026-10'"),
    ],
)
def test_a_length_with_two_readings_is_refused_with_both(asked, sentence):
    assert refusal(asked) == f"Window '{asked}' {sentence}"


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ("30 minutes ago", "say 'last 30 minutes' or 'since 14:01:07'"),
        ("2 days ago", "say 'last 2 days' or 'since 2026-11-21 14:31:07'"),
        ("-2h", "say 'last 2h' or 'since 12:31:07'"),
        ("14:30", "say 'since 14:30' or '2026-11-23 14:30..2026-11-23 15:30'"),
        ("18", "say 'since 18'"),
        (
            "2026-11-22 14:00",
            "say 'since 2026-11-22 14:00' or '2026-11-22 14:00..2026-11-22 15:00'",
        ),
        (
            "2026-11-22T09:00-05:00",
            "say 'since 2026-11-22T09:00-05:00' or '2026-11-22 15:00..2026-11-22 16:00'",
        ),
        ("1763900000", "say 'since 1763900000' or '2025-11-23 13:13:20..2025-11-23 14:13:20'"),
        ("now", "say 'last hour'"),
        ("2026-12-24 14:00", "say 'last hour'"),
    ],
)
def test_a_single_point_in_time_is_refused_with_ranges_that_start_there(asked, hint):
    assert refusal(asked) == f"Window '{asked}' is a point in time, not a window: {hint}"


@pytest.mark.parametrize(
    ("asked", "begins", "call"),
    [
        ("16-17", "2026-11-23 16:00", "yesterday 16-17"),
        ("22-02", "2026-11-23 22:00", "yesterday 22-02"),
        ("9:30pm..", "2026-11-23 21:30", "yesterday 9:30pm.."),
        ("today 16:00-17:00", "2026-11-23 16:00", "yesterday 16:00-17:00"),
        ("monday 16-17", "2026-11-23 16:00", "2026-11-16 16-17"),
        ("since monday 15:00", "2026-11-23 15:00", "since 2026-11-16 15:00"),
        ("tomorrow", "2026-11-24 00:00", "last hour"),
        ("2026-12", "2026-12-01 00:00", "last hour"),
        ("2026-11-24..2026-11-25", "2026-11-24 00:00", "last hour"),
    ],
)
def test_a_window_that_has_not_begun_is_refused_with_an_earlier_one(asked, begins, call):
    why = f"it begins at {begins} and now is 2026-11-23 14:31:07 in Europe/Berlin"
    assert refusal(asked) == f"Window '{asked}' is in the future, {why}: say '{call}'"


def test_a_day_that_begins_this_instant_has_not_begun():
    why = "it begins at 2026-11-23 00:00 and now is 2026-11-23 00:00 in Europe/Berlin"
    sentence = f"Window 'today' is in the future, {why}: say 'yesterday'"
    assert refusal("today", now=at("2026-11-23 00:00")) == sentence


@pytest.mark.parametrize(
    ("asked", "end", "start", "calls"),
    [
        ("2026-11-22..2026-11-20", "2026-11-21 00:00", "2026-11-22 00:00", "'2026-11-20..2026-11-22'"),
        ("2026-11-22..2026-11-21", "2026-11-22 00:00", "2026-11-22 00:00", "'2026-11-21..2026-11-22'"),
        ("1h..2h", "2026-11-23 12:31:07", "2026-11-23 13:31:07", "'2h..1h'"),
        ("now to 2h", "2026-11-23 12:31:07", "2026-11-23 14:31:07", "'2h..now'"),
        (
            "14:00..13:00",
            "2026-11-23 13:00",
            "2026-11-23 14:00",
            "'13:00..14:00' or 'yesterday 14:00..13:00'",
        ),
        ("2h..9", "2026-11-23 09:00", "2026-11-23 12:31:07", "'9..2h'"),
        ("monday..friday", "2026-11-21 00:00", "2026-11-23 00:00", "'friday..monday'"),
        ("2026-12-01..2026-11-01", "2026-11-02 00:00", "2026-12-01 00:00", "'2026-11-01..2026-12-01'"),
    ],
)
def test_a_pair_the_wrong_way_round_is_refused_with_the_swapped_call(asked, end, start, calls):
    assert refusal(asked) == f"Window '{asked}' ends at {end}, before it begins at {start}: say {calls}"


@pytest.mark.parametrize(
    ("asked", "instant"),
    [
        ("0m", "2026-11-23 14:31:07"),
        ("last 0 hours", "2026-11-23 14:31:07"),
        ("since now", "2026-11-23 14:31:07"),
        ("now..", "2026-11-23 14:31:07"),
        ("9-9", "2026-11-23 09:00"),
        ("2026-11-20T09:00..2026-11-20T09:00", "2026-11-20 09:00"),
    ],
)
def test_a_window_without_length_is_refused(asked, instant):
    sentence = f"Window '{asked}' has no length, it begins and ends at {instant}: say 'last hour'"
    assert refusal(asked) == sentence


@pytest.mark.parametrize(
    "asked",
    [
        "36526d",
        "999999d",
        "99999999999999999999999999999999999999w",
        "0001-01-01",
        "9999-12-31",
        "9999-12",
        "2026-11-22..9999-12-31",
        "2026-11-22..9000-01-01",
        "0001-01-01T00:00+14:00..now",
        "9999-12-31T23:59-14:00..now",
    ],
)
def test_what_reaches_further_than_100_years_or_the_calendar_is_refused(asked):
    assert refusal(asked) == f"Window '{asked}' reaches further than 100 years: say 'all'"


def test_100_years_are_still_a_window():
    assert window("36525d").seconds == 36_525 * 86_400


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ("", "Window '' cannot be read"),
        (" \t\n", "Window '' cannot be read"),
        ("foo", "Window 'foo' cannot be read"),
        ("foo..now", "Window 'foo..now' cannot be read at 'foo'"),
        ("2h..bar", "Window '2h..bar' cannot be read at 'bar'"),
        ("since", "Window 'since' cannot be read"),
        ("..2h", "Window '..2h' cannot be read"),
        ("2026", "Window '2026' cannot be read"),
        ("1h; drop table", "Window '1h; drop table' cannot be read"),
        ("it's", 'Window "it\'s" cannot be read'),
        ("\u0661\u0665m", "Window '\u0661\u0665m' cannot be read"),
        ("2026-02-30", "Window '2026-02-30' has an impossible time"),
        ("2026-13", "Window '2026-13' has an impossible time"),
        ("25:00", "Window '25:00' has an impossible time"),
        ("24:01", "Window '24:01' has an impossible time"),
        ("09:60..", "Window '09:60..' has an impossible time at '09:60'"),
        ("13pm-14pm", "Window '13pm-14pm' has an impossible time at '13pm'"),
        ("0am-5am", "Window '0am-5am' has an impossible time at '0am'"),
        ("7" * 300, f"Window '{'7' * 57}...' is longer than 200 characters"),
    ],
)
def test_what_cannot_be_read_is_answered_with_valid_windows(asked, problem):
    assert refusal(asked) == f"{problem}: valid windows are {EXAMPLES}"


@pytest.mark.parametrize(
    ("asked", "problem", "meant"),
    [
        ("lst hour", "cannot be read", "last hour"),
        ("Last 30 minuts", "cannot be read", "last 30 minutes"),
        ("yesturday 9-17", "cannot be read", "yesterday 9-17"),
        ("mondey..now", "cannot be read at 'mondey'", "monday..now"),
        ("wensday", "cannot be read", "wednesday"),
        ("sinse monday", "cannot be read", "since monday"),
        ("everthing", "cannot be read", "everything"),
    ],
)
def test_a_misspelt_word_is_answered_with_the_window_that_was_meant(asked, problem, meant):
    hint = f"did you mean '{meant}'? Valid windows are {EXAMPLES}"
    assert refusal(asked) == f"Window '{asked}' {problem}: {hint}"


@pytest.mark.parametrize(
    ("zone", "sentence"),
    [
        ("Europe/Berln", "Time zone 'Europe/Berln' is not known: did you mean 'Europe/Berlin'?"),
        ("new_york", "Time zone 'new_york' is not known: did you mean 'America/New_York'?"),
        ("", "Time zone '' is not known: give an IANA name such as 'Europe/Berlin'"),
        (
            "../../etc/passwd",
            "Time zone '../../etc/passwd' is not known: give an IANA name such as 'Europe/Berlin'",
        ),
        ("\0", "Time zone '\\x00' is not known: give an IANA name such as 'Europe/Berlin'"),
    ],
)
def test_an_unknown_time_zone_is_refused_with_the_nearest_name(zone, sentence):
    assert refusal("1h", zone=zone) == sentence
    with pytest.raises(WindowError, match=re.escape(sentence)):
        zone_info(zone)


@pytest.mark.parametrize("zone", ZONES)
def test_a_known_time_zone_is_found_under_its_own_name(zone):
    assert zone_info(zone) == ZoneInfo(zone)


def test_a_refusal_carries_its_problem_and_hint_apart():
    with pytest.raises(WindowError) as refused:
        window("1M")
    assert (refused.value.problem, refused.value.hint, refused.value.exit_code) == (
        "Window '1M' can be read in two ways",
        "for one minute say '1m', for one month say '30d'",
        2,
    )


def documented(rows: str) -> list[str]:
    return [call for row in rows.splitlines() for call in re.findall(r"`([^`]+)`", row.split(" | ")[0])]


def test_every_example_of_the_documented_table_is_read_in_the_evening_of_a_monday():
    _, table, _ = (windows.__doc__ or "").split("\n\n")
    forms, times = (documented(rows) for rows in table.split("| **A or B** |"))
    asked = [form.replace("A", "yesterday").replace("B", "now") for form in forms]
    asked += [f"{time}.." for time in times if time != "now"] + [f"2026-11-01..{time}" for time in times[:-2]]
    lengths = [window(call, now=at("2026-11-23 23:00")).seconds for call in asked]
    assert (len(forms) > 30, len(times) > 20) == (True, True)
    assert min(lengths) == window("90s").seconds


WORDS = st.sampled_from(
    [
        *(
            "today",
            "yesterday",
            "tomorrow",
            "monday",
            "sunday",
            "this week",
            "now",
            "now-",
            "-",
            "since",
            "last",
        ),
        *(
            "past",
            "hour",
            "30 minutes",
            "ago",
            "all",
            "1M",
            "0m",
            "2h",
            "1h30m",
            "1.5",
            "d",
            "999999999w",
            "month",
        ),
        *(
            "9",
            "24",
            "9am",
            "12pm",
            "24:00",
            "02:30",
            "14:31:07",
            "25:00",
            "2026-11-22",
            "2026-10-25",
            "2026-03-29",
        ),
        *(
            "2026-11",
            "0001-01-01",
            "9999-12-31",
            "2026-02-30",
            "T",
            "Z",
            "+05:45",
            "-14:00",
            "1763900000",
            "\u2013",
        ),
        *("..", "/", " to ", "9999999999999", "yesturday", "'"),
    ]
)
SENTENCES = st.builds(lambda words, blank: blank.join(words), st.lists(WORDS, max_size=6), st.sampled_from(["", " "]))
DAYS = st.sampled_from(["today", "yesterday", "monday", "sunday", "2026-03-29", "2026-10-25", "2026-11-22", "2026-11"])
CLOCKS = st.sampled_from(["0", "2", "02:30", "9am", "9:30 pm", "14:31:07", "23:59:59.9", "24:00", "24"])
TIMES = DAYS | CLOCKS | WORDS | st.builds("{} {}".format, DAYS, CLOCKS) | st.builds("{}m ago".format, st.integers(0))
PAIRS = st.builds("{}{}{}".format, TIMES, st.sampled_from(["..", "/", " to ", "-"]), TIMES | st.just(""))
SHAPED = SENTENCES | TIMES | PAIRS | TIMES.map("since {}".format)
NOWS = st.sampled_from([NOW, at("2026-11-23 00:00"), at("2026-10-25 02:30", fold=1)]) | st.datetimes(
    datetime(1980, 1, 1),  # noqa: DTZ001 hypothesis adds the zone
    datetime(2069, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)


@settings(deadline=None, max_examples=1_000)  # the first question in a zone reads its file
@given(asked=st.text() | SHAPED, now=NOWS, zone=st.sampled_from(ZONES))
def test_every_text_is_a_window_before_now_or_a_refusal_whose_calls_work(asked, now, zone):
    try:
        found = window(asked, now=now, zone=zone)
    except WindowError as refused:
        quoted = re.findall(r"'([^']+)'", refused.hint)
        assert quoted
        assert [window(call, now=now, zone=zone).time_zone for call in quoted] == [zone] * len(quoted)
    else:
        assert found.start_us < found.end_us
        assert found.end.astimezone(UTC) <= now.astimezone(UTC)
        assert (found.asked, found.time_zone) == (asked, zone)
        assert {getattr(edge.tzinfo, "key", None) for edge in (found.start, found.end)} == {zone}


@settings(deadline=None)  # a refused zone reads the whole time zone database
@given(zone=st.text())
def test_every_time_zone_name_is_known_or_refused(zone):
    try:
        outcome = window("1h", zone=zone).time_zone
    except WindowError as refused:
        outcome = refused.problem
    assert outcome == zone or outcome.startswith("Time zone ")


def machine(root: Path, *, timezone: str | None = None, localtime: str | None = None) -> Path:
    (root / "etc").mkdir()
    if timezone is not None:
        (root / "etc/timezone").write_text(timezone)
    if localtime is not None:
        (root / "etc/localtime").symlink_to(localtime)
    return root


@pytest.mark.parametrize(
    ("environ", "files", "expected"),
    [
        ({"TZ": KATHMANDU}, {"timezone": f"{BERLIN}\n"}, KATHMANDU),
        ({"TZ": f":{KATHMANDU}"}, {}, KATHMANDU),
        ({"TZ": "CET-1CEST,M3.5.0,M10.5.0/3"}, {"timezone": f"{BERLIN}\n"}, BERLIN),
        ({"TZ": ""}, {"timezone": f"{BERLIN}\n", "localtime": f"/usr/share/zoneinfo/{NEW_YORK}"}, BERLIN),
        ({}, {"timezone": "no/zone", "localtime": f"/usr/share/zoneinfo/{NEW_YORK}"}, NEW_YORK),
        ({}, {"localtime": f"../usr/share/zoneinfo/{NEW_YORK}"}, NEW_YORK),
        ({}, {"localtime": "/somewhere/else"}, "UTC"),
        ({}, {}, "UTC"),
    ],
)
def test_the_host_time_zone_is_the_first_iana_name_the_machine_gives(tmp_path, environ, files, expected):
    assert host_time_zone(machine(tmp_path, **files), environ) == expected


def test_a_machine_without_etc_or_with_a_copied_localtime_is_in_utc(tmp_path):
    assert host_time_zone(tmp_path, {}) == "UTC"
    (machine(tmp_path) / "etc/localtime").write_bytes(b"TZif2")
    assert host_time_zone(tmp_path, {}) == "UTC"
