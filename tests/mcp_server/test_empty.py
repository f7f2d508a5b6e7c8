"""An answer that holds nothing says why, and names the nearest window with data: the call that it gives has some."""

import ast
import time
from dataclasses import replace

import pytest

POWER = {"metrics": ["gpu.power_watts"]}
GAP, LONG_AGO, BEFORE_THEM = "39m..34m", "2020-01-01", "180m..110m"
EMPTY = [
    ("query_metrics", {**POWER, "window": GAP}, "gpu_sample: none lies in that time, the "),
    ("query_metrics", {**POWER, "window": LONG_AGO}, "gpu_sample: none lies in that time, the first after it is of "),
    ("top_processes", {"window": GAP}, "process_sample: none lies in that time, the "),
    ("list_events", {"types": ["xid"], "window": "30m"}, "the newest before it is of "),
    ("list_events", {"min_severity": "critical", "window": GAP}, "the newest before it is of "),
    ("slow_requests", {"window": BEFORE_THEM}, "request: none lies in that time, the first after it is of "),
    ("slow_requests", {"window": LONG_AGO}, "request: none lies in that time, the first after it is of "),
    ("diagnose", {"window": LONG_AGO}, "request, system_sample: none lies in that time, the first after it is of "),
    ("compare_windows", {"window": "1h"}, "baseline: gpu_sample, system_sample, request: none lies in that time"),
    ("compare_windows", {"window": LONG_AGO, "baseline": "1h"}, "window: gpu_sample, system_sample, request: "),
    ("find_anomalies", {"window": LONG_AGO}, "none lies in that time, the first after it is of "),
    ("forecast", {"metric": "gpu.memory_used_bytes", "window": LONG_AGO}, "gpu_sample: none lies in that time"),
    (
        "run_sql",
        {
            "sql": "select seq from request where duration_seconds > 1 and observed_at < '2021-01-01' or true",
            "window": LONG_AGO,
        },
        "request: none lies in that time",
    ),
]


@pytest.fixture(scope="module")
def planted(planted, plant, tmp_path_factory):
    """The planted ledger as of now: windows are told in minutes before."""
    return replace(planted, folder=plant(tmp_path_factory.mktemp("fresh") / "ledger", time.time_ns() // 1000))


def text(answer) -> str:
    (content,) = answer.content
    return content.text


def is_filled(structured) -> bool:
    tables = [value for name, value in structured.items() if isinstance(value, dict) and "rows" in value]
    return any(table["rows"] for table in tables) or bool(structured["window"]["coverage"])


def called(words: str):
    call = ast.parse(words, mode="eval").body
    return call.func.id, {one.arg: ast.literal_eval(one.value) for one in call.keywords}


def assert_leads_further(settings, ask, answer, words):
    structured = answer.structured_content
    assert not answer.is_error, text(answer)
    assert not any(value["rows"] for value in structured.values() if isinstance(value, dict) and "rows" in value)
    assert any(words in note for note in structured["notes"]), structured["notes"]
    better = ask(settings, *called(structured["next"][0]))
    assert not better.is_error, text(better)
    assert is_filled(better.structured_content), text(better)


@pytest.mark.parametrize(("name", "arguments", "words"), EMPTY)
def test_an_empty_answer_says_why_and_where_there_is_something(planted, ask, name, arguments, words):
    assert_leads_further(planted, ask, ask(planted, name, arguments), words)


@pytest.mark.parametrize("name", ["live_state", "check_gpu_availability", "top_processes"])
def test_of_a_recording_that_ended_an_hour_ago_its_end_is_named(planted, plant, ask, tmp_path, name):
    end_us = time.time_ns() // 1000 - 3_600_000_000
    ended = replace(planted, folder=plant(tmp_path / "ended", end_us))
    assert_leads_further(ended, ask, ask(ended, name), "none lies in that time, the newest before it is of ")


def test_what_was_never_recorded_is_called_that(settings, ask):
    notes = ask(settings, "slow_requests").structured_content["notes"]
    assert "request: none was ever recorded" in notes


def test_where_there_is_something_that_was_not_asked_for_that_is_said(planted, ask):
    notes = ask(planted, "top_processes", {"user": "nobody", "window": "3h"}).structured_content["notes"]
    assert any("rows lie in that time, none of them is what was asked for" in note for note in notes)
    notes = ask(planted, "run_sql", {"sql": "select seq from request where status = 'lost'"}).structured_content[
        "notes"
    ]
    assert notes == ["request: 183 rows lie in that time, none of them is what was asked for"]


def test_a_filter_that_nothing_passes_is_left_out_of_the_next_call(planted, ask):
    answer = ask(planted, "top_processes", {"user": "nobody", "window": "3h"})
    assert answer.structured_content["next"] == ["top_processes(by='gpu_memory', window='3h')"]
