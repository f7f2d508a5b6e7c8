"""What has to be true of a ledger, asked of the disk itself wherever that can be."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import apsw
import pyarrow as pa
import pyarrow.parquet as pq

from store.head import HEAD_NAME, connect_read_only
from store.repair.quarantine import QUARANTINE_FOLDER, REASON_SUFFIX
from store.rollups.cells import STEPS_S
from store.segments import (
    EVENTS_FOLDER,
    accounted_paths,
    announced_paths,
    catalogued,
    catalogued_rollups,
    event_files,
    rollup_files,
    temporary_of,
)
from store.snapshot import LedgerReader

from .protocol import GAUGE, KINDS, ROLLED, Truth, value_at

REMOVABLE = "select path from removable_file"


class BrokenError(Exception):
    """The promise is broken; the message says how."""


def check_before_recovery(folder: Path, truth: Truth) -> None:
    """What a crash may leave: nothing that the head names is missing or torn, and no file is forgotten."""
    head = _head(folder)
    if head is None:
        if truth.acknowledged:
            raise BrokenError("the whole ledger is gone")
        return
    with closing(head):
        for segment in catalogued(head):
            if segment.path not in truth.damaged_paths:
                _check_content(folder / segment.path, segment.sha256)
        forgotten = _files(folder) - accounted_paths(head) - set(map(temporary_of, announced_paths(head)))
        if forgotten:
            raise BrokenError(f"files that the head does not know of: {sorted(forgotten)}")
        _check_quarantine(folder)
        truth.acknowledge(check_events(folder, truth))
        check_rollups(folder, head, truth)


def check_after_upkeep(folder: Path, truth: Truth) -> None:
    """After a start and the upkeeps that follow it: the disk has what the catalogue names, and nothing else."""
    head = _head(folder)
    assert head is not None
    with closing(head):
        segments = catalogued(head)
        for segment in segments:
            _check_content(folder / segment.path, segment.sha256)
        in_force = {one.path for one in (*segments, *catalogued_rollups(head))}
        named = in_force | {path for (path,) in head.execute(REMOVABLE)}
        if (on_disk := _files(folder)) != named:
            raise BrokenError(
                f"forgotten on disk: {sorted(on_disk - named)}; removed already: {sorted(named - on_disk)}"
            )
        if announced_paths(head):
            raise BrokenError("announced and never written: " + ", ".join(announced_paths(head)))
        _check_quarantine(folder)
        check_events(folder, truth)
        check_rollups(folder, head, truth)


def _files(folder: Path) -> set[str]:
    return {*event_files(folder), *rollup_files(folder)}


def check_events(folder: Path, truth: Truth) -> dict[int, tuple[str, int]]:
    """Each acknowledged event is read once, with its time; what the ledger tells of its quarantine is so.

    Returns all events that were read: seq to kind and time.
    """
    seen: list[tuple[int, str, int]] = []
    with LedgerReader(folder) as reader:
        snapshot = reader.snapshot(KINDS)
    for kind, events in snapshot.items():
        sound = [path for path in events.files if path.relative_to(folder).as_posix() not in truth.damaged_paths]
        pairs = [*_pairs(events.tail), *(pair for path in sound for pair in _pairs_of_file(path.read_bytes()))]
        seen += [(seq, kind, time_us) for seq, time_us in pairs]
        if kind == "ledger_event":
            _check_told(folder, events.tail["details"].to_pylist())
            for path in sound:
                _check_told(folder, _details_of_file(path.read_bytes()))
    counts = Counter(seq for seq, *_ in seen)
    twice = sorted(seq for seq, count in counts.items() if count > 1)
    lost = [seq for seq in truth.acknowledged if seq not in counts and not truth.may_be_gone(seq)]
    known = set(truth.acknowledged)
    wrong = [seq for seq, kind, time_us in seen if seq in known and truth.written[seq] != (kind, time_us)]
    if twice or lost or wrong:
        raise BrokenError(f"events lost: {lost}, counted twice: {twice}, with another content: {wrong}")
    return {seq: (kind, time_us) for seq, kind, time_us in seen}


# Rollups ----------------------------------------------------------------------------------------------------------


def check_rollups(folder: Path, head: apsw.Connection, truth: Truth) -> None:
    """Every cell is of those samples that the rollups say they hold, each once; a reader takes the rest from the events.

    Cells beyond their reach are read by nobody: the clock was ahead when they were made. Samples that were damaged, or retained before they were rolled up, may be missing.
    """
    rows = head.execute("select path, step, size_bytes from rollup where kind = ?", (ROLLED,)).fetchall()
    reach = head.execute("select before_us, upto_seq from rolled where kind = ?", (ROLLED,)).fetchone()
    reach = reach or (0, 0)
    if truth.damaged_paths.intersection(path for path, *_ in rows):
        return  # a reader says so, and the next update makes its hours again
    for path, _, size_bytes in rows:
        if not (folder / path).exists() or (folder / path).stat().st_size != size_bytes:
            raise BrokenError(f"the rollup {path} is not there as it was written")
    for step, step_s in STEPS_S.items():
        found = Counter[int](), Counter[int]()
        for path, of_step, _ in rows:
            if of_step == step:
                cells = _cells_of_file((folder / path).read_bytes())
                _add_cells(found, (cell for cell in cells if cell[0] < reach[0]))
        _compare(step, found, _expected(truth, reach, step_s * 1_000_000))


Cells = tuple[Counter[int], Counter[int]]  # where a step begins, to the number of values and to their sum


def _expected(truth: Truth, reach: tuple[int, int], step_us: int) -> tuple[Cells, Cells]:
    """At least these, of the samples that must be there; at most those, of all that were ever there."""
    least, most = (Counter[int](), Counter[int]()), (Counter[int](), Counter[int]())
    for seq in truth.acknowledged:
        kind, time_us = truth.written[seq]
        if kind == ROLLED and time_us < reach[0] and seq <= reach[1]:
            cell = [(time_us // step_us * step_us, 1, value_at(time_us))]
            _add_cells(most, cell)
            if not truth.may_be_gone(seq):
                _add_cells(least, cell)
    return least, most


def _compare(step: str, found: Cells, expected: tuple[Cells, Cells]) -> None:
    for what, is_so, least, most in zip(("values", "sums"), found, *expected, strict=True):
        wrong = {
            begins_us: (least[begins_us], is_so[begins_us], most[begins_us])
            for begins_us in sorted({*is_so, *most})
            if not least[begins_us] <= is_so[begins_us] <= most[begins_us]
        }
        if wrong:
            raise BrokenError(f"cells per {step}, whose {what} should be at least, are, and should be at most: {wrong}")


def _add_cells(to: Cells, cells: Iterable[tuple[int, int, int]]) -> None:
    for begins_us, n, total in cells:
        to[0][begins_us] += n
        to[1][begins_us] += total


@lru_cache(1000)
def _cells_of_file(content: bytes) -> list[tuple[int, int, int]]:
    try:
        table = pq.ParquetFile(BytesIO(content), page_checksum_verification=True).read(
            ["field", "begins_at", "n", "total"], use_threads=False
        )
    except (pa.ArrowException, OSError) as error:
        raise BrokenError(f"a rollup in force is torn: {error}") from error
    rows = zip(
        *(column.to_pylist() for column in (table["field"], table["begins_at"].cast(pa.int64()), *table.columns[2:])),
        strict=True,
    )
    return [(begins_us, n, int(total)) for field, begins_us, n, total in rows if field == GAUGE]


# Quarantine -------------------------------------------------------------------------------------------------------


def _check_told(folder: Path, details: Iterable[str | None]) -> None:
    for text in details:
        name = json.loads(text or "{}").get("quarantined_as")
        if name:
            _check_set_aside(folder / QUARANTINE_FOLDER / name, json.loads(text or "{}"))


def _check_set_aside(path: Path, told: dict[str, object]) -> None:
    if not path.exists():
        raise BrokenError(f"{path.name} was said to be in quarantine and is not")
    if _reason(path) != told["reason"]:
        raise BrokenError(f"the reason of {path.name} is not what the ledger tells")


def _check_quarantine(folder: Path) -> None:
    for path in (folder / QUARANTINE_FOLDER).glob("*.parquet"):
        _reason(path)


def _reason(path: Path) -> object:
    """Why a file is in quarantine, as it is written beside it."""
    try:
        return json.loads(path.with_name(path.name + REASON_SUFFIX).read_text())["reason"]
    except (OSError, ValueError) as error:
        raise BrokenError(f"the reason of {path.name} cannot be read: {error}") from error


def _head(folder: Path) -> apsw.Connection | None:
    """The head for reading; None where the ledger was never begun."""
    if not (folder / HEAD_NAME).exists():
        return None
    head = connect_read_only(folder / HEAD_NAME)
    if not head.pragma("user_version"):
        head.close()
        return None
    return head


def _check_content(path: Path, sha256: str | None) -> None:
    name = f"{EVENTS_FOLDER}/{path.name}"
    if not path.exists():
        raise BrokenError(f"the catalogue names {name}, which is not there")
    if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise BrokenError(f"{name} has not the bytes that were sealed")


def _pairs(table: pa.Table) -> list[tuple[int, int]]:
    """The seq and the time of each event."""
    return list(zip(table["seq"].to_pylist(), table["observed_at"].cast(pa.int64()).to_pylist(), strict=True))


@lru_cache(1000)
def _pairs_of_file(content: bytes) -> list[tuple[int, int]]:
    return _pairs(pq.ParquetFile(BytesIO(content)).read(["seq", "observed_at"], use_threads=False))


@lru_cache(1000)
def _details_of_file(content: bytes) -> list[str | None]:
    texts: list[str | None] = (
        pq.ParquetFile(BytesIO(content)).read(["details"], use_threads=False)["details"].to_pylist()
    )
    return texts
