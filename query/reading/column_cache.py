"""What was read for one question is at hand for the next, while there is room.

A sealed file never changes under its name, so what was read of it once stays right; a question that was asked a second
ago reads only what came since.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from query.reading.columns import Cells, EventFile, Key, Rows, Values, read_cells
from query.reading.tail_columns import TailColumns
from store.events import Field, Kind

BYTES_MAX = 64 * 2**20  # six hours of 20 metrics of 8 GPUs at 1 Hz are 35 MB

Kept = TypeVar("Kept")


class ColumnCache:
    """What was read of immutable files, the least recently used let go first.

    For several threads: two that miss the same at once both read it.
    """

    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._kept: OrderedDict[Key, Any] = OrderedDict()
        self._tails: dict[tuple[str, str], TailColumns] = {}
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """How much is kept."""
        return self._bytes

    def events(self, path: Path, kind: Kind, field: Field, span: tuple[int, int]) -> list[tuple[Rows, Values]]:
        """One field in the row groups of a file that may have events of [from, to), where it has any value.

        Raises:
            OSError, pyarrow.ArrowException: The file cannot be read.
        """
        found = []
        with EventFile(path, kind, field) as file:
            groups = self._get((path,), file.groups)
            for group in groups.groups:
                if group.first_us < span[1] and group.last_us >= span[0]:
                    values = self._get((path, group.number, field.name), partial(file.values, group.number))
                    if len(values.values):
                        found.append((self._get((path, group.number), partial(file.rows, group.number)), values))
        return found

    def cells(self, path: Path, kind: Kind, field: Field, *, with_sketch: bool) -> Cells:
        """The cells of one field in a file of rollups.

        Raises:
            OSError, pyarrow.ArrowException: The file cannot be read.
        """
        return self._get((path, field.name), lambda: read_cells(path, kind, field, with_sketch=with_sketch))

    def tail(self, kind: Kind, field: Field) -> TailColumns | None:
        """What was last decoded of a tail; it is small, and each field has one at most."""
        return self._tails.get((kind.name, field.name))

    def keep_tail(self, kind: Kind, field: Field, tail: TailColumns) -> None:
        self._tails[kind.name, field.name] = tail

    def _get(self, key: Key, read: Callable[[], Kept]) -> Kept:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return cast("Kept", self._kept[key])
        found = read()
        with self._lock:
            if key not in self._kept:
                self._kept[key] = found
                self._bytes += _nbytes(found)
            while self._bytes > self._bytes_max:
                self._bytes -= _nbytes(self._kept.popitem(last=False)[1])
        return found


def _nbytes(kept: Any) -> int:
    return 1000 + int(kept.nbytes)
