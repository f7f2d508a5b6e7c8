"""The newest row of each GPU and of the host stays at hand: a question decodes only what was appended since the last.

As long as nothing after the last question was sealed, all that is newer is in the tail. Where something was, an engine
is asked once. Measured with one sample a second and a question each second: 1.5 ms, against 150 ms of an engine.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from query.engine import Engine, in_window, sql_text
from store.events import KINDS
from store.frames import frames_to_arrow
from store.snapshot import LedgerReader

Row = Mapping[str, Any]
END_US = 2**53  # after any time that an event has


@dataclass(frozen=True, slots=True)
class NewestQuestion:
    """The newest row of each series.

    Args:
        kind: Of which kind.
        columns: What is wanted of it, `seq` and `observed_at` and the keys among it.
        keys: The columns that tell one series from another.
        start_us: Rows before that are of no interest; microseconds UTC.
        end_us: Nor are rows after that, be it by a clock that was put back.
    """

    kind: str
    columns: tuple[str, ...]
    keys: tuple[str, ...]
    start_us: int = 0
    end_us: int = END_US

    def ask(self, engine: Engine) -> list[Row]:
        """The rows, of an engine that sees the kind."""
        text = sql_text("newest_rows").format(
            columns=", ".join(self.columns),
            relation=engine.relation(self.kind),
            keys=", ".join(self.keys),
            in_window=in_window(engine),
        )
        found: list[Row] = engine.query(text, start=self.start_us, end=self.end_us + 1).to_pylist()
        return found

    def is_after(self, row: Row) -> bool:
        """Whether a row lies after what is asked for."""
        return self.end_us < END_US and row["observed_at"].timestamp() * 1e6 > self.end_us


@dataclass(frozen=True, slots=True)
class _Kept:
    """The newest row of each series up to `last_seq`."""

    ledger_id: str
    last_seq: int
    rows: Mapping[tuple[Any, ...], Row]


class NewestRows:
    """The newest rows of one ledger's kinds; for several threads."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, tuple[str, ...]], _Kept] = {}
        self._lock = threading.Lock()

    def rows(self, reader: LedgerReader, question: NewestQuestion) -> Sequence[Row] | None:
        """The newest row of each series; None where an engine is to be asked, and then `keep` told."""
        with self._lock:
            kept = self._kept.get((question.kind, question.columns))
        if kept is None or kept.ledger_id != reader.ledger_id or reader.has_sealed_since(question.kind, kept.last_seq):
            return None
        frames = reader.tail_frames(question.kind, kept.last_seq)
        if not frames:
            return tuple(kept.rows.values())
        table = frames_to_arrow(KINDS[question.kind], frames, question.columns)
        return self.keep(question, kept.ledger_id, frames[-1].last_seq, [*kept.rows.values(), *table.to_pylist()])

    def keep(self, question: NewestQuestion, ledger_id: str, last_seq: int, rows: Sequence[Row]) -> Sequence[Row]:
        """Keep the newest of rows, with which everything up to `last_seq` was read; gives them."""
        newest: dict[tuple[Any, ...], Row] = {}
        for row in rows:
            key = tuple(row[name] for name in question.keys)
            known = newest.get(key)
            if known is None or (row["observed_at"], row["seq"]) >= (known["observed_at"], known["seq"]):
                newest[key] = row
        with self._lock:
            self._kept[question.kind, question.columns] = _Kept(ledger_id, last_seq, newest)
        return tuple(newest.values())
