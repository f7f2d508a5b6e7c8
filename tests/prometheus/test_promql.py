"""PromQL over the ledger beside the real Prometheus: the same samples, the same questions, the same answers."""

import json
import math
import random

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from gpuledger.prometheus_api import routes
from query.reading.local_source import LocalSource
from store.events import CLOCK_EVENT_REASONS, Event
from store.ledger import Ledger
from store.upkeep.sealing import seal

BEGIN_MS = 1_795_334_400_000
SECONDS = 900
HOSTS = ("node-a", "node-b")
GAP = range(400, 450)  # no sample at all
LOST = range(600, 660)  # of GPU 1 no value
RESET_AT = 300  # GPU 0's counters begin anew


def at_ms(second):
    """A second's tick, not quite on time."""
    return BEGIN_MS + 1000 * second + (second * 37) % 90


def gpu_values(host, gpu, second):
    draw = random.Random(f"{host}{gpu}{second}")
    is_lost = gpu == 1 and second in LOST
    has_begun_anew = gpu == 0 and second >= RESET_AT
    energy = 100.0 * (gpu + 1) * (second - RESET_AT * has_begun_anew) + draw.randrange(100) / 1000
    values = {
        "utilization_percent": draw.randrange(101),
        "power_watts": 200.0 + 50 * gpu + 25 * math.floor(4 * math.sin(second / 40)),
        "energy_joules": energy,
        "memory_used_bytes": 10**9 * (gpu + 1) + 10**7 * second,
        "memory_total_bytes": 150_754_820_096,
        "clock_sm_hertz": 1_980_000_000,
        "clock_memory_hertz": 3_201_000_000,
        "clock_event_reasons_bitmask": draw.choice((0, 4, 0x24)),
        "throttle_sw_power_cap_seconds": second // 3 / 2,
        "throttle_sw_thermal_seconds": second // 10 / 8,
        "pcie_tx_bytes": 1000 * second**2,
        "fan_speed_percent": 30 + gpu if second % 5 == 0 else None,
    }
    return {"up": not is_lost} | ({} if is_lost else values)


FAMILIES = {  # of each column its family, and what its value becomes there: written by hand, as a scrape would have it
    "up": ("dgx_gpu_up", {}),
    "utilization_percent": ("dgx_gpu_utilization_percent", {}),
    "power_watts": ("dgx_gpu_power_usage_watts", {}),
    "energy_joules": ("dgx_gpu_energy_joules_total", {}),
    "memory_used_bytes": ("dgx_gpu_memory_used_bytes", {}),
    "memory_total_bytes": ("dgx_gpu_memory_total_bytes", {}),
    "clock_sm_hertz": ("dgx_gpu_clock_hertz", {"domain": "sm"}),
    "clock_memory_hertz": ("dgx_gpu_clock_hertz", {"domain": "memory"}),
    "throttle_sw_power_cap_seconds": ("dgx_gpu_throttle_seconds_total", {"reason": "sw_power_cap"}),
    "throttle_sw_thermal_seconds": ("dgx_gpu_throttle_seconds_total", {"reason": "sw_thermal"}),
    "pcie_tx_bytes": ("dgx_gpu_pcie_bytes_total", {"direction": "tx"}),
    "fan_speed_percent": ("dgx_gpu_fan_speed_percent", {}),
    "cpu_utilization_percent": ("dgx_cpu_utilization_percent", {}),
    "pressure_io_some_seconds": ("dgx_pressure_seconds_total", {"resource": "io", "share": "some"}),
}


def recorded_ticks(host):
    for second in range(SECONDS):
        if second not in GAP:
            rows = [
                ("gpu_sample", {"gpu": str(gpu), "uuid": f"GPU-{host}-{gpu}"}, gpu_values(host, gpu, second))
                for gpu in range(3)
            ]
            load = {"cpu_utilization_percent": float(second % 50), "pressure_io_some_seconds": second * 0.125}
            yield second, [*rows, ("system_sample", {}, load)]


def driver(second):
    return "580" if second < RESET_AT else "590"


