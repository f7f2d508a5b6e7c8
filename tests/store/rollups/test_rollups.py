"""Rollups in the ledger: which hours are made when, what a crash leaves, what is added, kept, adopted."""

import json
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import apsw
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.events import Event
from store.ledger import Ledger
from store.repair.backup import restore_backup, take_backup
from store.repair.verification import verify
from store.rollups import updating as rollups
from store.rollups.due import rollups_are_due
from store.rollups.sketch import LAST_BUCKET, RELATIVE_ERROR, buckets_of, quantile, value_of
from store.rollups.updating import rebuild_rollups, update_rollups
from store.segments import let_go
from store.snapshot import LedgerReader
from store.upkeep.retention import RetentionRules
from store.upkeep.run import upkeep
from store.upkeep.sealing import seal, seal_lock
from store.upkeep.settings import UpkeepSettings

HOUR_US = 3_600_000_000
START_US = 1_795_435_200_000_000  # 2026-11-23 12:00:00 UTC


def watts(second: float, value: float, gpu: str = "GPU-1") -> Event:
    row = {"gpu_uuid": gpu, "gpu_index": 0, "power_watts": value, "interval_seconds": 1.0}
    return Event("gpu_sample", START_US + round(second * 1e6), row)


def record(folder: Path, events) -> None:
    with Ledger(folder, host="spark-1", boot_id="boot-a") as ledger:
        ledger.append(list(events))
    seal(folder)


def update(folder: Path, hours: float):
    """The update so long after 12:00."""
    return update_rollups(folder, now_us=START_US + round(hours * HOUR_US))


def cells(folder: Path, step: str = "hour") -> list[tuple[float, int, float]]:
    """What is in force: hour since 12:00, number of values and their sum of each cell, in order of time."""
    with LedgerReader(folder) as reader:
        files = reader.rollup_files("gpu_sample", step, 0, 2**62)
    found = []
    for path in files:
        table = pq.read_table(path, partitioning=None)
        begins = pc.divide(pc.subtract(table["begins_at"].cast("int64"), START_US), HOUR_US / 1.0).to_pylist()
        found += zip(begins, table["n"].to_pylist(), table["total"].to_pylist(), strict=True)
    return sorted(found)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder / "rollups")) for path in (folder / "rollups").rglob("*.parquet"))


def in_force(folder: Path) -> list[str]:
    with LedgerReader(folder) as reader:
        paths = [path for step in ("minute", "hour") for path in reader.rollup_files("gpu_sample", step, 0, 2**62)]
    return sorted(str(path.relative_to(folder / "rollups/gpu_sample")) for path in paths)


def test_an_hour_is_rolled_up_when_it_has_closed(folder):
    record(folder, [watts(0, 1.0), watts(1800, 2.0), watts(3600, 4.0)])
    assert (update(folder, 1.0).hours_made, cells(folder)) == (0, [])
    assert update(folder, 1.01).hours_made == 1
    assert cells(folder) == [(0.0, 2, 3.0)]
    assert cells(folder, "minute") == [(0.0, 1, 1.0), (0.5, 1, 2.0)]
    assert update(folder, 1.02).hours_made == 0


def test_hours_without_events_are_passed_over(folder):
    record(folder, [watts(0, 1.0), watts(500 * 3600, 2.0)])
    assert update(folder, 600).hours_made == 2
    assert cells(folder) == [(0.0, 1, 1.0), (500.0, 1, 2.0)]


def test_only_so_many_hours_are_made_at_once_and_the_next_update_goes_on(folder, monkeypatch):
    monkeypatch.setattr(rollups, "HOURS_MAX", 2)
    record(folder, [watts(3600 * hour, 1.0) for hour in range(5)])
    assert [update(folder, 6).hours_made for _ in range(4)] == [2, 2, 1, 0]
    assert update_rollups(folder, now_us=START_US + 6 * HOUR_US, until_done=True).hours_made == 0
    assert len(cells(folder)) == 5


