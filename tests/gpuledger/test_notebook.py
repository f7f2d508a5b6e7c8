"""The names that a notebook imports."""

import polars as pl
import pytest

import gpuledger as product
from store.errors import NoLedgerError


def test_a_ledger_opened_in_a_notebook_answers_trends_events_and_sql(recorded):
    ledger = product.open(recorded.data, time_zone="Europe/Berlin")
    assert [(one.label, one.avg) for one in ledger.trend("gpu.power_watts", "5m").series] == [
        ("0", 100.0),
        ("1", 200.0),
    ]
    events = ledger.events("gpu_sample", "1h")
    assert (events.num_rows, events["seq"].to_pylist()) == (120, sorted(events["seq"].to_pylist()))
    assert ledger.sql("select count(*) as n from system_sample").to_pylist() == [{"n": 60}]


def test_every_analysis_has_its_method_and_its_rows_as_an_arrow_table(past):
    ledger = product.open(past.data, time_zone="UTC")
    metric = "gpu.power_watts"
    found = {
        "trend": ledger.trend(metric),
        "requests": ledger.requests("1h", by=("operation",)),
        "slow": ledger.slow("1h", threshold="500ms"),
        "anomalies": ledger.anomalies(metric, window="8h"),
        "compare": ledger.compare(metric, window="8h", reference="16h..8h"),
        "changes": ledger.changes(metric, span="3h"),
        "forecast": ledger.forecast(metric, "10d", ahead="1d", limit=1000.0),
    }
    tables = {name: product.table(one) for name, one in found.items()}
    assert {name: table.num_rows for name, table in tables.items()} == {
        "trend": 1, "requests": 1, "slow": 1, "anomalies": 1, "compare": 1, "changes": 1, "forecast": 24,
    }  # fmt: skip
    assert pl.from_arrow(tables["anomalies"])["is_above"].to_list() == [True]
    assert tables["compare"]["difference"].to_pylist()[0] > 0
    assert tables["changes"]["what"].to_pylist() == ["note: new cooling"]
    diagnosis = ledger.diagnose(found["slow"].requests[0].seq)
    assert (diagnosis.duration_seconds, product.table(diagnosis).num_rows) == (1.0, 0)


@pytest.mark.parametrize(
    "ask",
    [
        lambda ledger: ledger.diagnose_window("30m"),
        lambda ledger: ledger.energy("1h", by=()),
        lambda ledger: ledger.waste("1h", by="process"),
        lambda ledger: ledger.throttling("1h"),
        lambda ledger: ledger.leaks("1h"),
        lambda ledger: ledger.stragglers("1h"),
        lambda ledger: ledger.activity("1h"),
    ],
)
def test_what_gpus_cost_and_lose_says_its_window_and_comes_as_a_table(past, ask):
    answer = ask(product.open(past.data, time_zone="UTC"))
    assert answer.window.seconds in (1800, 3600)
    assert 0 <= answer.coverage <= 1
    assert product.table(answer).column_names


def test_what_is_no_answer_is_no_table():
    with pytest.raises(TypeError, match="a list is no answer of a ledger"):
        product.table([])


def test_opening_where_there_is_no_ledger_says_so(tmp_path):
    with pytest.raises(NoLedgerError, match="There is no ledger in"):
        product.open(tmp_path / "nowhere")


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'opne'"):
        product.opne  # noqa: B018 - the look-up is the test
