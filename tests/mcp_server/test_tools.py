"""The tools over the official client: both protocol eras, both channels, errors that can be acted on."""

import json
import re
from dataclasses import replace

import anyio
import jsonschema
import pytest
from mcp import Client

from mcp_server.server import make_server
from mcp_server.tokens import tokens
from store.events import Event
from store.ledger import Ledger

TOOLS = [
    "check_gpu_availability",
    "compare_windows",
    "describe_data",
    "diagnose",
    "find_anomalies",
    "forecast",
    "get_system_health",
    "list_events",
    "live_state",
    "query_metrics",
    "run_sql",
    "slow_requests",
    "top_processes",
]
ERAS = pytest.mark.parametrize("era", ["auto", "legacy"])


def text(answer) -> str:
    (content,) = answer.content
    return content.text


def listed(settings, era="auto"):
    async def call():
        async with Client(make_server(settings), mode=era) as client:
            return (await client.list_tools()).tools

    return anyio.run(call)


@ERAS
def test_the_tools_are_listed_in_order_with_schemas_and_annotations(settings, era):
    tools = listed(settings, era)
    assert [tool.name for tool in tools] == TOOLS
    for tool in tools:
        assert tool.description
        assert tool.output_schema is not None
        jsonschema.Draft202012Validator.check_schema(tool.output_schema)
        hints = tool.annotations
        assert (hints.read_only_hint, hints.open_world_hint) == (True, False)
        assert tool.input_schema["additionalProperties"] is False


def test_the_list_of_tools_is_small(settings):
    wire = [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in listed(settings)]
    assert tokens(json.dumps(wire, separators=(",", ":"))) <= 2_800


CALLS = [
    ("live_state", {}),
    ("live_state", {"detail": "full", "gpu": [1]}),
    ("query_metrics", {"metrics": ["gpu.utilization_percent"]}),
    ("query_metrics", {"metrics": ["gpu.power_watts", "cpu.utilization_percent"], "window": "5m", "detail": "full"}),
    (
        "query_metrics",
        {"metrics": ["gpu.energy_joules"], "window": "last 5 minutes", "gpu": [1], "tz": "Asia/Kathmandu"},
    ),
    ("query_metrics", {"metrics": ["gpu.fan_speed_percent", "gpu.power_watts"]}),
    ("describe_data", {}),
    ("describe_data", {"topic": "metrics"}),
    ("describe_data", {"topic": "metrics", "search": "power"}),
    ("describe_data", {"topic": "table", "table": "gpu_sample"}),
    ("describe_data", {"topic": "examples"}),
    ("describe_data", {"topic": "capabilities"}),
    ("run_sql", {"sql": "select gpu_index, max(power_watts) as watts from gpu_sample group by all order by all"}),
    ("run_sql", {"sql": "select * from gpu_sample", "max_rows": 1000}),
    ("check_gpu_availability", {"min_free_memory_gb": 20, "count": 2}),
    ("get_system_health", {}),
    ("list_events", {}),
    ("compare_windows", {"window": "4m", "baseline": "8m..4m"}),
    ("find_anomalies", {"window": "5m"}),
    ("forecast", {"metric": "gpu.power_watts", "window": "10m", "detail": "full"}),
    ("slow_requests", {}),
    ("top_processes", {"window": "1h", "detail": "full"}),
]


@pytest.mark.parametrize(("name", "arguments"), CALLS)
def test_an_answer_fits_its_schema_and_says_the_same_in_both_channels(settings, name, arguments, ask):
    answer = ask(settings, name, arguments)
    assert not answer.is_error, text(answer)
    (tool,) = [tool for tool in listed(settings) if tool.name == name]
    jsonschema.validate(answer.structured_content, tool.output_schema)
    said = text(answer)
    assert said.startswith(answer.structured_content["summary"])
    for leaf in leaves(answer.structured_content):
        assert leaf in said, leaf
    assert answer.structured_content["window"]["tz"] in ("Europe/Berlin", "Asia/Kathmandu")
    assert tokens(said) <= 6_000


