"""A ledger in a notebook."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from os import PathLike
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa

from gpuledger.settings import load_settings
from query.ad_hoc import run_sql
from query.catalogue import find_kind
from query.costs.activity import Activity, activity
from query.costs.energy import EnergySummary, energy_of_requests
from query.costs.leaks import MemoryLeaks, memory_leaks
from query.costs.prices import Prices
from query.costs.stragglers import Stragglers, stragglers
from query.costs.throttling import Throttling, throttling
from query.costs.waste import Waste, waste
from query.export import events_table
from query.history.anomalies import THRESHOLD, Anomalies, find_anomalies
from query.history.changes import Changes, change_effects
from query.history.comparison import Comparison, compare_windows
from query.history.forecast import Forecast, forecast, totals
from query.history.steps import day_before, usual_metrics
from query.history.trends import Trend, trend
from query.lengths import length_s, step_s
from query.reading.local_source import LocalSource
from query.requests.diagnosis import Diagnosis, WindowDiagnosis, diagnose, diagnose_window
from query.requests.slow import SlowRequests, slow_requests, slow_rule
from query.requests.summary import RequestFilter, RequestSummary, summarize_requests
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

    def requests(
        self,
        window: str = "1h",
        *,
        by: Sequence[str] = ("operation", "model"),
        step: str | None = None,
        only: RequestFilter | None = None,
    ) -> RequestSummary:
        """How many requests there were and how long they took, as `gpuledger requests` shows it."""
        now = self._now()
        span = self._window(window, now)
        return summarize_requests(self._source, span, now=now, by=by, only=only, step_s=step_s(step) if step else None)

    def slow(
        self,
        window: str = "1h",
        *,
        threshold: str | None = None,
        percentile: float | None = None,
        excess: bool = False,
        only: RequestFilter | None = None,
        top: int = 20,
    ) -> SlowRequests:
        """The requests that were slow by one rule, as `gpuledger slow` shows them."""
        now = self._now()
        rule = slow_rule(threshold=threshold, percentile=percentile, excess=excess)
        return slow_requests(self._source, self._window(window, now), rule, now=now, only=only, top=top)

    def diagnose(self, request: int | str) -> Diagnosis:
        """What went on while a request ran, as `gpuledger diagnose` shows it."""
        return diagnose(self._source, str(request), now=self._now())

    def diagnose_window(self, window: str, *, only: RequestFilter | None = None) -> WindowDiagnosis:
        """What went on in a window, as `gpuledger diagnose --window` shows it."""
        now = self._now()
        return diagnose_window(self._source, self._window(window, now), now=now, only=only)

    def energy(
        self,
        window: str = "1h",
        *,
        by: Sequence[str] = ("operation", "model"),
        only: RequestFilter | None = None,
        top: int = 10,
        prices: Prices | None = None,
    ) -> EnergySummary:
        """What requests cost in energy, as `gpuledger energy` shows it."""
        span = self._window(window, self._now())
        return energy_of_requests(self._source, span, by=by, only=only, top=top, prices=prices)

    def waste(self, window: str = "24h", *, by: str = "user", prices: Prices | None = None) -> Waste:
        """GPU-hours that were held and not used, as `gpuledger waste` shows them."""
        now = self._now()
        return waste(self._source, self._window(window, now), now=now, by=by, prices=prices)

    def throttling(self, window: str = "1h") -> Throttling:
        """What held the clocks down, as `gpuledger throttling` shows it."""
        now = self._now()
        return throttling(self._source, self._window(window, now), now=now)

    def leaks(self, window: str = "6h") -> MemoryLeaks:
        """Which process's GPU memory only grows, as `gpuledger leaks` shows it."""
        now = self._now()
        return memory_leaks(self._source, self._window(window, now), now=now)

    def stragglers(self, window: str = "1h") -> Stragglers:
        """Which GPU lags behind its peers, as `gpuledger stragglers` shows it."""
        now = self._now()
        return stragglers(self._source, self._window(window, now), now=now)

    def activity(self, window: str = "1h", *, prices: Prices | None = None) -> Activity:
        """Which GPUs are busy but empty, as `gpuledger activity` shows it."""
        return activity(self._source, self._window(window, self._now()), prices=prices)

    def anomalies(
        self,
        *metrics: str,
        window: str = "1d",
        past: str = "28d",
        threshold: float = THRESHOLD,
        gpus: tuple[int, ...] = (),
    ) -> Anomalies:
        """When metrics were not what they usually are at that hour, as `gpuledger anomalies` shows it."""
        return find_anomalies(
            self._source,
            metrics or usual_metrics(gpus=gpus),
            self._window(window, self._now()),
            gpus=gpus,
            threshold=threshold,
            look_back=timedelta(seconds=length_s(past)),
        )

    def compare(
        self, *metrics: str, window: str = "1h", reference: str | None = None, gpus: tuple[int, ...] = ()
    ) -> Comparison:
        """What is different from another window, or from the day before, as `gpuledger compare` shows it."""
        now = self._now()
        span = self._window(window, now)
        other = self._window(reference, now) if reference else day_before(span)
        return compare_windows(self._source, other, span, metrics, gpus=gpus)

    def changes(
        self, *metrics: str, window: str = "7d", span: str = "1d", gpus: tuple[int, ...] = (), top: int = 5
    ) -> Changes:
        """What changed, and what was different after it, as `gpuledger changes` shows it."""
        length = timedelta(seconds=length_s(span))
        wanted = metrics or usual_metrics(gpus=gpus)
        return change_effects(self._source, wanted, self._window(window, self._now()), span=length, gpus=gpus, top=top)

    def forecast(
        self,
        metric: str,
        window: str = "14d",
        *,
        ahead: str | None = None,
        limit: float | None = None,
        gpus: tuple[int, ...] = (),
    ) -> Forecast:
        """Where a metric goes and when it meets a limit, as `gpuledger forecast` shows it."""
        past = self._window(window, self._now())
        return forecast(
            self._source,
            metric,
            past,
            ahead_s=length_s(ahead) if ahead else None,
            limit=totals(self._source, metric, past) if limit is None else limit,
            gpus=gpus,
        )

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


