"""Whether a sealed file is what it says it is: read whole, with Arrow.

Three witnesses are compared: the bytes (SHA-256 of the file, a CRC of every page), the footer, and the catalogue.
"""

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from store.derivations import arrow_schema
from store.errors import LedgerUnusableError
from store.files import sha256_of
from store.repair.recovery import why_not_as_sealed
from store.segments import FOOTER_PREFIX, Segment, segment_of_footer
from store.shapes import shape

READ_ERRORS = (pa.ArrowException, OSError, ValueError)
"""What Arrow raises over a damaged file. ValueError: a name of a column that is no text."""


_OF_THIS_PROCESS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC})


def is_damage(error: Exception) -> bool:
    """Whether an error over a file tells that its content is not what it was, or that it is gone.

    What the system refused (EIO, EACCES, EMFILE) tells nothing of the content: it may be read the next time. Arrow's
    own complaints about a content bear no number.
    """
    return not isinstance(error, MemoryError) and getattr(error, "errno", None) in (None, errno.ENOENT)


def not_now(error: Exception) -> str:
    """Why a file that may be sound cannot be read, as the end of a sentence."""
    number = getattr(error, "errno", None)
    return f"it cannot be read now ({os.strerror(number).lower() if number else _first_line(error)})"


class UnreadableError(Exception):
    """A file that cannot be read as a segment; the message says why, as the end of a sentence."""


@dataclass(frozen=True, slots=True)
class Footer:
    """What a file says of itself."""

    ledger_id: str
    segment: Segment


def read_footer(folder: Path, path: str) -> Footer | None:
    """The footer of a Parquet file; None where it is whole and no segment of any ledger.

    Raises:
        UnreadableError: It is no whole Parquet file, or what it says makes no sense.
    """
    try:
        written: Mapping[bytes, bytes] = pq.read_metadata(folder / path).metadata or {}
        size_bytes = (folder / path).stat().st_size
    except READ_ERRORS as error:
        if not is_damage(error):
            raise
        raise UnreadableError(f"it is not a whole Parquet file ({_first_line(error)})") from error
    ours = {
        key.decode(errors="replace").removeprefix(FOOTER_PREFIX): value.decode(errors="replace")
        for key, value in written.items()
        if key.startswith(FOOTER_PREFIX.encode())
    }
    if not ours:
        return None
    try:
        return Footer(ours["ledger_id"], segment_of_footer(path, ours, size_bytes))
    except (KeyError, ValueError) as error:
        raise UnreadableError(f"its footer makes no sense ({error})") from error


def read_seqs(folder: Path, path: str) -> pa.ChunkedArray:
    """The seqs of a segment.

    Raises:
        UnreadableError: They cannot be read.
    """
    return _read(folder / path, ["seq"])["seq"]


def _read(path: Path, columns: list[str] | None) -> pa.Table:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read(columns)
    except READ_ERRORS as error:
        if not is_damage(error):
            raise
        raise UnreadableError(f"it cannot be read ({_first_line(error)})") from error


def check_pages(path: Path) -> None:
    """Read a Parquet file to its last page.

    Raises:
        UnreadableError: It is damaged or gone.
        OSError: It cannot be read now.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for _ in file.iter_batches():
                pass
    except READ_ERRORS as error:
        if not is_damage(error):
            raise
        is_gone = isinstance(error, FileNotFoundError)
        raise UnreadableError("it is gone" if is_gone else f"it cannot be read ({_first_line(error)})") from error


def why_unreadable(path: Path) -> str:
    """Why an answer has to do without a Parquet file; empty where it can be read to its last page.

    Raises:
        OSError: This process lacks what it takes to read any file.
    """
    try:
        check_pages(path)
    except UnreadableError as error:
        return str(error)
    except OSError as error:
        if error.errno in _OF_THIS_PROCESS:
            raise
        return not_now(error)
    return ""


def described_by_content(folder: Path, footer: Footer) -> Segment:
    """What a segment really holds: every page of it read and checked, its rows counted, its ranges taken.

    One column at a time, so that a day's file of any width is checked in the memory of its widest column.

    Raises:
        UnreadableError: A page is damaged, a column has another type than its kind's version declares, or the file
            holds nothing.
    """
    import pyarrow.compute as pc  # noqa: PLC0415 - 35 ms of CPU, and each upkeep imports this module

    path = folder / footer.segment.path
    declared = _declared(footer.segment)
    with_types = pq.read_schema(path)
    for field in with_types:
        wanted = declared.get(field.name)
        if wanted is not None and field.type != wanted:
            raise UnreadableError(f"its column {field.name} is {field.type} and not {wanted}")
        if field.name not in ("seq", "observed_at"):
            _read(path, [field.name])
    table = _read(path, ["seq", "observed_at"])
    if not table.num_rows:
        raise UnreadableError("it holds no event")
    seqs = pc.min_max(table["seq"])
    times = pc.min_max(table["observed_at"].cast(pa.int64()))
    return replace(
        footer.segment,
        first_seq=seqs["min"].as_py(),
        last_seq=seqs["max"].as_py(),
        event_count=table.num_rows,
        first_observed_at_us=times["min"].as_py(),
        last_observed_at_us=times["max"].as_py(),
        sha256=sha256_of(path),
    )


@dataclass(frozen=True, slots=True)
class Inspection:
    """What reading a whole segment showed.

    Args:
        reason: Why it cannot be trusted, as the end of a sentence; empty where it can.
        content: What it really holds; None where it cannot be trusted.
        is_damaged: Whether it is damaged or gone, and not only out of reach for now.
    """

    reason: str
    content: Segment | None
    is_damaged: bool = False


def inspect(folder: Path, segment: Segment) -> Inspection:
    """Read all of a catalogued segment. Where it is sound, the catalogue may still say something else of it."""
    try:
        return _inspect(folder, segment)
    except OSError as error:
        return Inspection(not_now(error), None)


def _inspect(folder: Path, segment: Segment) -> Inspection:
    if reason := why_not_as_sealed(folder, segment):
        return Inspection(reason, None, is_damaged=True)
    try:
        footer = read_footer(folder, segment.path)
        if footer is None:
            return Inspection("it is no segment of a ledger", None, is_damaged=True)
        content = described_by_content(folder, footer)
    except UnreadableError as error:
        return Inspection(str(error), None, is_damaged=True)
    if segment.sha256 and content.sha256 != segment.sha256:
        reason = "its bytes are not those that were sealed: the SHA-256 differs"
        return Inspection(reason, None, is_damaged=True)
    if told := differences(footer.segment, content):
        return Inspection(f"its footer says {told}", None, is_damaged=True)
    return Inspection("", content)


def differences(told: Segment, found: Segment) -> str:
    """How a description differs from what a file holds, in words; the checksum left aside."""
    names = [field.name for field in fields(told) if field.name != "sha256"]
    pairs = ((name, getattr(told, name), getattr(found, name)) for name in names)
    return "; ".join(f"{name} {said} where the file has {is_so}" for name, said, is_so in pairs if said != is_so)


def _declared(segment: Segment) -> dict[str, pa.DataType]:
    try:
        return {field.name: field.type for field in arrow_schema(shape(segment.kind, segment.version))}
    except LedgerUnusableError as error:
        raise UnreadableError(error.problem[0].lower() + error.problem[1:]) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
