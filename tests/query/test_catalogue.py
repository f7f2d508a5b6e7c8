"""What can be asked for: metrics, kinds, columns, by name."""

import pytest

from query.catalogue import find_kind, find_metric, metrics
from query.describe import SQL_EXAMPLES, describe_kind, describe_metrics, kind_names
from query.errors import UnknownKindError, UnknownMetricError
from query.sandbox.guard import referenced_kinds
from store.derivations import DUCKDB_TYPES
from store.events import KINDS, measured_fields


def test_every_gauge_and_counter_of_a_sampled_kind_is_a_metric_of_one_name():
    sampled = (
        "gpu_sample",
        "system_sample",
        "device_sample",
        "process_sample",
        "nvlink_sample",
        "request",
        "server_sample",
    )
    declared = [(kind, column.name) for kind in sampled for column in measured_fields(KINDS[kind])]
    assert [(metric.kind.name, metric.column.name) for metric in metrics().values()] == declared


@pytest.mark.parametrize("name", metrics())
def test_every_metric_is_found_by_its_name_however_it_is_written(name):
    metric = metrics()[name]
    assert metric.name == name
    assert [find_metric(written) for written in (name, f" {name.upper()}\n")] == [metric, metric]


@pytest.mark.parametrize(
    ("name", "kind", "column", "unit"),
    [
        ("gpu.power_watts", "gpu_sample", "power_watts", "W"),
        ("gpu.energy_joules", "gpu_sample", "energy_joules", "W"),
        ("cpu.utilization_percent", "system_sample", "cpu_utilization_percent", "%"),
        ("memory.used_bytes", "system_sample", "memory_used_bytes", "B"),
        ("network.sent_bytes", "system_sample", "network_sent_bytes", "B/s"),
        ("context.switches_count", "system_sample", "context_switches_count", "/s"),
        ("nvlink.tx_bytes", "nvlink_sample", "tx_bytes", "B/s"),
        ("device.read_bytes", "device_sample", "read_bytes", "B/s"),
        ("device.queue_seconds", "device_sample", "queue_seconds", "s/s"),
        ("device.temperature_celsius", "device_sample", "temperature_celsius", "°C"),
        ("device.link_speed_bytes_per_second", "device_sample", "link_speed_bytes_per_second", "B/s"),
        ("process.cpu_seconds", "process_sample", "cpu_seconds", "s/s"),
        ("request.duration_seconds", "request", "duration_seconds", "s"),
        ("server.generation_tokens", "server_sample", "generation_tokens", "tokens/s"),
        ("gpu.sm_active_ratio", "gpu_sample", "sm_active_ratio", ""),
    ],
)
def test_a_metric_says_where_it_is_read_and_in_which_unit_its_trend_is(name, kind, column, unit):
    metric = find_metric(name)
    assert (metric.kind.name, metric.column.name, metric.unit) == (kind, column, unit)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("gpu.powerwatts", "There is no metric 'gpu.powerwatts': did you mean 'gpu.power_watts'?"),
        ("gpu.temp", "There is no metric 'gpu.temp': did you mean 'gpu.temperature_celsius'?"),
        ("qwxyz", "There is no metric 'qwxyz': list them with 'gpuledger metrics'"),
        ("", "There is no metric '': list them with 'gpuledger metrics'"),
    ],
)
def test_an_unknown_metric_is_refused_with_the_nearest(name, sentence):
    with pytest.raises(UnknownMetricError) as refused:
        find_metric(name)
    assert str(refused.value) == sentence


def test_every_kind_is_found_by_its_name():
    assert [find_kind(f" {name.upper()} ") for name in kind_names()] == list(KINDS.values())


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("gpu_samples", "There is no kind of event 'gpu_samples': did you mean 'gpu_sample'?"),
        ("xyz", f"There is no kind of event 'xyz': there are {', '.join(KINDS)}"),
    ],
)
def test_an_unknown_kind_is_refused_with_the_nearest(name, sentence):
    with pytest.raises(UnknownKindError) as refused:
        find_kind(name)
    assert str(refused.value) == sentence


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_is_described_with_all_its_columns(name):
    kind, found = KINDS[name], describe_kind(name)
    assert (found.name, found.row, found.cadence) == (name, kind.row, kind.cadence)
    assert [(column.name, column.type, column.meaning) for column in found.columns] == [
        (column.name, DUCKDB_TYPES[column.type], column.meaning) for column in kind.columns
    ]


def test_a_column_is_described_in_its_own_unit():
    units = {column.name: column.unit for column in describe_kind("gpu_sample").columns}
    shown = ("seq", "power_watts", "energy_joules", "memory_used_bytes", "sm_active_ratio", "clock_sm_hertz")
    assert [units[name] for name in shown] == ["", "W", "J", "B", "", "Hz"]


def test_metrics_are_searched_by_every_word_in_name_and_meaning():
    assert [metric.name for metric in describe_metrics("GPU power limit least")] == ["gpu.power_limit_watts"]
    assert [metric.name for metric in describe_metrics("hottest sensor")] == ["cpu.temperature_celsius"]
    assert describe_metrics("no such words") == ()
    assert [metric.name for metric in describe_metrics("")] == list(metrics())
    assert all(metric.meaning for metric in describe_metrics())


@pytest.mark.parametrize("name", SQL_EXAMPLES)
def test_every_example_reads_the_published_views(name):
    assert referenced_kinds(SQL_EXAMPLES[name])
