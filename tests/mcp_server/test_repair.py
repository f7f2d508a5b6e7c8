"""Wrong calls as agents make them: the answer says what is wrong, and the call that it tells to try works."""

import ast
import re

import pytest

POWER = ["gpu.power_watts"]
WRONG_CALLS = [
    # names of tools
    ("gpu_now", {}, "There is no tool 'gpu_now'"),
    ("live_stat", {}, "did you mean 'live_state'?"),
    ("query_metric", {}, "did you mean 'query_metrics'?"),
    ("runsql", {"sql": "select 1"}, "did you mean 'run_sql'?"),
    ("get_gpu_metrics", {}, "There is no tool 'get_gpu_metrics'"),
    # names of parameters
    ("query_metrics", {"metrics": POWER, "windw": "6h"}, "no parameter 'windw': did you mean 'window'?"),
    ("query_metrics", {"metric": "gpu.power_watts"}, "no parameter 'metric': did you mean 'metrics'?"),
    ("query_metrics", {"metrics": POWER, "gpus": [0]}, "no parameter 'gpus': did you mean 'gpu'?"),
    ("query_metrics", {"metrics": POWER, "start": "-1h", "end": "now"}, "query_metrics has no parameter 'start'"),
    ("query_metrics", {"metrics": POWER, "timezone": "UTC"}, "query_metrics has no parameter 'timezone'"),
    ("run_sql", {"query": "select 1 as x from gpu_sample limit 1"}, "run_sql has no parameter 'query'"),
    ("run_sql", {"sql": "select 1 as x from gpu_sample", "limit": 5}, "run_sql has no parameter 'limit'"),
    ("live_state", {"verbose": True}, "live_state has no parameter 'verbose'"),
    ("list_events", {"severity": "warning"}, "did you mean 'min_severity'?"),
    ("list_events", {"type": ["xid"]}, "did you mean 'types'?"),
    ("top_processes", {"sort_by": "gpu_memory"}, "top_processes has no parameter 'sort_by'"),
    ("check_gpu_availability", {"minMemoryGB": 10}, "check_gpu_availability has no parameter 'minMemoryGB'"),
    ("slow_requests", {"windows": "1h"}, "did you mean 'window'?"),
    ("get_system_health", {"verbose": True}, "get_system_health has no parameter 'verbose'"),
    # values of the wrong shape
    ("query_metrics", {}, "query_metrics: metrics: field required"),
    ("query_metrics", {"metrics": []}, "list should have at least 1 item"),
    ("query_metrics", {"metrics": "gpu.power_watts"}, "query_metrics: metrics: input should be a valid list"),
    ("query_metrics", {"metrics": POWER, "points": 1}, "greater than or equal to 2 (given: '1')"),
    ("query_metrics", {"metrics": POWER, "points": 100_000}, "less than or equal to 500"),
    (
        "query_metrics",
        {"metrics": POWER, "detail": "ful"},
        "query_metrics: detail: input should be 'concise' or 'full'",
    ),
    ("query_metrics", {"metrics": POWER, "gpu": 0}, "query_metrics: gpu: input should be a valid list"),
    ("query_metrics", {"metrics": POWER, "gpu": ["zero"]}, "query_metrics: gpu.0: input should be a valid integer"),
    ("query_metrics", {"metrics": POWER, "window": 60}, "query_metrics: window: input should be a valid string"),
    ("run_sql", {}, "run_sql: sql: field required"),
    ("run_sql", {"sql": "select 1 as x from gpu_sample", "max_rows": 10**6}, "less than or equal to 1000"),
    ("top_processes", {"by": "memory"}, "top_processes: by: input should be 'gpu_memory'"),
    ("list_events", {"min_severity": "error"}, "list_events: min_severity: input should be 'info'"),
    ("describe_data", {"topic": "tables"}, "describe_data: topic: input should be 'overview'"),
    ("slow_requests", {"percentile": 97}, "slow_requests: percentile: input should be 50"),
    ("check_gpu_availability", {"count": 0}, "greater than or equal to 1"),
    ("check_gpu_availability", {"max_utilization": 200}, "less than or equal to 100"),
    # values that name nothing
    (
        "query_metrics",
        {"metrics": ["gpu.utl"]},
        "There is no metric 'gpu.utl': did you mean 'gpu.utilization_percent'?",
    ),
    ("query_metrics", {"metrics": ["gpu.power"]}, "There is no metric 'gpu.power': did you mean"),
    ("query_metrics", {"metrics": ["xyzzy"]}, "There is no metric 'xyzzy'"),
    ("query_metrics", {"metrics": POWER, "gpu": [9]}, "There is no GPU 9 in this window: it has GPU 0, 1"),
    ("live_state", {"gpu": [9]}, "There is no GPU 9: there is GPU 0, 1"),
    ("describe_data", {"topic": "table", "table": "gpu_samples"}, "did you mean 'gpu_sample'?"),
    ("list_events", {"types": ["xids"]}, "There is no type of event 'xids': did you mean 'xid'?"),
    ("list_events", {"types": ["oom"]}, "There is no type of event 'oom'"),
    ("diagnose", {"at": "no-such-request"}, "There is no request 'no-such-request'"),
    ("diagnose", {}, "One thing is diagnosed at a time"),
    # windows
    ("query_metrics", {"metrics": POWER, "window": "1M"}, "Window '1M' can be read in two ways"),
    ("query_metrics", {"metrics": POWER, "window": "lst hour"}, "did you mean 'last hour'?"),
    ("query_metrics", {"metrics": POWER, "window": "2099-01-01"}, "is in the future"),
    ("query_metrics", {"metrics": POWER, "window": "now..2h"}, "Window 'now..2h'"),
    ("query_metrics", {"metrics": POWER, "window": ""}, "Window ''"),
    ("query_metrics", {"metrics": POWER, "tz": "Europe/Berln"}, "did you mean 'Europe/Berlin'?"),
    ("list_events", {"window": "five minutes"}, "Window 'five minutes'"),
    ("check_gpu_availability", {"over": "soon"}, "Window 'soon'"),
    ("top_processes", {"window": "now"}, "Window 'now'"),
    # SQL
    ("run_sql", {"sql": "select power from gpu_sample"}, 'Referenced column "power" not found'),
    ("run_sql", {"sql": "select * from gpu_samples"}, "There is no view 'gpu_samples': did you mean 'gpu_sample'?"),
    ("run_sql", {"sql": "drop table gpu_sample"}, "Only SELECT can be run, this is DROP"),
    ("run_sql", {"sql": "select 1; select 2"}, "This is 2 statements"),
    ("run_sql", {"sql": "selct * from gpu_sample"}, "The SQL cannot be parsed"),
    ("run_sql", {"sql": "select * from read_csv('/etc/passwd')"}, "read_csv"),
    # the past
    ("forecast", {"metric": "gpu.power_wats", "window": "10m"}, "did you mean 'gpu.power_watts'?"),
    ("forecast", {"metric": "gpu.power_watts", "window": "10m", "threshold": "hot"}, "'hot' is no value"),
    ("forecast", {"metric": "gpu.power_watts", "window": "10m", "ahead": "soon"}, "'soon' is no length of time"),
    ("compare_windows", {"window": "2m", "baseline": "befor"}, "Window 'befor'"),
    ("compare_windows", {"window": "2m", "reference": "5m..2m"}, "compare_windows has no parameter 'reference'"),
    ("find_anomalies", {"window": "5m", "sensitivity": 3}, "find_anomalies has no parameter 'sensitivity'"),
    # requests
    ("slow_requests", {"threshold": "soon"}, "'soon' is no length of time"),
    ("slow_requests", {"threshold": "2s", "excess": True}, "Requests are slow by one rule"),
]


