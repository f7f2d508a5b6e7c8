"""`gpuledger requests` and `gpuledger slow`, as a user runs them."""

import csv
import io
import json
from datetime import UTC, datetime

import pyarrow.parquet as pq
import pytest

from store.events import Event
from store.ledger import Ledger


@pytest.fixture
def served(gpuledger):
    """A home with a ledger: a request a second for a minute until now, the one 30 s ago of a second, one failed."""
    now_us = int(datetime.now(UTC).timestamp()) * 1_000_000
    with Ledger(gpuledger.data, host="spark-1") as ledger:
        for number in range(60):
            values = {
                "service": "vllm",
                "operation": "chat",
                "response_model": "llama",
                "status": "error" if number == 5 else "ok",
                "duration_seconds": 1.0 if number == 30 else 0.1 + number / 10_000,
                "output_tokens": 10,
            }
            ledger.append([Event("request", now_us - (59 - number) * 1_000_000, values)])
    return gpuledger


def test_requests_are_shown_by_operation_and_model(served):
    shown = served("requests").stdout
    assert "chat" in shown
    assert "60 requests · from every request · recording for 0 %" in shown


def test_requests_come_in_every_form(served, tmp_path):
    whole = json.loads(served("requests", "--json").stdout)
    (group,) = whole["groups"]
    assert (group["operation"], group["model"], group["n"]) == ("chat", "llama", 60)
    assert group["error_ratio"] == pytest.approx(1 / 60)
    (row,) = csv.DictReader(io.StringIO(served("requests", "--csv", "--by", "none").stdout))
    assert (row["operation"], row["n"], row["duration_max_seconds"]) == ("", "60", "1.0")
    served("requests", "--by", "status", "--parquet", "found.parquet", folder=tmp_path)
    assert pq.read_table(tmp_path / "found.parquet")["n"].to_pylist() == [1, 59]


def test_requests_are_cut_into_steps(served):
    groups = json.loads(served("requests", "--window", "5m", "--step", "10s", "--json").stdout)["groups"]
    assert sum(group["n"] for group in groups) == 60
    assert len(groups) in (6, 7)


def test_slow_shows_the_worst_first_and_how_they_were_judged(served):
    shown = served("slow", "--percentile", "95").stdout
    assert "3 slow of 60: at least p95 of its own operation and model" in shown
    assert shown.index("1 s") < shown.index("106 ms")


def test_slow_comes_in_every_form(served, tmp_path):
    found = json.loads(served("slow", "--threshold", "500ms", "--json").stdout)
    assert (found["slow_count"], found["requests"][0]["duration_seconds"]) == (1, 1.0)
    rows = list(csv.DictReader(io.StringIO(served("slow", "--threshold", "5s", "--csv").stdout)))
    assert rows == []
    served("slow", "--threshold", "500ms", "--parquet", "slow.parquet", folder=tmp_path)
    assert pq.read_table(tmp_path / "slow.parquet")["excess_seconds"].to_pylist() == [0.5]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("requests", "--by", "colour"), 2, "Requests are not grouped by 'colour'"),
        (("requests", "--step", "soon"), 2, "'soon' is no length of time"),
        (("requests", "--step", "1s", "--window", "1d"), 2, "more than 2,000 steps"),
        (("requests", "--model", "gpt"), 3, "There is no such request in"),
        (("slow", "--window", "2020-01-01"), 3, "the newest in the ledger is of"),
        (("slow", "--percentile", "12"), 2, "There is no percentile 12"),
        (("slow", "--excess", "--threshold", "1s"), 2, "Requests are slow by one rule"),
    ],
)
def test_what_cannot_be_answered_ends_in_one_sentence(served, arguments, code, words):
    assert words in served.error(*arguments, code=code)


def test_a_ledger_without_requests_says_how_they_come_in(recorded):
    assert "none was ever recorded" in recorded.error("slow", code=3)


def test_a_request_of_the_list_is_diagnosed(served):
    (row,) = json.loads(served("slow", "--threshold", "500ms", "--json").stdout)["requests"]
    shown = served("diagnose", str(row["seq"])).stdout
    assert "It took 1 s; 103 ms is usual. Nothing was sampled meanwhile." in shown
    assert "what went on then cannot be known" in shown
    assert json.loads(served("diagnose", str(row["seq"]), "--json").stdout)["is_slow"] is True
    assert served.error("diagnose", "nobody", code=3).startswith("There is no request 'nobody'")


@pytest.fixture
def slowed(gpuledger, pytestconfig):
    """A home with the ledger of a story: a throttled GPU, and the request 'asked'."""
    scenarios = pytestconfig.pluginmanager.get_plugin("scenarios")
    scenarios.record(gpuledger.data, scenarios.story("throttling", 7))
    return gpuledger


def test_a_request_is_diagnosed_with_what_took_its_time_and_what_speaks_for_it(slowed):
    shown = slowed("diagnose", "asked").stdout
    assert "What stood out meanwhile:" in shown
    assert "throttling: software power cap held the clocks down for" in shown
    assert "for: gpu_sample.throttle_sw_power_cap_seconds" in shown
    assert "decode: " in shown


def test_a_window_is_diagnosed_in_every_form(slowed, tmp_path):
    asked = ("diagnose", "--window", "2026-11-22T14:10Z..2026-11-22T14:30Z")
    shown = slowed(*asked, "--operation", "chat").stdout
    assert "requests took longer than their tokens explain" in shown
    found = json.loads(slowed(*asked, "--json").stdout)
    assert [one["name"] for one in found["causes"]] == ["throttling"]
    assert found["is_slow"]
    (row,) = csv.DictReader(io.StringIO(slowed(*asked, "--csv").stdout))
    assert row["name"] == "throttling"
    slowed(*asked, "--parquet", "causes.parquet", folder=tmp_path)
    assert pq.read_table(tmp_path / "causes.parquet")["name"].to_pylist() == ["throttling"]


@pytest.mark.parametrize("arguments", [(), ("asked", "--window", "1h"), ("asked", "--operation", "chat")])
def test_one_thing_is_diagnosed_at_a_time(slowed, arguments):
    done = slowed("diagnose", *arguments, code=2)
    assert "One thing is diagnosed at a time: give a request, or --window" in done.stderr


@pytest.mark.parametrize(
    "asked",
    [("requests",), ("slow", "--threshold", "1ms"), ("sql", "select operation, service from request")],
    ids=lambda asked: asked[0],
)
def test_names_from_outside_are_no_commands_to_the_terminal(gpuledger, asked):
    evil = {"operation": "\x1b[2J[red]chat", "response_model": "ll\u202eama", "service": "v\x1b]0;mine\x07llm\x9b31m"}
    with Ledger(gpuledger.data) as ledger:
        now_us = int(datetime.now(UTC).timestamp() * 1_000_000)
        ledger.append(
            [
                Event("request", now_us - ago * 1_000_000, {**evil, "event_id": f"e-{ago}", "duration_seconds": 1.0})
                for ago in range(1, 3)
            ]
        )
    shown = gpuledger(*asked).stdout
    assert "[2J[red]chat" in shown
    assert [char for char in shown if not char.isprintable() and char not in "\n\xa0\u202f"] == []
