"""Files under events/ that the head does not answer for, judged by what they hold.

They are there after a head was lost, or was replaced by an older one from a backup, or after an accident. Run as a
short-lived process of its own, `python -m store.repair.adoption FOLDER`, because Arrow would double the collector's
memory.

The files of one kind are judged together, those of a higher level first and then the wider ones, each by its seqs:

- none of them is known: it is taken in, and the frames of the tail that it holds go, in one transaction;
- all of them stand in a segment that was read whole: it is one of the small files of a merged one, from the time that
  readers are granted before they go, and is removed;
- it is torn, damaged, another ledger's, or known in part: it is set aside, with the reason;
- it, or one beside which it is judged, cannot be read now: it stays, to be judged the next time.

So no event is counted twice whichever files a crash left, and what is removed stands elsewhere, verified.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import apsw
import pyarrow as pa
import pyarrow.compute as pc

from store.errors import GpuledgerError
from store.files import unlink
from store.head import open_head
from store.ledger import transaction
from store.repair.quarantine import Repairer, give_up_file, give_up_segment, here_and_now
from store.repair.recovery import uncatalogued_files
from store.repair.soundness import (
    Footer,
    UnreadableError,
    described_by_content,
    inspect,
    not_now,
    read_footer,
    read_seqs,
)
from store.segments import TEMPORARY_SUFFIX, Segment, catalogued, enter_segments
from store.upkeep.sealing import seal_lock

Verdict = Literal["taken in", "removed", "set aside", "left alone", "not judged"]


@dataclass(frozen=True, slots=True)
class Judged:
    """One file and what became of it."""

    path: str
    verdict: Verdict
    reason: str


def adopt(folder: Path, by: Repairer) -> tuple[Judged, ...]:
    """Judge every file under events/ that the head does not answer for. Waits for a sealing that runs.

    Raises:
        NotALedgerError, LedgerUnusableError: As `store.head.open_head`.
        OSError: A file cannot be moved.
    """
    with closing(open_head(folder)) as head, seal_lock(folder, wait=True):
        return tuple(_adopt(folder, head, by))


def _adopt(folder: Path, head: apsw.Connection, by: Repairer) -> Iterator[Judged]:
    ledger_id: str = head.execute("select id from ledger").get
    candidates: dict[str, list[Footer]] = {}
    for path in uncatalogued_files(folder, head):
        if path.endswith(TEMPORARY_SUFFIX):
            unlink(folder / path)
            yield Judged(path, "removed", "it was never finished")
            continue
        try:
            footer = read_footer(folder, path)
            if footer is None:
                yield Judged(path, "left alone", "it is no segment of a ledger")
                continue
            candidates.setdefault(footer.segment.kind, []).append(_of_this_ledger(footer, ledger_id))
        except UnreadableError as error:
            give_up_file(folder, head, path, str(error), by)
            yield Judged(path, "set aside", str(error))
        except OSError as error:
            yield Judged(path, "not judged", not_now(error))
    for footers in candidates.values():
        yield from _judge_kind(folder, head, footers, by)


def _of_this_ledger(footer: Footer, ledger_id: str) -> Footer:
    if footer.ledger_id != ledger_id:
        raise UnreadableError(f"it belongs to the ledger {footer.ledger_id}")
    return footer


def _judge_kind(folder: Path, head: apsw.Connection, footers: Sequence[Footer], by: Repairer) -> Iterator[Judged]:
    """The files of one kind: what is new of them enters the catalogue in one transaction, at the end."""
    taken: list[Segment] = []
    segments = [footer.segment for footer in footers]
    for footer in sorted(footers, key=_rank):
        segment = footer.segment
        others = [one for one in taken if _meet(one, segment)]
        try:
            others += _sound_catalogued(folder, head, segment, by)
            if others or sum(_meet(segment, other) for other in segments) > 1:
                described_by_content(folder, footer)  # it stands for another or another for it: to its last page
            share = _known_share(folder, segment, others)
        except UnreadableError as error:
            if _stands_elsewhere(folder, segment, others):
                give_up_file(folder, head, segment.path, str(error), by)
            else:
                give_up_segment(folder, head, segment, str(error), by)
            yield Judged(segment.path, "set aside", str(error))
            continue
        except OSError as error:
            yield Judged(segment.path, "not judged", not_now(error))
            continue
        if share == "none":
            taken.append(segment)
        elif share == "all":
            unlink(folder / segment.path)
            yield Judged(segment.path, "removed", "all of its events stand in another segment")
        else:
            reason = "some of its events stand in other segments and some do not"
            give_up_segment(folder, head, segment, reason, by)
            yield Judged(segment.path, "set aside", reason)
    yield from _take_in(folder, head, taken, by)


def _rank(footer: Footer) -> tuple[int, int, str]:
    """Higher levels first, then those that hold more."""
    return (-footer.segment.level, -footer.segment.event_count, footer.segment.path)


def _meet(one: Segment, other: Segment) -> bool:
    return one.first_seq <= other.last_seq and other.first_seq <= one.last_seq


def _sound_catalogued(folder: Path, head: apsw.Connection, segment: Segment, by: Repairer) -> list[Segment]:
    """The catalogued segments that may hold the same events. One that is damaged does not stand for another.

    Raises:
        OSError: One cannot be read now.
    """
    near = [one for one in catalogued(head) if one.kind == segment.kind and _meet(one, segment)]
    found = {one.path: inspect(folder, one) for one in near}
    for one in near:
        if found[one.path].is_damaged:
            give_up_segment(folder, head, one, found[one.path].reason, by)
        elif found[one.path].content is None:
            raise OSError(f"nor be judged beside {one.path}: {found[one.path].reason}")
    return [one for one in near if found[one.path].content]


def _stands_elsewhere(folder: Path, segment: Segment, others: Sequence[Segment]) -> bool:
    """Whether others hold as many events within a damaged segment's seqs as it had: then it leaves no gap."""
    count = 0
    for one in others:
        if one.host == segment.host:
            seqs = read_seqs(folder, one.path)
            within = pc.and_(pc.greater_equal(seqs, segment.first_seq), pc.less_equal(seqs, segment.last_seq))
            count += pc.sum(within).as_py() or 0
    return count >= segment.event_count