def test_what_is_not_sealed_yet_waits(folder):
    record(folder, [watts(0, 1.0)])
    with Ledger(folder, host="spark-1", boot_id="boot-a") as ledger:
        ledger.append([watts(1, 2.0)])
    update(folder, 1.01)
    assert cells(folder) == [(0.0, 1, 1.0)]
    seal(folder)
    assert update(folder, 1.02).hours_made == 1
    assert cells(folder) == [(0.0, 2, 3.0)]


def test_closed_days_become_one_file_a_day_and_one_a_month(folder):
    record(folder, [watts(3600 * hour, 1.0) for hour in range(16)])
    update(folder, 11.5)
    assert sorted(name.split("-r")[0] for name in in_force(folder)) == [
        "hour/2026-11-23",
        *(f"minute/2026-11-23T{hour}" for hour in range(12, 23)),
    ]
    update(folder, 14.5)
    assert sorted(name.split("-r")[0] for name in in_force(folder)) == [
        "hour/2026-11",
        "hour/2026-11-24",
        "minute/2026-11-23",
        "minute/2026-11-24T00",
        "minute/2026-11-24T01",
    ]
    assert cells(folder) == [(float(hour), 1, 1.0) for hour in range(14)]


def test_pieces_that_were_joined_are_gone_for_good_before_they_are_forgotten(folder, watched_disk):
    record(folder, [watts(3600 * hour, 1.0) for hour in range(16)])
    update(folder, 11.5)
    update(folder, 14.5)
    assert files(folder) != []
    assert [one for one in watched_disk.unsynced if folder / "rollups" in one.parents] == []


def test_replaced_files_stay_until_no_reader_can_hold_them(folder):
    record(folder, [watts(3600 * hour, 1.0) for hour in range(2)])
    update(folder, 1.01)
    before = files(folder)
    update(folder, 2.01)
    assert set(before) < set(files(folder))
    update(folder, 2.5)
    assert {Path(name).relative_to("gpu_sample") for name in files(folder)} == {Path(name) for name in in_force(folder)}


def test_a_late_event_makes_its_hour_anew_in_whatever_file_it_is(folder):
    record(folder, [watts(3600 * hour, 1.0) for hour in range(20)])
    update(folder, 20.1)
    record(folder, [watts(3600 * 3 + 5, 10.0)])
    done = update(folder, 20.2)
    assert (done.hours_made, done.event_count) == (1, 2)
    assert cells(folder) == [(float(hour), 2 if hour == 3 else 1, 11.0 if hour == 3 else 1.0) for hour in range(20)]
    assert len(cells(folder, "minute")) == 20  # in the same minute


def test_an_hour_that_has_lost_events_is_added_to_and_not_made_anew(folder):
    record(folder, [watts(second, 1.0) for second in range(10)])
    update(folder, 1.01)
    forget_segments(folder)
    record(folder, [watts(20, 5.0)])
    done = update(folder, 1.1)
    assert (done.hours_made, done.hours_added_to) == (0, 1)
    assert cells(folder) == [(0.0, 1, 5.0), (0.0, 10, 10.0)]
    assert rebuild_rollups(folder, now_us=START_US + round(1.2 * HOUR_US)).hours_kept == 1
    assert cells(folder) == [(0.0, 1, 5.0), (0.0, 10, 10.0)]


def forget_segments(folder: Path) -> None:
    with closing(apsw.Connection(str(folder / "head.sqlite"))) as head:
        for (path,) in head.execute("select path from segment").fetchall():
            (folder / path).unlink()
        head.execute("delete from segment")


def test_what_is_held_stays_held_where_all_its_segments_are_gone(folder):
    record(folder, [watts(10, 100.0), watts(3_610, 300.0)])
    update(folder, 2.1)
    with closing(apsw.Connection(str(folder / "head.sqlite"))) as head:
        head.execute("delete from segment where kind = 'gpu_sample'")
    update(folder, 1.1)  # the clock went back, so that the reach does
    with LedgerReader(folder) as reader:
        extent = reader.rollup_extent("gpu_sample")
    assert (extent.before_us, extent.upto_seq) == (START_US + HOUR_US, 2)