def described(host):
    for second in (0, RESET_AT):
        for gpu in range(3):
            values = {"gpu_uuid": f"GPU-{host}-{gpu}", "gpu_index": gpu, "name": f"NVIDIA {gpu}", "source": "nvml"}
            yield Event("inventory", at_ms(second) * 1000, values | {"driver_version": driver(second)})


def events_of(host, second, rows):
    common = {"interval_seconds": 1.0, "counter_epoch": 0}
    for kind, labels, values in rows:
        epoch = {"counter_epoch": int(labels.get("gpu") == "0" and second >= RESET_AT)}
        identity = {"gpu_index": int(labels["gpu"]), "gpu_uuid": labels["uuid"]} if labels else {}
        yield Event(kind, at_ms(second) * 1000, common | epoch | identity | values)


def scraped(host):
    """What a scrape at each tick would have written: every value, and a marker where a series ends."""
    series = {}
    for second, rows in recorded_ticks(host):
        for kind, labels, values in rows:
            if labels:
                name = f"NVIDIA {labels['gpu']}"
                key = {"__name__": "dgx_gpu_info", "instance": host, "job": "gpuledger", **labels, "name": name, "source": "nvml", "driver_version": driver(second)}  # fmt: skip
                for version in ("580", "590"):
                    of_version = series.setdefault(tuple(sorted((key | {"driver_version": version}).items())), [])
                    of_version.append((at_ms(second), 1.0 if driver(second) == version else None))
            expected = [name for name in FAMILIES if (name in ("cpu_utilization_percent", "pressure_io_some_seconds")) == (kind == "system_sample")]  # fmt: skip
            for column in expected:
                family, more = FAMILIES[column]
                key = (("__name__", family), ("instance", host), ("job", "gpuledger"), *labels.items(), *more.items())
                of_series = series.setdefault(tuple(sorted(key)), [])
                value = values.get(column)
                if value is not None:
                    of_series.append((at_ms(second), float(value)))
                elif column != "fan_speed_percent":
                    of_series.append((at_ms(second), None))
            mask = values.get("clock_event_reasons_bitmask")
            for bit, reason in CLOCK_EVENT_REASONS.items() if kind == "gpu_sample" else ():
                key = (("__name__", "dgx_gpu_throttle_active"), ("instance", host), ("job", "gpuledger"), *labels.items(), ("reason", reason))  # fmt: skip
                value = None if mask is None else float(bool(mask & bit))
                series.setdefault(tuple(sorted(key)), []).append((at_ms(second), value))
    return {key: with_ends(dict(key), samples) for key, samples in series.items()}


def with_ends(labels, samples):
    """A reading stands for three of its intervals, at least 3 s; then the series ends until the next one."""
    stands_ms = 15_000 if labels["__name__"] == "dgx_gpu_fan_speed_percent" else 3000
    found = []
    for (time_ms, value), following in zip(samples, [*samples[1:], (math.inf, None)], strict=True):
        found.append((time_ms, value))
        if following[0] > time_ms + stands_ms:
            found.append((time_ms + stands_ms + 1, None))
    return found


