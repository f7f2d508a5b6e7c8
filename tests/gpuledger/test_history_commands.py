"""`gpuledger anomalies`, `compare`, `changes` and `forecast`, as a user runs them."""

import csv
import io
import json

import pytest

METRIC = "gpu.power_watts"


def test_what_is_unusual_is_shown_and_comes_as_rows(past):
    shown = past("anomalies", METRIC, "--window", "8h").stdout
    assert "gpu.power_watts" in shown
    assert "+400 W" in shown
    (row,) = csv.DictReader(io.StringIO(past("anomalies", METRIC, "--window", "8h", "--csv").stdout))
    assert (row["label"], row["is_above"], row["n"]) == ("0", "True", "24")


def test_a_quiet_window_says_so(past):
    assert "Nothing was unusual." in past("anomalies", METRIC, "--window", "16h..8h").stdout


def test_two_windows_are_compared_and_by_default_with_the_day_before(past):
    found = json.loads(past("compare", METRIC, "--window", "3h", "--json").stdout)
    (one,) = found["differences"]
    assert (one["strength"], round(one["effect"]["difference"], -1)) == ("large", 400)
    shown = past("compare", "--window", "16h..8h", "--with", "32h..24h").stdout
    assert "0 of 1 series differ by what matters" in shown


def test_changes_are_shown_with_what_was_different_after_them(past):
    shown = past("changes", METRIC, "--span", "3h").stdout
    assert "note: new cooling" in shown
    assert "against the same hours of the day before, 3 h each" in shown
    assert "large" in shown


def test_a_forecast_says_where_it_goes_and_when_a_limit_is_met(past):
    call = ("forecast", METRIC, "--window", "9d..1d", "--ahead", "1d", "--limit", "1 kW")
    found = json.loads(past(*call, "--json").stdout)
    (one,) = found["series"]
    assert (one["verdict"], one["limit"]["at"], found["ahead_s"]) == ("no trend", None, 86_400)
    assert [point["low"] <= point["value"] <= point["high"] for point in one["points"]] == [True] * 24
    assert "there is no trend towards it" in past(*call).stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("anomalies", METRIC, "--past", "soon"), 2, "'soon' is no length of time"),
        (("anomalies", METRIC, "--window", "2020-01-01"), 3, "There is no gpu.power_watts in 2020-01-01"),
        (("compare", METRIC, "--window", "2020-01-01"), 3, "no series in common"),
        (("forecast", METRIC, "--limit", "1 GiB"), 2, "'1 GiB' is not in W"),
    ],
)
def test_what_cannot_be_answered_ends_in_one_sentence(past, arguments, code, words):
    assert words in past.error(*arguments, code=code)
