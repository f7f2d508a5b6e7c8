"""A ledger in a notebook."""

from datetime import datetime
from os import PathLike
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow as pa

from gpuledger.settings import load_settings
from query.ad_hoc import run_sql
from query.catalogue import find_kind
from query.export import events_table
from query.local_source import LocalSource
from query.trends import Trend, trend
from query.windows import Window, host_time_zone, resolve_window

SQL_ROWS_MAX = 10_000_000
SQL_TIME_LIMIT_S = 600.0


class OpenLedger:
    """A ledger open for reading, beside the collector that writes it.

    Args:
        folder: The ledger's folder.
        time_zone: IANA name of the zone in which windows are read; this host's where left out.
    """

    def __init__(self, folder: Path, time_zone: str | None = None) -> None:
        self._source = LocalSource(folder)
        self._source.reader().close()  # says at once when there is no ledger
        self._time_zone = time_zone or host_time_zone()

    def trend(self, metric: str, window: str = "1h", *, gpus: tuple[int, ...] = (), points: int = 24) -> Trend:
        """How a metric went, as `gpuledger trend` shows it."""
        now = self._now()
        return trend(self._source, metric, self._window(window, now), now=now, gpus=gpus, points=points)

    def events(self, kind: str, window: str = "1h") -> pa.Table:
        """The events of a kind, in order of seq, as an Arrow table; `polars.from_arrow` and `to_pandas` take it."""
        return events_table(self._source, find_kind(kind), self._window(window, self._now()))

    def sql(self, query: str) -> pa.Table:
        """The answer to one SELECT over the views named after the kinds, as an Arrow table."""
        return run_sql(
            self._source,
            query,
            rows_max=SQL_ROWS_MAX,
            time_limit_s=SQL_TIME_LIMIT_S,
            time_zone=self._time_zone,
        ).table

    def _now(self) -> datetime:
        return datetime.now(ZoneInfo(self._time_zone))

    def _window(self, asked: str, now: datetime) -> Window:
        return resolve_window(asked, now=now, time_zone=self._time_zone)


def open_ledger(folder: str | PathLike[str] | None = None, *, time_zone: str | None = None) -> OpenLedger:
    """Open a ledger: the one in `folder`, or the one that the settings name.

    Raises:
        NoLedgerError: There is none.
    """
    return OpenLedger(Path(folder) if folder is not None else load_settings().data, time_zone)