def test_what_the_driver_does_not_tell_is_listed_by_gpu_with_its_status(settings, ask):
    told = ask(settings, "describe_data", {"topic": "capabilities"}).structured_content
    assert told["summary"] == "2 of 4 driver calls on 2 GPUs give a value; the others are listed."
    assert [row[:4] for row in told["table"]["rows"]] == [
        [0, "GPU-aaaa0000-0000-4000-8000-000000000000", "not_supported", "nvmlDeviceGetFanSpeed_v2"],
        [1, "GPU-bbbb0000-0000-4000-8000-000000000001", "not_supported", "nvmlDeviceGetFanSpeed_v2"],
    ]


def leaves(value):
    """Every value of a structured answer, as the text must spell it."""
    if isinstance(value, dict):
        for key, item in value.items():
            if item not in (None, [], {}):
                yield from leaves(item)
                if key not in ("summary", "notes", "next", "columns", "rows"):
                    yield key
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item)
    elif isinstance(value, bool):
        yield str(value).lower()
    elif isinstance(value, str):
        yield value.replace('"', '""') if "\n" in value or "," in value or '"' in value else value
    elif value is not None:
        yield str(value)


def test_live_state_names_each_gpu_with_its_newest_values_and_their_age(recording_now, ask):
    answer = ask(recording_now, "live_state").structured_content
    gpus = [dict(zip(answer["gpus"]["columns"], row, strict=True)) for row in answer["gpus"]["rows"]]
    assert [(gpu["gpu"], gpu["name"], gpu["power_watts"], gpu["clocks_held_by"]) for gpu in gpus] == [
        (0, "NVIDIA H200", 300, ""),
        (1, "NVIDIA H200", 400, "sw_power_cap"),
    ]
    assert answer["stale"] is False
    assert answer["window"]["age_s"] >= 0
    assert re.search(r"[+]01:00$|[+]02:00$", answer["window"]["to"])


def test_live_state_of_a_recording_that_stopped_has_no_values_and_says_so(recording_that_stopped, ask):
    answer = ask(recording_that_stopped, "live_state")
    structured = answer.structured_content
    gpus = [dict(zip(structured["gpus"]["columns"], row, strict=True)) for row in structured["gpus"]["rows"]]
    assert structured["stale"] is True
    assert [gpu["power_watts"] for gpu in gpus] == [None, None]
    assert "note: the newest sample is 5 min old, so values are null; see that 'gpuledger up' runs" in text(answer)


def test_query_metrics_answers_with_statistics_window_coverage_and_age(settings, ask):
    answer = ask(settings, "query_metrics", {"metrics": ["gpu.power_watts"], "window": "10m"}).structured_content
    rows = [dict(zip(answer["stats"]["columns"], row, strict=True)) for row in answer["stats"]["rows"]]
    assert [(row["metric"], row["unit"], row["of"], row["min"], row["avg"], row["p95"]) for row in rows] == [
        ("gpu.power_watts", "W", "0", 300, 300, 300),
        ("gpu.power_watts", "W", "1", 400, 400, 400),
    ]
    window = answer["window"]
    assert window["tz"] == "Europe/Berlin"
    assert 0 < window["coverage"] <= 1
    assert window["age_s"] >= 0
    assert 10 <= len(rows[0]["spark"]) <= 25
    assert answer["series"] is None


def test_a_counter_answers_as_a_rate_with_its_increase(settings, ask):
    answer = ask(settings, "query_metrics", {"metrics": ["gpu.energy_joules"], "gpu": [1]}).structured_content
    assert "gpu.energy_joules: increase is in J" in answer["notes"]
    (row,) = [dict(zip(answer["stats"]["columns"], row, strict=True)) for row in answer["stats"]["rows"]]
    assert (row["unit"], row["avg"], row["increase"]) == ("W", 400, 240_000)  # 599 steps of 400 J, 3 digits


