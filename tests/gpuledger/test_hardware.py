"""The page of hardware shows our columns beside the peers' and claims no more than a test or a machine has shown."""

from pathlib import Path

import pytest

from gpuledger.hardware import MACHINES, Seen, columns_alone, hardware_page, our_columns
from gpuledger.peers import METRICS, PEERS, Metric
from store.events import GPU_SAMPLE

ROOT = Path(__file__).parents[2]
ROWS = [metric for metrics in METRICS.values() for metric in metrics]


def test_a_row_names_only_recorders_that_were_read():
    named = {key for row in ROWS for key in row.marks}
    assert named == {peer.key for peer in PEERS}


def test_a_row_that_says_why_we_lack_it_names_no_column():
    assert [row.what for row in ROWS if row.why_not and row.ours] == []


def test_what_a_peer_records_we_record_or_say_why_not():
    assert [row.what for row in ROWS if not row.why_not and not our_columns(row)] == []


def test_every_key_of_the_attributes_is_one_that_the_collector_writes():
    keys = {pattern.partition(":")[2] for row in ROWS for pattern in row.ours.split() if ":" in pattern}
    written = (ROOT / "collector/gpu/surroundings.py").read_text()
    assert [key for key in sorted(keys) if f'"{key}"' not in written] == []


def test_the_cells_of_a_row_come_from_the_declarations():
    row = Metric("temperature and Xid", "slowdown_temp* gpu_event.xid memory_used_bytes", "smi? dcgm")
    assert [f"{kind.name}.{column.name}" for kind, column in our_columns(row)] == [
        "gpu_sample.slowdown_temperature_celsius",
        "gpu_event.xid",
        "gpu_sample.memory_used_bytes",
    ]
    assert row.marks == {"smi": "◐", "dcgm": "●"}


def test_what_no_peer_records_is_found_by_itself():
    alone = {column.name for kind, column in columns_alone() if kind is GPU_SAMPLE}
    assert "power_maximum_watts" in alone
    assert "power_watts" not in alone


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_what_is_called_verified_against_the_stand_in_names_the_tests_that_show_it(machine):
    assert bool(machine.shown_by) == (machine.seen is not Seen.UNVERIFIED)
    assert [path for path in machine.shown_by if not (ROOT / path).is_file()] == []


def test_the_page_says_that_no_hardware_was_seen_as_long_as_none_was():
    seen = [machine for machine in MACHINES if machine.seen is Seen.HARDWARE]
    assert ("None of this was seen on real hardware yet." in hardware_page()) == (seen == [])