def test_a_rebuild_gives_the_same_cells_even_from_files_that_are_damaged(folder):
    record(folder, [watts(600 * number, float(number)) for number in range(100)])
    update(folder, 17.05)
    before = [cells(folder, step) for step in ("minute", "hour")]
    for path in (folder / "rollups").rglob("*.parquet"):
        path.write_bytes(bytes(path.stat().st_size))
    assert rebuild_rollups(folder, now_us=START_US + round(17.1 * HOUR_US)).hours_made == 17
    assert [cells(folder, step) for step in ("minute", "hour")] == before


def test_cells_that_lack_a_column_of_today_are_joined_and_made_again(folder):
    record(folder, [watts(600 * number, float(number)) for number in range(100)])
    update(folder, 10)
    before = [cells(folder, step) for step in ("minute", "hour")]
    with closing(apsw.Connection(str(folder / "head.sqlite"))) as head:
        for path in (folder / "rollups").rglob("*.parquet"):
            pq.write_table(pq.read_table(path, partitioning=None).drop_columns(["last_step_seq"]), path)
            name = str(path.relative_to(folder))
            head.execute("update rollup set size_bytes = ? where path = ?", (path.stat().st_size, name))
    update(folder, 13)
    rebuild_rollups(folder, now_us=START_US + 13 * HOUR_US)
    assert [cells(folder, step)[: len(one)] for step, one in zip(("minute", "hour"), before, strict=True)] == before


def test_a_file_that_is_gone_is_made_again_by_the_next_update(folder):
    record(folder, [watts(600 * number, float(number)) for number in range(100)])
    update(folder, 17.05)
    before = [cells(folder, step) for step in ("minute", "hour")]
    shutil.rmtree(folder / "rollups")
    assert update(folder, 17.1).hours_made == 17
    assert [cells(folder, step) for step in ("minute", "hour")] == before


@pytest.mark.parametrize("step", ["write_cells", "_commit"])
def test_an_update_that_dies_has_changed_nothing_and_the_next_one_does_it(folder, monkeypatch, step):
    record(folder, [watts(3600 * hour, 1.0) for hour in range(3)])
    update(folder, 1.01)
    before = cells(folder)

    def die(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rollups if step == "write_cells" else rollups._Update, step, die)
    with pytest.raises(OSError, match="No space left"):
        update(folder, 3.01)
    assert cells(folder) == before
    monkeypatch.undo()
    update(folder, 3.01)
    assert cells(folder) == [(float(hour), 1, 1.0) for hour in range(3)]


def test_no_append_comes_between_what_a_commit_reads_and_what_it_writes(folder, monkeypatch):
    record(folder, [watts(0, 1.0), watts(3600, 2.0)])
    refused = []

    def let_go_beside_an_append(*given, **named):
        with closing(apsw.Connection(str(folder / "head.sqlite"))) as other, pytest.raises(apsw.BusyError) as error:
            other.execute("begin immediate")
        refused.append(error.type)
        return let_go(*given, **named)

    monkeypatch.setattr(rollups, "let_go", let_go_beside_an_append)
    assert update(folder, 2.01).hours_made == 2
    assert refused == [apsw.BusyError]


def test_a_clock_that_was_ahead_costs_no_event(folder):
    record(folder, [watts(0, 1.0), watts(3600 * 5, 2.0)])
    update(folder, 9.0)  # the clock says so
    record(folder, [watts(3600, 3.0)])
    update(folder, 2.1)  # and was set right
    assert [cell for cell in cells(folder) if cell[0] < 2] == [(0.0, 1, 1.0), (1.0, 1, 3.0)]
    with LedgerReader(folder) as reader:
        assert reader.rollup_extent("gpu_sample").before_us == START_US + 2 * HOUR_US
    record(folder, [watts(3600 * 5 + 1, 4.0)])
    update(folder, 6.1)
    assert cells(folder) == [(0.0, 1, 1.0), (1.0, 1, 3.0), (5.0, 2, 6.0)]


