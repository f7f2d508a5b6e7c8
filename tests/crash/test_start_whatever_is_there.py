"""The collector always starts, and counts no event twice, whatever it finds."""

import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from store.events import Event
from store.ledger import Ledger
from store.snapshot import LedgerReader
from store.upkeep.sealing import seal


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """Three sealings of two kinds, and a tail: seqs 1 to 8."""
    folder = tmp_path_factory.mktemp("template") / "ledger"
    with Ledger(folder) as ledger:
        for number in range(4):
            ledger.append([Event("annotation", number, {"text": "a"}), Event("request", number, {"status": "ok"})])
            if number < 3:
                seal(folder)
    return folder


def segments(folder: Path) -> list[Path]:
    return sorted((folder / "events").rglob("*.parquet"))


def lose_head(folder):
    (folder / "head.sqlite").unlink()


def empty_head(folder):
    (folder / "head.sqlite").write_bytes(b"")


def cut_head(folder):
    content = (folder / "head.sqlite").read_bytes()
    (folder / "head.sqlite").write_bytes(content[: len(content) // 2])


def garble_head(folder):
    content = bytearray((folder / "head.sqlite").read_bytes())
    content[8192:20480] = random.Random(1).randbytes(12288)
    (folder / "head.sqlite").write_bytes(content)


def garble_first_page(folder):
    content = bytearray((folder / "head.sqlite").read_bytes())
    content[20:90] = random.Random(1).randbytes(70)
    (folder / "head.sqlite").write_bytes(content)


def stale_log(folder):
    (folder / "head.sqlite-wal").write_bytes(random.Random(1).randbytes(40_000))


def cut_segments(folder):
    for path in segments(folder):
        path.write_bytes(path.read_bytes()[:100])


def lose_segments(folder):
    shutil.rmtree(folder / "events")


def leftovers(folder):
    day = segments(folder)[0].parent
    (day / ".node-1-2-0.parquet.tmp").write_bytes(b"half")
    (day / "node-900-901-0.parquet").write_bytes(b"torn")
    (day / "README").write_text("mine")


def all_at_once(folder):
    leftovers(folder)
    segments(folder)[0].write_bytes(b"torn")
    lose_head(folder)


@pytest.mark.parametrize(
    ("spoil", "lost"),
    [
        (lose_head, {7, 8}),
        (empty_head, {7, 8}),
        (cut_head, {7, 8}),
        (garble_head, {7, 8}),
        (garble_first_page, {7, 8}),
        (stale_log, set()),
        (cut_segments, set(range(1, 7))),
        (lose_segments, set(range(1, 7))),
        (leftovers, set()),
        (all_at_once, {1, 7, 8}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_it_starts_records_and_has_everything_that_could_be_read(
    template, tmp_path, count_of_each_seq, spoil, lost, collector_command
):
    folder = tmp_path / "ledger"
    shutil.copytree(template, folder)
    spoil(folder)
    with (tmp_path / "log").open("w") as log, subprocess.Popen(collector_command(folder), stderr=log) as collector:
        _wait_until(lambda: _known(folder, count_of_each_seq) >= set(range(1, 9)) - lost, collector, tmp_path / "log")
        _wait_until(lambda: _has_samples(folder), collector, tmp_path / "log")
        collector.terminate()
    assert collector.returncode == 0
    seen = count_of_each_seq(folder)
    assert set(seen.values()) == {1}
    assert set(range(1, 9)) - set(seen) <= lost  # a damaged head may still give its tail


def _known(folder: Path, count_of_each_seq) -> set[int]:
    try:
        return set(count_of_each_seq(folder))
    except Exception:  # noqa: BLE001 - not put right yet, or just being so
        return set()


def _has_samples(folder: Path) -> bool:
    with LedgerReader(folder) as reader:
        return reader.extents()["gpu_sample"].event_count > 0


def _wait_until(look, collector, log: Path) -> None:
    deadline = time.monotonic() + 60
    while not look():
        assert collector.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
