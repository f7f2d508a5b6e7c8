"""Pinning a note to a time: a person or an agent says what happened, and the answers about that time can tell it."""

import time
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from store.errors import UsageError
from store.events import Event
from store.ledger import Ledger
from store.snapshot import LedgerReader

TEXT_MAX = 2_000
TAGS_MAX = 20
WORD_MAX = 100


@dataclass(frozen=True, slots=True)
class Annotation:
    """A note.

    Args:
        text: What it says, at most 2,000 characters.
        started_at_us: Beginning of what it is about, microseconds UTC; now where left out.
        ended_at_us: End of that; the same instant where left out.
        tags: At most 20 words to find it by.
        author: Who wrote it.
        gpu_uuid: The GPU it is about.
    """

    text: str
    started_at_us: int | None = None
    ended_at_us: int | None = None
    tags: Sequence[str] = ()
    author: str | None = None
    gpu_uuid: str | None = None


def annotate(folder: Path, note: Annotation, *, now_us: int | None = None) -> int:
    """Append a note to a ledger, durably; its seq.

    It is observed when what it is about began, so that whoever asks for that time finds it.

    Args:
        folder: The ledger's folder.
        note: The note.
        now_us: The present instant; the clock's where left out.

    Raises:
        UsageError: The note is empty, too long, or ends before it begins or after now.
        NoLedgerError: Nothing was ever recorded there; a note alone makes no ledger.
        LedgerUnusableError: The ledger takes no events.
    """
    now_us = time.time_ns() // 1000 if now_us is None else now_us
    started_us = now_us if note.started_at_us is None else note.started_at_us
    ended_us = started_us if note.ended_at_us is None else note.ended_at_us
    if not started_us <= ended_us <= now_us:
        raise UsageError("A note is about a time that begins before it ends and is over", "give another time")
    values = {
        "text": _cleaned("note", note.text, TEXT_MAX),
        "started_at": started_us,
        "ended_at": ended_us,
        **({"tags": _tags(note.tags)} if note.tags else {}),
        **({"author": _cleaned("author", note.author, WORD_MAX)} if note.author else {}),
        **({"gpu_uuid": _cleaned("GPU", note.gpu_uuid, WORD_MAX)} if note.gpu_uuid else {}),
    }
    LedgerReader(folder).close()
    with Ledger(folder) as ledger:
        return ledger.append([Event("annotation", started_us, values)]).start


def _tags(tags: Sequence[str]) -> list[str]:
    if len(tags) > TAGS_MAX:
        raise UsageError(f"The note has {len(tags)} tags", f"give at most {TAGS_MAX}")
    return [_cleaned("tag", tag, WORD_MAX) for tag in tags]


def _cleaned(what: str, text: str, length_max: int) -> str:
    """The text without what is no character to be seen, but for the ends of lines."""
    kept = "".join(one for one in text if one == "\n" or unicodedata.category(one) not in ("Cc", "Cf", "Cs")).strip()
    if not kept:
        raise UsageError(f"The {what} is empty", "give it some words")
    if len(kept) > length_max:
        raise UsageError(f"The {what} has {len(kept):,} characters", f"give at most {length_max:,}")
    return kept
