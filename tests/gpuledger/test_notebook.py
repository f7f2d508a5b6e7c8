"""The names that a notebook imports."""

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


def test_opening_where_there_is_no_ledger_says_so(tmp_path):
    with pytest.raises(NoLedgerError, match="There is no ledger in"):
        product.open(tmp_path / "nowhere")


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'opne'"):
        product.opne  # noqa: B018 - the look-up is the test
