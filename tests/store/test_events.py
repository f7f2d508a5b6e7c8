"""The declarations, and what is derived from them."""

import json
from collections import Counter

import jsonschema
import pyarrow as pa
import pytest

from store.derivations import (
    DUCKDB_TYPES,
    arrow_schema,
    duckdb_columns,
    events_page,
    json_schema,
    prometheus_families,
    unit_sign,
)
from store.events import CLOCK_EVENT_REASONS, GPU_SAMPLE, KINDS, UNITS, Kind, measured_fields

ALL_KINDS = pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)


def test_every_kind_of_the_design_is_declared():
    assert list(KINDS) == [
        "gpu_sample",
        "system_sample",
        "device_sample",
        "process_sample",
        "nvlink_sample",
        "request",
        "server_sample",
        "gpu_event",
        "inventory",
        "ledger_event",
        "annotation",
    ]


@ALL_KINDS
def test_every_event_bears_seq_time_host_and_boot_first(kind: Kind):
    assert [column.name for column in kind.columns[:4]] == ["seq", "observed_at", "host", "boot_id"]


@ALL_KINDS
def test_a_column_is_declared_once_in_its_kind(kind: Kind):
    twice = [name for name, count in Counter(column.name for column in kind.columns).items() if count > 1]
    assert twice == []


@ALL_KINDS
def test_the_last_word_of_a_measured_name_is_its_unit(kind: Kind):
    assert [column.name for column in measured_fields(kind) if column.unit not in UNITS] == []


@ALL_KINDS
def test_series_columns_are_declared_labels_or_how_a_finished_thing_ended(kind: Kind):
    ended = {"request": ["status"]}.get(kind.name, [])
    assert [name for name in kind.series if kind.by_name[name].instrument != "label"] == ended


@ALL_KINDS
def test_sample_kinds_say_their_interval_epoch_and_reasons_for_absence(kind: Kind):
    names = {column.name for column in kind.columns}
    is_sample = kind.expected_every_seconds is not None
    assert ({"interval_seconds", "counter_epoch", "absence"} <= names) == is_sample


def test_metric_names_are_unique_and_have_a_subject_and_a_quantity():
    names = [kind.metric_name(column) for kind in KINDS.values() if kind.series for column in measured_fields(kind)]
    names += [KINDS["system_sample"].metric_name(column) for column in measured_fields(KINDS["system_sample"])]
    assert [name for name, count in Counter(names).items() if count > 1] == []
    assert [name for name in names if name.count(".") != 1] == []
    assert {"gpu.utilization_percent", "cpu.utilization_percent", "memory.used_bytes", "load.1m_count"} <= set(names)


@ALL_KINDS
def test_arrow_schema_has_the_declared_columns_in_order_with_exact_types(kind: Kind):
    schema = arrow_schema(kind)
    assert schema.names == [column.name for column in kind.columns]
    assert schema.field("observed_at").type == pa.timestamp("us", tz="UTC")
    for column in kind.columns:
        if column.type == "decimal":
            assert schema.field(column.name).type == pa.decimal128(18, 3)


@ALL_KINDS
def test_duckdb_reads_the_arrow_schema_as_the_declared_types(kind: Kind):
    import duckdb

    empty = arrow_schema(kind).empty_table()  # noqa: F841 - DuckDB finds it by its name
    described = duckdb.sql("describe select * from empty").fetchall()
    assert {name: duckdb_type for name, duckdb_type, *_ in described} == duckdb_columns(kind)


@ALL_KINDS
def test_json_schema_is_valid_and_takes_an_event_with_nothing_but_its_time(kind: Kind):
    schema = json_schema(kind)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid({"observed_at": "2026-11-23T13:00:00Z"})
    assert not validator.is_valid({})
    assert not validator.is_valid({"observed_at": "2026-11-23T13:00:00Z", "no_such_field": 1})
    assert not validator.is_valid({"observed_at": "2026-11-23T13:00:00Z", "seq": 1})


def test_prometheus_families_carry_the_names_that_dashboards_know():
    names = {(family.name, family.type) for family in prometheus_families(GPU_SAMPLE)}
    assert {
        ("dgx_gpu_temperature_celsius", "gauge"),
        ("dgx_gpu_utilization_percent", "gauge"),
        ("dgx_gpu_memory_used_bytes", "gauge"),
        ("dgx_gpu_memory_total_bytes", "gauge"),
        ("dgx_gpu_power_usage_watts", "gauge"),
        ("dgx_gpu_energy_joules", "counter"),
        ("dgx_gpu_throttle_seconds", "counter"),
        ("dgx_gpu_throttle_active", "gauge"),
        ("dgx_gpu_clock_hertz", "gauge"),
        ("dgx_gpu_pcie_replay", "counter"),
    } <= names


@ALL_KINDS
def test_members_of_one_prometheus_family_have_distinct_labels(kind: Kind):
    for family in prometheus_families(kind):
        labels = [labels for _, labels in family.members]
        assert len(labels) == len(set(labels)), family.name
        assert len({tuple(name for name, _ in one) for one in labels}) == 1, family.name


def test_no_prometheus_family_ends_in_a_suffix_reserved_for_histograms():
    names = [family.name for kind in KINDS.values() for family in prometheus_families(kind)]
    assert [name for name in names if name.endswith(("_count", "_sum", "_bucket", "_total"))] == []


def test_clock_event_reasons_are_single_bits():
    assert all(bit & (bit - 1) == 0 for bit in CLOCK_EVENT_REASONS)


def test_unit_signs_are_those_a_table_shows():
    columns = GPU_SAMPLE.by_name
    signs = {name: unit_sign(columns[name]) for name in ("power_watts", "memory_used_bytes", "utilization_percent")}
    assert signs == {"power_watts": "W", "memory_used_bytes": "B", "utilization_percent": "%"}


def test_the_reference_page_names_every_column_with_its_type():
    page = events_page()
    for kind in KINDS.values():
        assert f"## {kind.name}\n" in page
        for column in kind.columns:
            assert f"| `{column.name}` | {DUCKDB_TYPES[column.type]} |" in page


def test_declarations_are_ready_for_json():
    assert json.loads(json.dumps([json_schema(kind) for kind in KINDS.values()]))