@pytest.fixture(scope="module")
def prometheus(real_prometheus, pytestconfig):
    written = pytestconfig.pluginmanager.get_plugin("prometheus").Written
    for host in HOSTS:
        real_prometheus.write(written(dict(key), samples) for key, samples in scraped(host).items())
    return real_prometheus


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    """The same of both hosts, half of each sealed, half in the tail."""
    folder = tmp_path_factory.mktemp("promql") / "ledger"
    for host in HOSTS:
        with Ledger(folder, host=host, boot_id=f"boot-{host}") as ledger:
            ledger.append(list(described(host)))
            ticks = list(recorded_ticks(host))
            for half in (ticks[: len(ticks) // 2], ticks[len(ticks) // 2 :]):
                seal(folder)  # the first half; the second stays in the tail
                ledger.append([event for second, rows in half for event in events_of(host, second, rows)])
    source = LocalSource(folder)
    yield source
    source.close()


@pytest.fixture(scope="module")
def client(ledger):
    with TestClient(Starlette(routes=routes(ledger, now_s=lambda: BEGIN_MS / 1000 + SECONDS))) as client:
        yield client


def asked(client, path, **parameters):
    answer = client.get(f"/api/v1/{path}", params=parameters)
    return answer.status_code, answer.json()


def numbers_aside(answer):
    """An answer with its numbers taken out, and those: sums are made in another order here, and may differ at the end."""
    numbers = []

    def walk(part):
        if isinstance(part, dict):
            return {key: walk(value) for key, value in part.items() if key != "warnings"}
        if isinstance(part, list) and len(part) == 2 and isinstance(part[0], int | float) and isinstance(part[1], str):
            numbers.append(float(part[1]))
            return [part[0], "NaN" if math.isnan(numbers[-1]) else None]
        return [walk(one) for one in part] if isinstance(part, list) else part

    return walk(answer), numbers


def in_order(answer):
    """Prometheus gives the series of an instant in no order."""
    result = answer.get("data", {}).get("result")
    if isinstance(result, list) and result and isinstance(result[0], dict):
        result.sort(key=lambda one: json.dumps(one["metric"], sort_keys=True))
    return answer


def assert_same(mine, real, expression):
    shape, numbers = numbers_aside(in_order(mine[1]))
    real_shape, real_numbers = numbers_aside(in_order(real[1]))
    assert (mine[0], shape) == (real[0], real_shape), expression
    assert numbers == pytest.approx(real_numbers, rel=1e-9, abs=1e-9, nan_ok=True), expression


U, P, E = "dgx_gpu_utilization_percent", "dgx_gpu_power_usage_watts", "dgx_gpu_energy_joules_total"
OVER_TIME = (
    *("rate", "increase", "irate", "delta", "idelta", "deriv", "changes", "resets"),
    *(f"{one}_over_time" for one in ("avg", "min", "max", "sum", "count", "last", "present", "stddev", "stdvar")),
)
EXPRESSIONS = [
    # Selectors
    U,
    "dgx_gpu_up",
    "dgx_gpu_fan_speed_percent",
    'dgx_gpu_clock_hertz{domain="sm"}',
    'dgx_gpu_clock_hertz{domain!="sm",gpu=~"0|2"}',
    'dgx_gpu_utilization_percent{uuid!~".*-b-[01]"}',
    'dgx_gpu_utilization_percent{gpu=~""}',
    'dgx_gpu_utilization_percent{nothing=""}',
    'dgx_gpu_utilization_percent{nothing!=""}',
    '{__name__=~"dgx_gpu_(up|power_usage_watts)",gpu="1"}',
    "dgx_gpu_throttle_active == 1",
    "no_such_metric",
    f"{U} offset 2m",
    f"{U} offset -1m",
    # Windows: with a counter that begins anew, a gap, a GPU that is lost, and fewer than two samples
    *(f"{function}({E}[{length}])" for function in OVER_TIME for length in ("1s", "20s", "2m", "10m")),
    *(f"{function}(dgx_gpu_fan_speed_percent[1m])" for function in OVER_TIME),
    f"rate({E}[1m] offset 5m)",
    "rate(dgx_gpu_pcie_bytes_total[1m])",
    f"quantile_over_time(0.9, {U}[1m])",
    f"quantile_over_time(1.5, {U}[1m])",
    f"quantile_over_time(-1, {U}[1m])",
    "predict_linear(dgx_gpu_memory_used_bytes[2m], 3600)",
    # Groups
    *(f"{one}({U})" for one in ("sum", "avg", "min", "max", "count", "group", "stddev", "stdvar")),
    *(f"{one} by (gpu) ({U})" for one in ("sum", "avg", "min", "max", "count")),
    f"sum without (gpu, uuid) ({U})",
    f"sum({U}) by (instance, nothing)",
    f"topk(2, {E})",  # of equal values Prometheus takes whichever
    f"topk by (instance) (1, {E})",
    f"bottomk(2, {E})",
    f"topk(0, {U})",
    f"quantile(0.5, {U})",
    f"quantile by (instance) (0.25, {U})",
    "sum(no_such_metric)",
    "avg by (instance) (rate(dgx_gpu_energy_joules_total[30s]))",
    # What each GPU is
    "dgx_gpu_info",
    'count by (driver_version) (dgx_gpu_info{name=~"NVIDIA [01]"})',
    f"{P} * on (uuid) group_left (name) dgx_gpu_info",
    # Arithmetic and comparison
    "1 + 2 * 3 ^ 2 ^ 0.5 % 5 - -1",
    "-1 ^ 2",
    "2 > bool 1",
    "1 / 0",
    "-1 / 0",
    "0 / 0",
    "-5 % 3",
    "1e30 * 0x10",
    "0.1 + 1e-7",
    "Inf",
    "-inf + nan",
    f"{U} / 100",
    f"100 - {U}",
    f"-{U}",
    f"{U} > 50",
    f"50 < {U}",
    f"{U} > bool 50",
    f"{P} >= 250 < 300",
    "dgx_gpu_memory_used_bytes / dgx_gpu_memory_total_bytes * 100",
    f"{P} == {P}",
    f"{U} > {P} / 4",
    f"{U} >= bool ignoring(uuid) {P}",
    f"sum by (instance) ({P}) / on (instance) count by (instance) (dgx_gpu_up)",
    f"{U} * on (instance) group_left dgx_cpu_utilization_percent",
    f"dgx_cpu_utilization_percent + on (instance) group_right {U}",
    'dgx_gpu_clock_hertz * on (uuid) group_left (reason) dgx_gpu_throttle_active{reason="sw_power_cap"}',
    'dgx_gpu_clock_hertz / ignoring (domain) group_left dgx_gpu_clock_hertz{domain="memory"}',
    f"{U} and on (uuid) (dgx_gpu_up == 1)",
    f"{U} unless {U} > 50",
    f"{U} > 90 or {U} < 10",
    f"{U} or dgx_cpu_utilization_percent",
    "dgx_gpu_up and on () vector(1)",
    # Functions
    *(f"{one}({P} - 225.5)" for one in ("abs", "ceil", "floor", "sqrt", "exp", "ln", "log2", "log10", "sgn")),
    f"round({P} / 7)",
    f"round({P} / 7, 0.1)",
    f"round(-{P} / 2)",
    f"clamp({U}, 20, 80)",
    f"clamp({U}, 80, 20)",
    f"clamp_min({U}, 30)",
    f"clamp_max({U}, 30)",
    f"scalar({U})",
    'scalar(dgx_gpu_utilization_percent{gpu="0",instance="node-a"}) * 2',
    "vector(7)",
    "time()",
    "time() - timestamp(dgx_gpu_up)",
    "timestamp(dgx_gpu_up + 0)",
    f"sort({U})",
    f"sort_desc({U})",
    "absent(no_such_metric)",
    'absent(no_such_metric{gpu="0",uuid=~"x"})',
    f"absent({U})",
    "absent(sum(no_such_metric))",
    f"sum(rate({E}[1m])) # what follows is a comment",
]
MOMENTS_S = (3, 402, 610.2, 910)  # what the steps of 7 s from the beginning leave out


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_each_moment_is_answered_as_prometheus_does(client, prometheus, expression):
    for second in MOMENTS_S:
        question = {"query": expression, "time": f"{BEGIN_MS / 1000 + second:.3f}"}
        assert_same(asked(client, "query", **question), prometheus.get("query", **question), question)


WRONG = [
    "",
    "1 +",
    "dgx_gpu_up{",
    "dgx_gpu_up{gpu=0}",
    'dgx_gpu_up{gpu=~"("}',
    "{}",
    '{gpu=~".*"}',
    "rate(dgx_gpu_up)",
    "sum(dgx_gpu_up[1m])",
    "no_such_function(dgx_gpu_up)",
    "dgx_gpu_up[0s]",
    "dgx_gpu_up[1x]",
    "dgx_gpu_up[293y]",
    "dgx_gpu_up offset",
    "(dgx_gpu_up)[1m]",
    "(dgx_gpu_up) offset 1m",
    "rate(dgx_gpu_up[1m]) offset 1m",
    "1 > 2",
    "1 and 2",
    "dgx_gpu_up and 1",
    "dgx_gpu_up + bool 1",
    "dgx_gpu_up + on (gpu) 1",
    "topk(dgx_gpu_up)",
    "round(dgx_gpu_up, 1, 2)",
    "dgx_gpu_up dgx_gpu_up",
    "-dgx_gpu_up[1m]",
    "$x",
    f"{U} + on (instance) {P}",
    "dgx_gpu_up * on (gpu) group_left dgx_gpu_up",
    'rate({__name__=~"dgx_gpu_(up|utilization_percent)"}[1m])',
]


@pytest.mark.parametrize("expression", WRONG)
def test_what_prometheus_refuses_is_refused_in_its_shape(client, prometheus, expression):
    question = {"query": expression, "time": f"{BEGIN_MS / 1000 + 60}"}
    (status, mine), (real_status, real) = asked(client, "query", **question), prometheus.get("query", **question)
    assert (status, mine["status"], mine["errorType"]) == (real_status, real["status"], real["errorType"]), real
    assert mine["error"]
    assert set(mine) == set(real)


UNSUPPORTED = [
    ("max_over_time(rate(dgx_gpu_up[1m])[5m:1m])", "a subquery, [range:step], is not supported over the ledger"),
    ("dgx_gpu_up @ 1795334400", "the modifier @ is not supported over the ledger"),
    ('label_replace(dgx_gpu_up, "a", "$1", "gpu", "(.*)")', "the function label_replace is not supported"),
    ("dgx_gpu_up atan2 dgx_gpu_up", "the operator atan2 is not supported over the ledger"),
]


@pytest.mark.parametrize(("expression", "words"), UNSUPPORTED)
def test_what_prometheus_could_answer_and_the_ledger_cannot_says_so(client, prometheus, expression, words):
    assert prometheus.get("query", query=expression)[0] == 200
    status, mine = asked(client, "query", query=expression)
    assert (status, mine["status"], mine["errorType"]) == (422, "error", "execution")
    assert mine["error"].startswith(words)


WRONG_PARAMETERS = [
    ("query", {"query": "1", "time": "yesterday"}),
    ("query_range", {"query": "1", "start": "10", "end": "5", "step": "1"}),
    ("query_range", {"query": "1", "start": "1", "end": "5", "step": "0"}),
    ("query_range", {"query": "1", "start": "1", "end": "5", "step": "-1"}),
    ("query_range", {"query": "1", "start": "1", "end": "5", "step": "often"}),
    ("query_range", {"query": "1", "start": "1", "end": "5"}),
    ("query_range", {"query": "1", "end": "5", "step": "1"}),
    ("query_range", {"query": "1", "start": "0", "end": "11001", "step": "1"}),
    ("query_range", {"query": "dgx_gpu_up[1m]", "start": "1", "end": "5", "step": "1"}),
    ("query_range", {"query": '"text"', "start": "1", "end": "5", "step": "1"}),
    ("series", {}),
    ("series", {"match": "sum("}),
    ("series", {"match": "dgx_gpu_up[1m]"}),
    ("labels", {"match": "sum(dgx_gpu_up)"}),
    ("metadata", {"limit": "many"}),
]


@pytest.mark.parametrize(("path", "parameters"), WRONG_PARAMETERS)
def test_a_parameter_that_prometheus_refuses_is_refused(client, prometheus, path, parameters):
    real_status, real = prometheus.get(path, **parameters)
    status, mine = asked(client, path, **{name.replace("match", "match[]"): one for name, one in parameters.items()})
    assert (status, mine["errorType"]) == (real_status, real["errorType"]), real
    assert mine["error"]


@pytest.mark.parametrize("text", ['"a \\"b\\" \\u00e9\\n"', "'x'", "`raw \\n`", "1.5", "time()", "1e3 / 7"])
def test_a_text_and_a_number_are_answered_by_themselves(client, prometheus, text):
    question = {"query": text, "time": "1795334400.25"}
    (_, mine), (_, real) = asked(client, "query", **question), prometheus.get("query", **question)
    assert mine == real


@pytest.mark.parametrize("time", ["2026-11-22T08:05:00Z", "2026-11-22T09:05:00.5+01:00", "1795334700", "1.7953347e9"])
def test_a_time_is_seconds_or_rfc_3339(client, prometheus, time):
    question = {"query": "dgx_gpu_up", "time": time}
    assert_same(asked(client, "query", **question), prometheus.get("query", **question), question)


def test_the_samples_of_a_range_are_those_that_were_recorded(client, prometheus):
    for expression in (f"{E}[30s]", 'dgx_gpu_utilization_percent{gpu="1"}[5m] offset 3m'):
        question = {"query": expression, "time": f"{BEGIN_MS / 1000 + SECONDS}"}
        assert_same(asked(client, "query", **question), prometheus.get("query", **question), question)


SELECTIONS = ("dgx_gpu_up", '{instance="node-b"}', 'dgx_gpu_clock_hertz{domain="sm"}', "no_such_metric")


@pytest.mark.parametrize("match", SELECTIONS)
def test_series_and_their_labels_are_those_of_prometheus(client, prometheus, match):
    window = {"start": f"{BEGIN_MS / 1000}", "end": f"{BEGIN_MS / 1000 + SECONDS}"}
    (_, mine), (_, real) = (
        asked(client, "series", **{"match[]": match}, **window),
        prometheus.get("series", match=match, **window),
    )
    known = [one for one in mine["data"] if one["__name__"] != "dgx_gpu_throttle_active"]
    assert known == sorted(
        (one for one in real["data"] if one["__name__"] != "dgx_gpu_throttle_active"),
        key=lambda one: tuple(sorted(one.items())),
    )
    assert asked(client, "labels", **{"match[]": match}, **window) == prometheus.get("labels", match=match, **window)
    for name in ("__name__", "uuid", "nothing"):
        path = f"label/{name}/values"
        assert asked(client, path, **{"match[]": match}, **window) == prometheus.get(path, match=match, **window)


def test_without_a_selection_all_labels_there_are_are_told(client, prometheus):
    for path in ("labels", "label/__name__/values", "label/reason/values", "label/instance/values"):
        assert asked(client, path) == prometheus.get(path)


def test_what_was_asked_by_post_is_answered_as_by_get(client):
    form = {
        "query": f"sum by (gpu) ({U})",
        "start": f"{BEGIN_MS / 1000}",
        "end": f"{BEGIN_MS / 1000 + 60}",
        "step": "5",
    }
    posted = client.post("/api/v1/query_range", data=form)
    assert posted.json()["data"]["result"]
    assert posted.json() == asked(client, "query_range", **form)[1]
    assert client.post("/api/v1/query", content=b"query=" + b"1" * 1_000_001).status_code == 413


def test_the_metadata_tells_type_and_help_of_every_family(client):
    status, told = asked(client, "metadata", metric=E)
    energy = {"type": "counter", "help": "Energy used since the driver was loaded.", "unit": ""}
    assert (status, told) == (200, {"status": "success", "data": {E: [energy]}})
    assert len(asked(client, "metadata", limit="3")[1]["data"]) == 3
    assert {family for family, _ in FAMILIES.values()} < set(asked(client, "metadata")[1]["data"])


def test_where_there_is_no_ledger_the_api_is_unavailable(tmp_path):
    with TestClient(Starlette(routes=routes(LocalSource(tmp_path / "none")))) as client:
        status, told = asked(client, "query", query="dgx_gpu_up")
    assert (status, told["errorType"]) == (503, "unavailable")
    assert "no ledger" in told["error"].lower()


@pytest.mark.parametrize("expression", ['{instance="node-a",gpu="0"}', "sum by (__name__) ({gpu='1'})"])
def test_series_of_whatever_name_are_found_by_their_labels(client, prometheus, expression):
    question = {"query": expression, "time": f"{BEGIN_MS / 1000 + 100}"}
    assert_same(asked(client, "query", **question), prometheus.get("query", **question), question)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_each_point_of_a_range_is_prometheus_own(client, prometheus, expression):
    begin_s = BEGIN_MS / 1000
    question = {"query": expression, "start": f"{begin_s - 30}", "end": f"{begin_s + SECONDS + 60}", "step": "7"}
    assert_same(asked(client, "query_range", **question), prometheus.get("query_range", **question), question)