def test_a_head_that_was_lost_takes_the_rollups_in_again(folder):
    record(folder, [watts(600 * number, float(number)) for number in range(100)])
    update(folder, 15)
    update(folder, 17.05)
    before = [cells(folder, step) for step in ("minute", "hour")]
    with closing(apsw.Connection(str(folder / "head.sqlite"))) as head:
        head.execute("delete from rolled; delete from rollup; delete from rolled_hour")
    forget_segments(folder)
    assert update(folder, 17.1).hours_made == 0
    assert [cells(folder, step) for step in ("minute", "hour")] == before


def test_a_second_update_at_the_same_time_leaves_it_to_the_first(folder):
    record(folder, [watts(0, 1.0)])
    with seal_lock(folder) as is_ours:
        assert is_ours
        assert not update(folder, 1.01).is_ours
    assert update(folder, 1.01).hours_made == 1


def test_a_segment_that_cannot_be_read_costs_its_own_events_and_is_named(folder):
    record(folder, [watts(0, 1.0)])
    record(folder, [watts(1, 2.0)])
    damaged = max((folder / "events").rglob("*.parquet"))
    damaged.write_bytes(b"no Parquet")
    done = update(folder, 1.01)
    assert list(done.unreadable) == [str(damaged.relative_to(folder))]
    assert cells(folder) == [(0.0, 1, 1.0)]


def test_a_segment_that_cannot_be_read_now_is_not_left_out_of_the_cells_for_ever(folder, out_of_reach):
    record(folder, [watts(0, 1.0)])
    record(folder, [watts(1, 2.0)])
    with out_of_reach(max((folder / "events/gpu_sample").rglob("*.parquet"))), pytest.raises(OSError, match="symbolic"):
        update(folder, 1.01)
    assert cells(folder) == []
    update(folder, 1.02)
    assert cells(folder) == [(0.0, 2, 3.0)]


def test_the_footer_says_what_the_head_says(folder):
    record(folder, [watts(0, 1.0), watts(3600, 1.0)])
    update(folder, 2.01)
    (path,) = (folder / "rollups/gpu_sample/hour").glob("2026-11-23-*.parquet")
    footer = pq.read_metadata(path).metadata
    with LedgerReader(folder) as reader:
        extent, ledger_id = reader.rollup_extent("gpu_sample"), reader.ledger_id
    ours = {key.decode(): value.decode() for key, value in footer.items() if key.startswith(b"gpuledger.")}
    assert json.loads(ours.pop("gpuledger.events_by_hour")) == {str(START_US): 1, str(START_US + HOUR_US): 1}
    assert ours == {
        "gpuledger.ledger_id": ledger_id,
        "gpuledger.kind": "gpu_sample",
        "gpuledger.step": "hour",
        "gpuledger.before_us": str(extent.before_us),
        "gpuledger.upto_seq": str(extent.upto_seq),
        "gpuledger.revision": "1",
    }


@given(st.floats(allow_nan=False, allow_infinity=False).filter(lambda one: one == 0 or 1e-30 < abs(one) < 1e200))
def test_the_value_of_a_bucket_is_within_the_error_of_every_value_in_it(value):
    (bucket,) = buckets_of(np.array([value]))
    assert value_of(int(bucket)) == pytest.approx(value, rel=RELATIVE_ERROR * (1 + 1e-9), abs=0)


def test_values_beyond_what_is_told_apart_share_the_outermost_buckets():
    found = buckets_of(np.array([-np.inf, -1e308, -1e-300, 0.0, 1e-300, np.inf]))
    assert found.tolist() == [-LAST_BUCKET, -LAST_BUCKET, -1, 0, 1, LAST_BUCKET]


@given(
    st.lists(st.floats(0.001, 1e6) | st.just(0.0), min_size=1, max_size=200),
    st.floats(0, 1),
    st.integers(0, 200),
)
def test_merged_sketches_tell_any_quantile_within_their_error(values, share, cut):
    counts: dict[int, int] = {}
    for part in (values[:cut], values[cut:]):
        for bucket in buckets_of(np.array(part, np.float64)).tolist():
            counts[bucket] = counts.get(bucket, 0) + 1
    exact = float(np.quantile(values, share))
    assert quantile(counts, share) == pytest.approx(exact, rel=RELATIVE_ERROR * (1 + 1e-6), abs=1e-12)