def _known_share(folder: Path, segment: Segment, others: Sequence[Segment]) -> Literal["none", "some", "all"]:
    """How much of a segment's events stand in others. Only where seq ranges meet is anything read.

    Raises:
        UnreadableError: The segment cannot be read.
    """
    if not others:
        return "none"
    known = pa.concat_arrays([chunk for other in others for chunk in read_seqs(folder, other.path).chunks])
    is_known = pc.is_in(read_seqs(folder, segment.path), value_set=known)
    return "all" if pc.all(is_known).as_py() else "some" if pc.any(is_known).as_py() else "none"


def _take_in(folder: Path, head: apsw.Connection, segments: Sequence[Segment], by: Repairer) -> Iterator[Judged]:
    """Enter segments of one kind into the catalogue and drop the frames that they hold, in one transaction."""
    with transaction(head):
        whole = _without_parts_of_frames(folder, head, segments)
        held = {first_seq for segment in whole for first_seq in _frames_held(folder, head, segment, whole)[0]}
        head.executemany("delete from frame where first_seq = ?", [(first_seq,) for first_seq in held])
        enter_segments(head, whole, now_us=by.now_us)
        last_seq = max((segment.last_seq for segment in whole), default=0)
        head.execute("update ledger set next_seq = ? where next_seq <= ?", (last_seq + 1, last_seq))
    for segment in segments:
        if segment in whole:
            yield Judged(segment.path, "taken in", "its events stood nowhere else")
        else:
            reason = "it holds a part of what was appended at once, and all of that still stands in the tail"
            give_up_segment(folder, head, segment, reason, by)
            yield Judged(segment.path, "set aside", reason)


def _without_parts_of_frames(folder: Path, head: apsw.Connection, segments: Sequence[Segment]) -> Sequence[Segment]:
    """Those segments that, together, hold each frame of the tail wholly or not at all."""
    while parts := [one for one in segments if _frames_held(folder, head, one, segments)[1]]:
        segments = [one for one in segments if one not in parts]
    return segments


def _frames_held(
    folder: Path, head: apsw.Connection, segment: Segment, together: Sequence[Segment]
) -> tuple[list[int], bool]:
    """The frames with events in `segment` that stand wholly in `together`, and whether one stands there in part.

    A frame that crosses midnight is sealed into the files of two days.
    """
    frames: list[tuple[Any, ...]] = head.execute(
        "select first_seq, event_count from frame where kind = ? and first_seq <= ? and first_seq + event_count > ?",
        (segment.kind, segment.last_seq, segment.first_seq),
    ).fetchall()
    if not frames:
        return [], False
    own = read_seqs(folder, segment.path)
    near = [one for one in together if any(_meets_frame(one, *frame) for frame in frames)]
    known = pa.concat_arrays([chunk for one in near for chunk in read_seqs(folder, one.path).chunks])
    shares = {
        first_seq: _share_of(first_seq, event_count, known)
        for first_seq, event_count in frames
        if _share_of(first_seq, event_count, own)
    }
    return [first_seq for first_seq, share in shares.items() if share == 1], any(share < 1 for share in shares.values())


def _meets_frame(segment: Segment, first_seq: int, event_count: int) -> bool:
    return segment.first_seq < first_seq + event_count and first_seq <= segment.last_seq


def _share_of(first_seq: int, event_count: int, seqs: pa.Array | pa.ChunkedArray) -> float:
    """The share of a frame's events that have one of these seqs."""
    of_frame = pa.array(range(first_seq, first_seq + event_count), pa.int64())
    return float(pc.sum(pc.is_in(of_frame, value_set=seqs)).as_py()) / event_count


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m store.repair.adoption", description="Judge files that a ledger's catalogue does not name."
    )
    parser.add_argument("folder", type=Path)
    try:
        judged = adopt(parser.parse_args(arguments).folder, here_and_now())
    except GpuledgerError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the collector logs what its child says
        return error.exit_code
    for one in judged:
        if one.verdict != "taken in":
            print(f"{one.path} was {one.verdict}: {one.reason}", file=sys.stderr)  # noqa: T201 - as above
    return 0


if __name__ == "__main__":
    sys.exit(main())