def table(found: Any) -> pa.Table:
    """An answer as an Arrow table, with the rows that its command writes with --csv or --parquet.

    Raises:
        TypeError: It is no answer of an `OpenLedger`.
    """
    from gpuledger.answers import costs as cost_answers
    from gpuledger.answers import history as history_answers
    from gpuledger.answers import output
    from gpuledger.answers import requests as request_answers

    answers: Mapping[type, Callable[[Any], output.Answer]] = {
        Trend: output.trend_answer,
        RequestSummary: request_answers.requests_answer,
        SlowRequests: request_answers.slow_answer,
        Diagnosis: request_answers.diagnosis_answer,
        WindowDiagnosis: request_answers.window_diagnosis_answer,
        EnergySummary: cost_answers.energy_answer,
        Waste: cost_answers.waste_answer,
        Throttling: cost_answers.throttling_answer,
        MemoryLeaks: cost_answers.leaks_answer,
        Stragglers: cost_answers.stragglers_answer,
        Activity: cost_answers.activity_answer,
        Anomalies: history_answers.anomalies_answer,
        Comparison: lambda one: history_answers.comparison_answer(one, top=one.n),
        Changes: history_answers.changes_answer,
        Forecast: history_answers.forecast_answer,
    }
    if type(found) not in answers:
        raise TypeError(f"a {type(found).__name__} is no answer of a ledger")
    answer = answers[type(found)](found)
    rows = [dict(row) for row in answer.rows]
    return pa.Table.from_pylist(rows) if rows else pa.table({name: pa.nulls(0) for name in answer.columns})


def open_ledger(folder: str | PathLike[str] | None = None, *, time_zone: str | None = None) -> OpenLedger:
    """Open a ledger: the one in `folder`, or the one that the settings name.

    Raises:
        NoLedgerError: There is none.
    """
    return OpenLedger(Path(folder) if folder is not None else load_settings().data, time_zone)
