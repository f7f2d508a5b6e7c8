"""Questions that people ask an agent of a GPU machine, each with the call that answers it.

The facts of the answer must be in both channels, each group of them in one row, and the answer within its ceiling.
"""

import json
import re

import jsonschema
import pytest

from mcp_server.tokens import tokens

UTIL, POWER = "gpu.utilization_percent", "gpu.power_watts"
CONCISE, FULL, SQL = 600, 4_000, 6_000

QUESTIONS = [
    # now
    ("How busy are the GPUs now?", "live_state", {}, [["0", "NVIDIA H200", "10"], ["1", "NVIDIA H200", "90"]], CONCISE),
    ("What holds GPU 1 back?", "live_state", {"gpu": [1]}, [["1", "sw_power_cap"]], CONCISE),
    ("How hot is GPU 1 now?", "live_state", {"gpu": [1]}, [["1", "60"]], CONCISE),
    ("How much power does GPU 1 draw?", "live_state", {}, [["1", "400"]], CONCISE),
    ("How much memory is used on GPU 0?", "live_state", {"gpu": [0]}, [["0", "42900000000"]], CONCISE),
    ("What is the CPU doing?", "live_state", {}, [["spark-1", "12.5"]], CONCISE),
    ("Why is the fan speed missing?", "live_state", {"detail": "full"}, [["fan_speed_percent (not_supported)"]], FULL),
    ("Is what I see fresh?", "live_state", {}, [["stale", "false"], ["age_s"]], CONCISE),
    ("Is memory dedicated?", "live_state", {"detail": "full"}, [["0", "dedicated"]], FULL),
    # can I start
    ("Is a GPU free?", "check_gpu_availability", {}, [["0", "true", "10"], ["1", "false", "busy 90 % on average"]], CONCISE),
    ("Which one do I take?", "check_gpu_availability", {}, [["cuda_visible_devices", "0"]], CONCISE),
    ("Are two free?", "check_gpu_availability", {"count": 2}, [["available", "false"], ["1 of 2 GPUs free"]], CONCISE),
    ("Is one with 120 GiB free?", "check_gpu_availability", {"min_free_memory_gb": 120}, [["120 GiB are wanted"]], CONCISE),
    ("Is one free where 95 % busy is fine?", "check_gpu_availability", {"max_utilization": 95, "count": 2}, [["available", "true"]], CONCISE),
    ("Over the last hour?", "check_gpu_availability", {"over": "30m"}, [["judged over 30m"]], CONCISE),
    # health
    ("Is the machine well?", "get_system_health", {}, [["events", "critical", "xid"]], CONCISE),
    ("Is it recording?", "get_system_health", {}, [["recorder", "nothing is recorded"]], CONCISE),
    ("Is GPU 0 well?", "get_system_health", {}, [["gpu 0", "ok"]], CONCISE),
    ("Is there host memory left?", "get_system_health", {}, [["memory", "15 GiB of 16 GiB available"]], CONCISE),
    # trends
    ("How busy was GPU 1 in the last hour?", "query_metrics", {"metrics": [UTIL]}, [[UTIL, "1", "90"]], CONCISE),
    ("And GPU 0 alone?", "query_metrics", {"metrics": [UTIL], "gpu": [0]}, [[UTIL, "0", "10"]], CONCISE),
    ("How much was missing?", "query_metrics", {"metrics": [UTIL]}, [["coverage", "0.85"]], CONCISE),
    ("How hot did GPU 1 get?", "query_metrics", {"metrics": ["gpu.temperature_celsius"], "window": "1h"}, [["1", "91"]], CONCISE),
    ("When was it hottest?", "query_metrics", {"metrics": ["gpu.temperature_celsius"], "gpu": [1], "detail": "full", "points": 60}, [["gpu.temperature_celsius/1", "91"]], FULL),
    ("Does GPU 0's memory grow?", "query_metrics", {"metrics": ["gpu.memory_used_bytes"], "window": "3h", "gpu": [0]}, [["0", "10700000000", "42900000000"]], CONCISE),
    ("How much energy did GPU 1 use?", "query_metrics", {"metrics": ["gpu.energy_joules"], "window": "20m", "gpu": [1]}, [["gpu.energy_joules", "W", "1"], ["increase is in J"]], CONCISE),
    ("Power and CPU side by side?", "query_metrics", {"metrics": [POWER, "cpu.utilization_percent"]}, [[POWER, "1", "400"], ["cpu.utilization_percent", "12.5"]], CONCISE),
    ("How did it go, point by point?", "query_metrics", {"metrics": [POWER], "detail": "full", "points": 12}, [["gpu.power_watts/0", "300"], ["series_start"]], FULL),
    ("In Berlin's time?", "query_metrics", {"metrics": [POWER], "tz": "Europe/Berlin"}, [["Europe/Berlin"]], CONCISE),
    ("How fast does the fan turn?", "query_metrics", {"metrics": ["gpu.fan_speed_percent"]}, [["not_supported"], ["no values"]], CONCISE),
    ("How busy was it a week ago?", "query_metrics", {"metrics": [UTIL], "window": "8d..7d"}, [["the ledger holds it from"]], CONCISE),
    ("Any NVLink traffic?", "query_metrics", {"metrics": ["nvlink.tx_bytes"]}, [["none was ever recorded"]], CONCISE),
    ("How long were requests?", "query_metrics", {"metrics": ["request.duration_seconds"], "window": "2h"}, [["request.duration_seconds", "9.2"]], CONCISE),
    # who
    ("Who uses the GPUs?", "top_processes", {}, [["4242", "python", "alice"], ["777", "bob"]], CONCISE),
    ("Who holds the most memory?", "top_processes", {"by": "gpu_memory", "limit": 1}, [["4242", "64400000000"]], CONCISE),
    ("Who is on GPU 0?", "top_processes", {"gpu": [0]}, [["777", "bob"]], CONCISE),
    ("What does bob run?", "top_processes", {"user": "bob"}, [["777", "bob"]], CONCISE),
    ("Who used it two hours ago?", "top_processes", {"window": "3h..1h"}, [["999", "carol"]], CONCISE),
    ("Does carol's job still run?", "top_processes", {"window": "3h", "user": "carol"}, [["999", "false"]], CONCISE),
    ("Does alice's?", "top_processes", {"window": "3h", "user": "alice"}, [["4242", "true"]], CONCISE),
    ("Who used most GPU time?", "top_processes", {"window": "3h", "by": "gpu_seconds", "limit": 1}, [["4242"]], CONCISE),
    ("With what command?", "top_processes", {"user": "alice", "detail": "full"}, [["4242", "python --run xxx"]], FULL),
    # what happened
    ("What happened?", "list_events", {}, [["xid", "critical", "Xid 79"], ["gap"], ["deployed v2"]], CONCISE),
    ("Any Xid?", "list_events", {"types": ["xid"]}, [["xid", "0", "fallen off the bus"]], CONCISE),
    ("Was GPU 1 throttled?", "list_events", {"gpu": [1]}, [["10", "throttle_end", "sw_power_cap", "20"]], CONCISE),
    ("Anything critical?", "list_events", {"min_severity": "critical"}, [["xid", "critical"]], CONCISE),
    ("When was nothing recorded?", "list_events", {"types": ["gap"]}, [["gap", "540", "nothing was sampled for 9 minutes"]], CONCISE),
    ("What did people note?", "list_events", {"types": ["annotation"]}, [["annotation", "deployed v2"]], CONCISE),
    ("Was a GPU lost?", "list_events", {"types": ["lost"]}, [["nothing of that kind happened"]], CONCISE),
    ("Only the newest?", "list_events", {"limit": 1}, [["gap"], ["cursor"]], CONCISE),
    # slow
    ("Which requests were slow?", "slow_requests", {"window": "2h"}, [["chat", "llama", "9.2"]], CONCISE),
    ("Which took more than 5 s?", "slow_requests", {"window": "2h", "threshold": "5s"}, [["3 of 183 requests slow"], ["9.1", "7"]], CONCISE),
    ("Which took longer than their tokens explain?", "slow_requests", {"window": "2h", "excess": True}, [["beyond what its tokens explain"]], CONCISE),
    ("From when on is chat slow?", "slow_requests", {"window": "2h", "percentile": 95}, [["chat", "llama", "183"]], CONCISE),
    ("Slow requests of another model?", "slow_requests", {"window": "2h", "model": "qwen"}, [["request: 183 rows lie in that time"]], CONCISE),
    ("Why was that one slow?", "diagnose", {"at": "request-902"}, [["queueing", "it waited 7 s"]], FULL),
    ("Was that one slow at all?", "diagnose", {"at": "request-100"}, [["slow", "false"]], FULL),
    ("Why was it slow in the last 20 minutes?", "diagnose", {"window": "20m"}, [["requests were slow"], ["queueing", "it waited"]], FULL),
    # what differs, what is unusual, where it goes
    ("Does GPU 0 hold more than two hours ago?", "compare_windows", {"window": "30m", "baseline": "2h..90m", "metrics": ["gpu.memory_used_bytes"]}, [["gpu.memory_used_bytes", "0", "1", "not certain"], ["0 of 2 series differ"]], CONCISE),
    ("Was the last hour unusual?", "find_anomalies", {"window": "1h"}, [["0 anomalies"]], CONCISE),
    ("Will GPU 0's memory fill up?", "forecast", {"metric": "gpu.memory_used_bytes", "window": "3h", "gpu": [0]}, [["0", "rises"]], CONCISE),
    ("When does it reach 45 GiB?", "forecast", {"metric": "gpu.memory_used_bytes", "window": "3h", "gpu": [0], "threshold": "45GiB"}, [["0", "is met about"]], CONCISE),
    ("Where does GPU 1's power go?", "forecast", {"metric": "gpu.power_watts", "window": "3h", "gpu": [1]}, [["1", "no trend"]], CONCISE),
    # the data
    ("What is recorded?", "describe_data", {}, [["gpu_sample"], ["request", "183"]], FULL),
    ("What can I ask about power?", "describe_data", {"topic": "metrics", "search": "power"}, [[POWER, "W"]], FULL),
    ("What is in a request?", "describe_data", {"topic": "table", "table": "request"}, [["queue_seconds", "DOUBLE"]], FULL),
    ("How do I ask in SQL?", "describe_data", {"topic": "examples"}, [["Slowest requests", "duration_seconds"]], FULL),
    ("What does the driver not tell?", "describe_data", {"topic": "capabilities"}, [["not_supported", "nvmlDeviceGetFanSpeed_v2"]], FULL),
    # SQL
    ("How many samples are there?", "run_sql", {"sql": "select count(*) as n from gpu_sample"}, [["344"]], SQL),
    ("When was each GPU hottest?", "run_sql", {"sql": "select gpu_index, max(temperature_celsius) as celsius from gpu_sample group by all order by all"}, [["0", "50"], ["1", "91"]], SQL),
    ("Who ran longest?", "run_sql", {"sql": "select user, count(*) as n from process_sample group by user order by n desc, user limit 1"}, [["alice", "172"]], SQL),
]  # fmt: skip