def text(answer) -> str:
    (content,) = answer.content
    return content.text


def told_call(words: str):
    """The call after `Try:` as a model would read it: the name, and the arguments."""
    found = re.search(r"Try: (\w+\(.*\))$", words)
    assert found, words
    call = ast.parse(found[1], mode="eval").body
    return call.func.id, {one.arg: ast.literal_eval(one.value) for one in call.keywords}


def test_there_are_at_least_forty():
    assert len(WRONG_CALLS) >= 40


@pytest.mark.parametrize(("name", "arguments", "words"), WRONG_CALLS)
def test_a_wrong_call_says_what_is_wrong_and_the_call_it_tells_to_try_works(settings, ask, name, arguments, words):
    answer = ask(settings, name, arguments)
    said = text(answer)
    assert answer.is_error
    assert words in said
    assert "\n" not in said
    assert "Error executing" not in said
    assert "errors.pydantic.dev" not in said
    better = ask(settings, *told_call(said))
    assert not better.is_error, text(better)


def test_an_error_is_worded_alike_for_clients_of_both_eras(settings, ask):
    said = {era: text(ask(settings, "query_metrics", {"metrics": ["gpu.utl"]}, era)) for era in ("auto", "legacy")}
    assert said["auto"] == said["legacy"]
    assert said["auto"] == (
        "There is no metric 'gpu.utl': did you mean 'gpu.utilization_percent'?"
        " Try: query_metrics(metrics=['gpu.utilization_percent'])"
    )
