"""Killing a process at a chosen moment, and looking at what is left."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from store.events import KINDS
from store.head import open_head
from store.snapshot import LedgerReader

# Every call by which SQLite, Arrow or we change what is on disk. Arrow writes each column by `write`, a hundred or
# more of one kind: of those a few are tried.
STEPS = ("mkdir", "ftruncate", "pwrite64", "fsync", "fdatasync", "rename", "unlink")


@pytest.fixture
def collector_command():
    """Gives the command of a demo collector on a free port; the settings that a test names are its own."""

    def command(folder: Path, **settings: object) -> list[str]:
        given = {
            "ledger_folder": str(folder),
            "host": "127.0.0.1",
            "port": 0,
            "sample_interval_s": 0.05,
            "seal_interval_s": 3600.0,
            "source": "demo",
            "demo_seed": 1,
            "log_level": "info",
            "version": "test",
        }
        return [sys.executable, "-P", "-m", "collector", json.dumps(given | settings)]

    return command


@pytest.fixture
def killed_at_every_step():
    """Gives a generator that runs a command again and again, each time with kill -9 at a later system call."""

    def run(command: Sequence[str], prepare) -> Iterator[tuple[str, Path, str]]:
        for call in STEPS:
            for number in range(1, 200):
                folder = prepare()
                # strace counts each call by itself: one call is watched at a time.
                injection = ["-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}"]
                done = subprocess.run(
                    ["strace", "-f", "-o", "/dev/null", *injection, sys.executable, "-P", *command, str(folder)],
                    capture_output=True,
                    text=True,
                    check=False,
                )
                if done.returncode == 0:
                    break  # it makes fewer calls than that: every one of them has been tried
                assert done.returncode in (-9, 137), done.stderr
                yield f"{call} {number}", folder, done.stdout

    return run


@pytest.fixture
def count_of_each_seq():
    """Gives how often each seq is seen by a reader, over segments and tail of all kinds."""

    def count(folder: Path) -> Counter[int]:
        with LedgerReader(folder) as reader:
            snapshot = reader.snapshot(KINDS)
        seqs: Counter[int] = Counter()
        for events in snapshot.values():
            seqs.update(events.tail["seq"].to_pylist())
            for path in events.files:
                seqs.update(pq.ParquetFile(path).read(columns=["seq"])["seq"].to_pylist())
        return seqs

    return count


def removable(folder: Path) -> set[Path]:
    with closing(open_head(folder)) as head:
        return {folder / path for (path,) in head.execute("select path from removable_file")}


@pytest.fixture
def removable_files():
    """Gives the files on their way out."""
    return removable


@pytest.fixture
def stray_files():
    """Gives the files under events/ that neither the catalogue names nor the list of those to be removed."""

    def find(folder: Path) -> set[Path]:
        with LedgerReader(folder) as reader:
            named = {path for events in reader.snapshot(KINDS).values() for path in events.files}
        return {path for path in (folder / "events").rglob("*") if path.is_file()} - named - removable(folder)

    return find
