"""Reading segments again, a little at a time, so that a disk that forgets is noticed by itself.

No reader looks at checksums: a page whose bytes changed may be read without a complaint, as other values. So each
upkeep also reads those segments anew that were looked at longest ago, up to `BYTES_AT_ONCE`, and compares their
SHA-256. At one upkeep in two minutes that is up to 23 GB a day, for 20 ms of a core each time; no segment is read
twice within `AGAIN_AFTER_S`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import apsw

from store.files import sha256_of
from store.repair.quarantine import Repairer, SetAside, give_up_segment
from store.repair.recovery import why_not_as_sealed
from store.repair.soundness import not_now
from store.segments import Segment, enter_checksums, longest_unverified

BYTES_AT_ONCE = 32_000_000
AGAIN_AFTER_S = 86_400


@dataclass(frozen=True, slots=True)
class ScrubResult:
    """What reading again showed.

    Args:
        set_aside: Damaged segments.
        problems: Those that could not be read now, each as a sentence; they stay, and the next upkeep tries again.
    """

    set_aside: tuple[SetAside, ...] = ()
    problems: tuple[str, ...] = ()


def scrub(folder: Path, head: apsw.Connection, by: Repairer, *, bytes_at_once: int = BYTES_AT_ONCE) -> ScrubResult:
    """Check the segments that were checked longest ago, and set aside those that are damaged.

    The caller holds the seal lock. At least one segment is read, however large. One that never had a checksum is left
    to `gpuledger verify --repair`.
    """
    unverified = longest_unverified(head, until_us=by.now_us - AGAIN_AFTER_S * 1_000_000)
    aside: list[SetAside | None] = []
    problems = []
    for segment in _first_bytes(unverified, bytes_at_once):
        try:
            reason = why_changed(folder, segment)
        except OSError as error:
            problems.append(f"{segment.path} could not be checked: {not_now(error)}")
            continue
        if reason:
            aside.append(give_up_segment(folder, head, segment, reason, by))
        else:
            with head:
                enter_checksums(head, {segment.path: str(segment.sha256)}, now_us=by.now_us)
    return ScrubResult(tuple(one for one in aside if one), tuple(problems))


def _first_bytes(segments: Iterable[Segment], bytes_at_once: int) -> list[Segment]:
    """The first of them that together have so many bytes."""
    taken: list[Segment] = []
    for segment in segments:
        taken.append(segment)
        bytes_at_once -= segment.size_bytes
        if bytes_at_once <= 0:
            break
    return taken


def why_changed(folder: Path, segment: Segment) -> str:
    """Why a file has not the bytes that it was sealed with; empty where it has, or where no checksum was taken.

    Raises:
        OSError: It cannot be read now, and may be sound.
    """
    if reason := why_not_as_sealed(folder, segment):
        return reason
    if segment.sha256 is None or sha256_of(folder / segment.path) == segment.sha256:
        return ""
    return "its bytes are not those that were sealed: the SHA-256 differs"
