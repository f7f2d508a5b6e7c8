"""The columns of the tail that stay at hand: a question decodes only what was appended since the one before.

Events only come to the tail at its end and leave it, sealed, at its beginning; so what was decoded of it stays right
from its first seq on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from query.reading.columns import Rows, Values, dense, read_columns, rows_of, values_of
from store.events import Field, Kind
from store.frames import Frame, frames_to_arrow
from store.snapshot import LedgerReader


@dataclass(frozen=True, slots=True)
class TailColumns:
    """One field in the tail of one ledger, up to `last_seq`."""

    ledger_id: str
    last_seq: int
    rows: Rows
    values: Values


@dataclass(frozen=True, slots=True)
class TailPicture:
    """The tail at one moment: what was decoded before, and the frames that came since.

    Args:
        ledger_id: Of which ledger.
        before: What was decoded before; None where that is not the beginning of this tail.
        first_seq: Where the tail begins.
        frames: What is not in `before`.
    """

    ledger_id: str
    before: TailColumns | None
    first_seq: int
    frames: Sequence[Frame]

    def columns(self, kind: Kind, field: Field) -> TailColumns:
        """The whole tail."""
        table = frames_to_arrow(kind, self.frames, read_columns(kind, field))
        rows, values = rows_of(table, kind), values_of(table, field)
        if self.before is not None:
            rows, values = _joined(*_since(self.before, self.first_seq), rows, values)
        last_seq = max([self.before.last_seq if self.before else 0, *(frame.last_seq for frame in self.frames)])
        return TailColumns(self.ledger_id, last_seq, rows, values)


def tail_picture(reader: LedgerReader, kind: str, before: TailColumns | None) -> TailPicture | None:
    """The tail of a kind, to be taken in one picture with the rest; None where it is empty.

    Args:
        reader: Of the ledger.
        kind: Its name.
        before: What was at hand before the picture began.
    """
    edges = reader.tail_edges(kind)
    if edges is None:
        return None
    ledger_id = reader.ledger_id
    if before is not None and (before.ledger_id != ledger_id or before.last_seq > edges[1]):
        before = None  # another ledger is there now, or an older state of this one
    return TailPicture(ledger_id, before, edges[0], reader.tail_frames(kind, before.last_seq if before else 0))


def _since(tail: TailColumns, first_seq: int) -> tuple[Rows, Values]:
    """What of it is still in the tail."""
    rows, values = tail.rows, tail.values
    is_there = rows.seq >= first_seq
    if is_there.all():
        return rows, values
    number = np.cumsum(is_there) - 1
    place = np.arange(len(is_there)) if values.place is None else values.place
    is_kept = is_there[place]
    first, code = dense(rows.code[is_there])
    keys = tuple(rows.keys[at] for at in rows.code[is_there][first].tolist())
    kept = Rows(
        keys, code, rows.time_us[is_there], rows.seq[is_there], rows.interval_s[is_there], rows.first_us, rows.last_us
    )
    return kept, Values(values.values[is_kept], number[place[is_kept]])


def _joined(rows: Rows, values: Values, new: Rows, new_values: Values) -> tuple[Rows, Values]:
    if not len(new.seq):
        return rows, values
    numbers = {key: number for number, key in enumerate(rows.keys)}
    code = np.array([numbers.setdefault(key, len(numbers)) for key in new.keys], np.int64)[new.code]
    joined = Rows(
        tuple(numbers),
        np.concatenate([rows.code, code]),
        np.concatenate([rows.time_us, new.time_us]),
        np.concatenate([rows.seq, new.seq]),
        np.concatenate([rows.interval_s, new.interval_s]),
        min(rows.first_us, new.first_us),
        max(rows.last_us, new.last_us),
    )
    places = [
        (np.arange(len(one.values)) if one.place is None else one.place) + first
        for one, first in ((values, 0), (new_values, len(rows.seq)))
    ]
    return joined, Values(np.concatenate([values.values, new_values.values]), np.concatenate(places))