def test_nothing_has_no_quantile():
    assert quantile({}, 0.5) is None


# --- beside the rest of the upkeep


def test_upkeep_rolls_up_what_retention_then_takes(folder):
    record(folder, [watts(0, 1.0), watts(3600 * 50, 2.0)])
    rules = UpkeepSettings(retention=RetentionRules(max_age_days={"gpu_sample": 1.0}))
    done = upkeep(folder, rules, now_us=START_US + 52 * HOUR_US)
    assert ([one.segment.kind for one in done.removed], done.problems) == (["gpu_sample"], [])
    assert cells(folder) == [(0.0, 1, 1.0), (50.0, 1, 2.0)]


def test_rollups_are_due_once_an_hour_half_a_minute_after_its_end(folder):
    record(folder, [watts(0, 1.0)])
    assert rollups_are_due(folder, now_us=START_US)
    update(folder, 1.01)
    assert [rollups_are_due(folder, now_us=START_US + round(at * HOUR_US)) for at in (0.9, 1.5, 2.008, 2.009)] == [
        True,  # the clock was put back
        False,
        False,
        True,
    ]


def test_rollups_stay_due_until_all_hours_are_made(folder, monkeypatch):
    monkeypatch.setattr(rollups, "HOURS_MAX", 2)
    record(folder, [watts(3600 * hour, 1.0) for hour in range(3)])
    now_us = START_US + 6 * HOUR_US
    update(folder, 6)
    assert rollups_are_due(folder, now_us=now_us)
    update(folder, 6)
    assert not rollups_are_due(folder, now_us=now_us)


def test_where_there_is_no_ledger_nothing_is_due(folder):
    assert not rollups_are_due(folder, now_us=START_US)
    assert not folder.exists()


def test_what_an_update_wrote_and_never_put_in_force_is_removed(folder, monkeypatch):
    record(folder, [watts(0, 1.0)])
    with monkeypatch.context() as patched:
        patched.setattr(rollups._Update, "_commit", _dies)
        with pytest.raises(KeyboardInterrupt):
            update(folder, 1.01)
    assert files(folder)
    seal(folder)
    assert files(folder) == []


def _dies(*_: object) -> None:
    raise KeyboardInterrupt


def test_verify_finds_a_damaged_rollup_and_with_repair_it_is_made_again(folder, by):
    record(folder, [watts(0, 1.0), watts(1800, 2.0)])
    update(folder, 1.01)
    before = cells(folder)
    assert verify(folder, by).is_sound
    (path,) = (folder / "rollups/gpu_sample/hour").glob("*.parquet")
    content = bytearray(path.read_bytes())
    content[len(content) // 4] ^= 255
    path.write_bytes(content)
    (found,) = verify(folder, by).findings
    assert (found.kind, found.path, found.repaired) == ("damaged", str(path.relative_to(folder)), "")
    (found,) = verify(folder, by, repair=True).findings
    assert found.repaired.startswith("set aside as quarantine/")
    update(folder, 1.5)
    assert (cells(folder), verify(folder, by).is_sound) == (before, True)


def test_a_backup_has_the_rollups_of_events_that_are_gone(folder, tmp_path, by):
    record(folder, [watts(0, 1.0)])
    update(folder, 1.01)
    forget_segments(folder)
    take_backup(folder, tmp_path / "backup", by)
    restore_backup(tmp_path / "backup", tmp_path / "new", by)
    assert cells(tmp_path / "new") == [(0.0, 1, 1.0)]
    assert verify(tmp_path / "new", by).is_sound


def test_a_second_backup_forgets_rollups_that_were_replaced(folder, tmp_path, by):
    record(folder, [watts(3600 * hour, 1.0) for hour in range(3)])
    update(folder, 1.01)
    take_backup(folder, tmp_path / "backup", by)
    update(folder, 3.01)
    take_backup(folder, tmp_path / "backup", replace(by, now_us=by.now_us + 1))
    assert {path.removeprefix("gpu_sample/") for path in files(tmp_path / "backup")} == set(in_force(folder))