def text(answer) -> str:
    (content,) = answer.content
    return content.text


def rows(structured):
    """What a reader of the structured channel takes in at once: a row, a field, the summary, a note."""
    for name, value in structured.items():
        if isinstance(value, dict) and set(value) == {"columns", "rows"}:
            yield from ([name, *(spelled(cell) for cell in row)] for row in value["rows"])
        elif isinstance(value, dict):
            yield from ([key, spelled(item)] for key, item in value.items())
        elif isinstance(value, list):
            yield from ([item] for item in value)
        else:
            yield [name, spelled(value)]


def spelled(value) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def has(pieces, facts) -> bool:
    """Whether each fact stands in some piece: a number whole, words as part of it."""
    return all(
        any(fact == piece or (not is_number(fact) and fact in piece) or is_listed(fact, piece) for piece in pieces)
        for fact in facts
    )


def is_listed(fact, piece) -> bool:
    """Whether a number is one of a series."""
    return is_number(fact) and fact in re.split(r"[ ,=\[\]:]+", piece)


def is_number(fact) -> bool:
    return re.fullmatch(r"-?[0-9.]+", fact) is not None


def test_there_are_at_least_sixty():
    assert len(QUESTIONS) >= 60


@pytest.mark.parametrize(("question", "name", "arguments", "facts", "tokens_max"), QUESTIONS)
def test_the_answer_holds_the_facts_in_both_channels_within_its_size(
    planted, ask, question, name, arguments, facts, tokens_max
):
    answer = ask(planted, name, arguments)
    assert not answer.is_error, text(answer)
    said, structured = text(answer), answer.structured_content
    lines = [re.split(r",(?=(?:[^\"]*\"[^\"]*\")*[^\"]*$)", line) for line in said.splitlines()]
    for group in facts:
        assert any(has([*line, " ".join(line)], group) for line in lines), (question, group, said)
        assert any(has(row, group) for row in rows(structured)), (question, group, structured)
    wire = json.dumps(structured, ensure_ascii=False, separators=(",", ":"))
    assert max(tokens(said), tokens(wire)) <= tokens_max
    assert said.splitlines()[0] == structured["summary"]
    assert set(structured["window"]) == {"from", "to", "tz", "coverage", "age_s"}


def test_what_processes_call_themselves_is_in_cells_and_never_in_a_sentence(planted, ask):
    for name, arguments in (("top_processes", {"detail": "full"}), ("live_state", {}), ("get_system_health", {})):
        answer = ask(planted, name, arguments)
        structured = answer.structured_content
        assert "\u202e" not in text(answer)
        assert "\x1b" not in text(answer)
        assert all(
            "ignore all" not in words for words in [structured["summary"], *structured["notes"], *structured["next"]]
        )


def test_every_tool_is_asked_something(planted, ask):
    from mcp_server.tools import Desk, all_tools

    tools = {tool.name: tool for tool in all_tools(Desk(planted))}
    assert {name for _, name, *_ in QUESTIONS} == set(tools)
    for name, tool in tools.items():
        arguments = next(arguments for _, asked, arguments, *_ in QUESTIONS if asked == name)
        jsonschema.validate(arguments, tool.parameters)
        jsonschema.validate(ask(planted, name, arguments).structured_content, tool.output_schema)