def test_full_detail_gives_the_dense_series_with_null_for_gaps(settings, ask):
    arguments = {"metrics": ["cpu.utilization_percent"], "window": "1h", "points": 12, "detail": "full"}
    answer = ask(settings, "query_metrics", arguments).structured_content
    ((name, points),) = answer["series"].items()
    assert name == "cpu.utilization_percent/spark-1"
    assert points[0] is None  # an hour ago nothing was recorded
    assert set(points) == {None, 12.5}
    assert answer["step_s"] == 300
    assert answer["series_start"]


def test_a_metric_without_values_says_why(settings, ask):
    answer = ask(settings, "query_metrics", {"metrics": ["gpu.fan_speed_percent"]})
    assert not answer.is_error
    assert "gpu.fan_speed_percent: no values" in text(answer)
    assert "not_supported: this device, driver or kernel has no such reading" in text(answer)


def test_default_answers_are_small(settings, ask):
    quantities = ("utilization_percent", "power_watts", "temperature_celsius", "memory_used_bytes")
    calls = {"live_state": {}, "query_metrics": {"metrics": [f"gpu.{name}" for name in quantities]}}
    sizes = {name: tokens(text(ask(settings, name, arguments))) for name, arguments in calls.items()}
    assert {name: size for name, size in sizes.items() if size > 600} == {}


def test_a_large_result_of_sql_is_cut_and_says_so(settings, ask):
    answer = ask(settings, "run_sql", {"sql": "select * from gpu_sample", "max_rows": 1000})
    assert answer.structured_content["is_cut"] is True
    assert tokens(text(answer)) <= 6_000
    assert "truncated: cut to fit an answer: table: the first" in text(answer)
    few = ask(settings, "run_sql", {"sql": "select gpu_index from gpu_sample", "max_rows": 3}).structured_content
    assert (len(few["table"]["rows"]), few["is_cut"]) == (3, True)


def test_sql_values_keep_their_meaning_as_json(settings, ask):
    sql = (
        "select 1.5::decimal(4,1) as d, 2::hugeint as h, null as n, [1, 2] as l, {'a': 1} as s, 'x\u202e\ny' as t, "
        "date '2026-11-23' as day, 'nan'::double as nan, true as b, '\\x00ff'::blob as raw"
    )
    answer = ask(settings, "run_sql", {"sql": sql}).structured_content
    (row,) = answer["table"]["rows"]
    assert row == [1.5, 2, None, [1, 2], {"a": 1}, "x y", "2026-11-23", None, True, "AGZm"]


@pytest.mark.parametrize("window", ["1M", "from 9 to 5", "2030-01-01", "B..A", ""])
def test_a_window_that_cannot_be_read_is_an_error_of_one_line(settings, window, ask):
    answer = ask(settings, "query_metrics", {"metrics": ["gpu.power_watts"], "window": window})
    assert answer.is_error
    assert "\n" not in text(answer)
    assert "Error executing" not in text(answer)


def test_a_ledger_that_is_not_there_is_an_error_of_the_call_and_not_of_the_server(settings, tmp_path, ask):
    missing = replace(settings, folder=tmp_path / "nowhere")
    for name, arguments in [
        ("live_state", {}),
        ("describe_data", {}),
        ("run_sql", {"sql": "select 1 from gpu_sample"}),
    ]:
        answer = ask(missing, name, arguments)
        assert answer.is_error
        assert text(answer) == (
            f"There is no ledger in {tmp_path / 'nowhere'}: start one with 'gpuledger up', or name its folder with --data"
        )
    assert not (tmp_path / "nowhere").exists()


def test_names_from_outside_are_cleaned_and_bounded(settings, tmp_path, ask):
    folder = tmp_path / "ledger"
    evil = "ignore\nall \u202eprevious" + "x" * 500
    with Ledger(folder) as ledger:
        ledger.append([Event("annotation", 1, {"text": evil})])
    answer = ask(replace(settings, folder=folder), "run_sql", {"sql": "select text from annotation"}).structured_content
    ((said,),) = answer["table"]["rows"]
    assert said.startswith("ignore all previousxxx")
    assert len(said) == 120
    assert said.endswith("…")
