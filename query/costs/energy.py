"""What requests cost in energy: joules and Wh per request and per thousand tokens.

The energy of each GPU (`query.costs.energy_sharing`) is shared out among the requests that ran on it, and what it used
while none ran is told apart. It comes from the GPU's own energy counter, and where it has none from its power,
integrated. A request that runs over an edge of the window, or while nothing was recorded, counts by the share of its
time that energy is known for: with its energy, as so much of a request, and with so much of its tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from query.analysis import Analysis
from query.costs.energy_reading import Basis, GpuMeter, Requests, ToldBy, read_meters, read_requests
from query.costs.energy_sharing import Shares, share_out
from query.costs.prices import Bill, Prices, bill
from query.engine import Source
from query.errors import GroupingError
from query.reading.columns import coded
from query.requests.summary import GROUPINGS, RequestFilter
from query.windows import Window
from store.errors import did_you_mean
from store.events import stale_after_s
from store.rollups.cells import Floats, Ints, doubles

LATE = timedelta(hours=1)  # a request is known of when it has finished
STEPS_S = ((6 * 3600, 1), (2 * 86_400, 10))  # up to so long a window: readings so far apart; beyond them
STEP_LONG_S = 60


@dataclass(frozen=True, slots=True)
class GpuEnergy:
    """What one GPU used.

    Args:
        host, gpu_uuid, gpu_index: Which.
        joules: In the window, as far as it is known.
        attributed_joules: Of that, while requests ran on it.
        unattributed_joules: The rest: while none ran that was reported.
        basis: `counter`, the GPU's own; `power`, integrated over its samples; `none`.
        coverage: For which share of the window it is known.
    """

    host: str
    gpu_uuid: str
    gpu_index: int | None
    joules: float
    attributed_joules: float
    unattributed_joules: float
    basis: Basis
    coverage: float


@dataclass(frozen=True, slots=True)
class EnergyGroup:
    """What requests of one group cost.

    Args:
        service, operation, model, status: What they have in common; None where it was not asked for or is not known.
        n: How many finished in the window.
        request_count: How many requests the energy is of, where a part of one counts as that part.
        joules: Of all of them.
        joules_per_request, watt_hours_per_request: None where the energy of none is known.
        joules_per_1000_input_tokens, joules_per_1000_output_tokens: The whole energy over the one and over the other:
            they are not to be added up. None where no request says its tokens.
        together_ratio: Which share of the energy it is for while several ran, and so an estimate.
        cost: Of all of them.
    """

    service: str | None
    operation: str | None
    model: str | None
    status: str | None
    n: int
    request_count: float
    joules: float
    joules_per_request: float | None
    watt_hours_per_request: float | None
    joules_per_1000_input_tokens: float | None
    joules_per_1000_output_tokens: float | None
    together_ratio: float | None
    cost: Bill


@dataclass(frozen=True, slots=True)
class RequestEnergy:
    """What one request cost that ran wholly in the window.

    Args:
        seq: Its number in the ledger.
        ended_at: When it finished.
        operation, model: Of the request.
        duration_seconds: How long it took.
        input_tokens, output_tokens: None where it does not say.
        joules, watt_hours: What it used.
        joules_per_1000_output_tokens: The whole energy over them; None where it does not say.
        is_estimate: Others ran on its GPUs meanwhile.
        gpus_told_by: Who says on which GPUs it ran: the `request`; the `process` that it names, by where that was seen;
            or nobody, and all of its `host` are taken.
    """

    seq: int
    ended_at: datetime
    operation: str | None
    model: str | None
    duration_seconds: float
    input_tokens: int | None
    output_tokens: int | None
    joules: float
    watt_hours: float
    joules_per_1000_output_tokens: float | None
    is_estimate: bool
    gpus_told_by: ToldBy


@dataclass(frozen=True, slots=True)
class EnergySummary(Analysis):
    """What requests cost in energy.

    Args:
        coverage: For which share of it the energy of the GPUs is known; their mean.
        n: How many requests finished in it.
        method: How the energy was found.
        by: By what the requests are grouped.
        joules: Of all GPUs; the sum of the next two.
        attributed_joules: While requests ran.
        unattributed_joules: While none ran.
        cost: Of all of it.
        gpus: Each GPU.
        groups: Each group of requests, the one that used most first.
        requests: The requests that used most.
    """

    by: tuple[str, ...]
    joules: float
    attributed_joules: float
    unattributed_joules: float
    cost: Bill
    gpus: tuple[GpuEnergy, ...]
    groups: tuple[EnergyGroup, ...]
    requests: tuple[RequestEnergy, ...]


def energy_of_requests(
    source: Source,
    window: Window,
    *,
    by: Sequence[str] = ("operation", "model"),
    only: RequestFilter | None = None,
    top: int = 10,
    prices: Prices | None = None,
) -> EnergySummary:
    """What the requests that ran in `window` cost.

    Args:
        source: Where the events are.
        window: The time asked about.
        by: Some of `query.requests.summary.GROUPINGS`; one group for all where empty.
        only: Which requests are told of; energy is shared with the others, too.
        top: How many requests are told of one by one.
        prices: What energy costs.

    Raises:
        GroupingError: Something to group by that there is not, or too many requests.
    """
    for name in by:
        if name not in GROUPINGS:
            hint = did_you_mean(name, GROUPINGS, f"give some of {', '.join(GROUPINGS)}")
            raise GroupingError(f"Energy is not grouped by {name!r}", hint)
    step_s = next((step for upto_s, step in STEPS_S if window.seconds <= upto_s), STEP_LONG_S)
    reach_us = round(max(stale_after_s(1.0), 3 * step_s) * 1e6)
    late_us = round(LATE.total_seconds() * 1e6)
    kinds = ["gpu_sample", "process_sample", "request"]
    with source.engine(kinds, start_us=window.start_us - reach_us, end_us=window.end_us + late_us) as engine:
        meters = read_meters(engine, (window.start_us - reach_us, window.end_us + reach_us), step_s, reach_us)
        requests = read_requests(engine, window, late_us)
    return _Account(window, meters, requests, tuple(by), only or RequestFilter(), prices or Prices()).summary(top)


class _Account:
    """The energy of a window, shared out."""

    def __init__(
        self,
        window: Window,
        meters: Sequence[GpuMeter],
        requests: Requests,
        by: tuple[str, ...],
        only: RequestFilter,
        prices: Prices,
    ) -> None:
        self.window, self.meters, self.requests = window, meters, requests
        self.by, self.only, self.prices = by, only, prices
        n = requests.table.num_rows
        self.joules, self.together, self.known_us, self.gpu_count = (np.zeros(n) for _ in range(4))
        self.gpus = tuple(self._gpu(one) for one in meters)

    def _gpu(self, one: GpuMeter) -> GpuEnergy:
        edges_us = (self.window.start_us, self.window.end_us)
        on_it = [where.has(one) for where in self.requests.ran_on]
        rows = np.flatnonzero(np.array(on_it, bool)[self.requests.place])
        shares = share_out(one.meter, edges_us, self.requests.start_us[rows], self.requests.end_us[rows])
        self._add(rows, shares)
        known_us = np.diff(one.meter.known_us_at(np.array(edges_us)))[0]
        return GpuEnergy(
            host=one.host,
            gpu_uuid=one.gpu_uuid,
            gpu_index=one.gpu_index,
            joules=shares.attributed_joules + shares.unattributed_joules,
            attributed_joules=shares.attributed_joules,
            unattributed_joules=shares.unattributed_joules,
            basis=one.basis,
            coverage=float(known_us) / 1e6 / self.window.seconds,
        )

    def _add(self, rows: Ints, shares: Shares) -> None:
        self.joules[rows] += shares.joules
        self.together[rows] += shares.together_joules
        self.known_us[rows] += shares.known_us
        self.gpu_count[rows] += 1

    def summary(self, top: int) -> EnergySummary:
        attributed = sum(one.attributed_joules for one in self.gpus)
        unattributed = sum(one.unattributed_joules for one in self.gpus)
        groups = self._groups()
        return EnergySummary(
            window=self.window,
            coverage=sum(one.coverage for one in self.gpus) / len(self.gpus) if self.gpus else 0.0,
            n=sum(one.n for one in groups),
            method=self._method(),
            limits=self._limits(),
            by=self.by,
            joules=attributed + unattributed,
            attributed_joules=attributed,
            unattributed_joules=unattributed,
            cost=bill(attributed + unattributed, self.prices),
            gpus=self.gpus,
            groups=groups,
            requests=self._dearest(top),
        )

    def _is_asked(self) -> NDArray[np.bool_]:
        """Which requests are told of, of those that ran or finished in the window."""
        is_in = (self.requests.end_us > self.window.start_us) & (self.requests.start_us < self.window.end_us)
        for name, value in self.only.given.items():
            is_in &= pc.equal(self.requests.table[name].fill_null(""), value).to_numpy()
        return is_in

    def _known_ratio(self) -> Floats:
        """Which share of each request's time on its GPUs its energy is known for."""
        took_us = (self.requests.end_us - self.requests.start_us) * self.gpu_count
        return np.where(took_us > 0, self.known_us / np.maximum(took_us, 1), 0.0)

    def _groups(self) -> tuple[EnergyGroup, ...]:
        asked = np.flatnonzero(self._is_asked())
        if not len(asked):
            return ()
        keys, code = coded(self.requests.table.take(pa.array(asked)), self.by)
        ratio = self._known_ratio()
        groups = [self._group(key, asked[code == place], ratio) for place, key in enumerate(keys)]
        return tuple(sorted(groups, key=lambda one: -one.joules))

    def _group(self, key: tuple[str | None, ...], rows: Ints, ratio: Floats) -> EnergyGroup:
        joules, count = float(self.joules[rows].sum()), float(ratio[rows].sum())
        names = dict(zip(self.by, key, strict=True))
        is_finished = self.requests.end_us[rows] < self.window.end_us
        per_request = joules / count if count else None
        return EnergyGroup(
            service=names.get("service"),
            operation=names.get("operation"),
            model=names.get("model"),
            status=names.get("status"),
            n=int(is_finished.sum()),
            request_count=count,
            joules=joules,
            joules_per_request=per_request,
            watt_hours_per_request=None if per_request is None else per_request / 3600,
            joules_per_1000_input_tokens=self._per_tokens("input_tokens", rows, ratio),
            joules_per_1000_output_tokens=self._per_tokens("output_tokens", rows, ratio),
            together_ratio=float(self.together[rows].sum()) / joules if joules else None,
            cost=bill(joules, self.prices),
        )

    def _per_tokens(self, column: str, rows: Ints, ratio: Floats) -> float | None:
        """Joules per thousand tokens of the requests that say theirs."""
        tokens = doubles(self.requests.table[column].take(pa.array(rows)))
        says = np.isfinite(tokens)
        total = float((tokens[says] * ratio[rows][says]).sum())
        return 1000 * float(self.joules[rows][says].sum()) / total if total else None

    def _dearest(self, top: int) -> tuple[RequestEnergy, ...]:
        is_whole = self._is_asked() & (self._known_ratio() > 1 - 1e-9)
        rows = np.flatnonzero(is_whole)
        rows = rows[np.argsort(-self.joules[rows], kind="stable")][:top]
        columns = ("seq", "operation", "model", "duration_seconds", "input_tokens", "output_tokens")
        told = self.requests.table.select(columns).take(pa.array(rows)).to_pylist()
        found = []
        for at, row in zip(rows.tolist(), told, strict=True):
            joules, tokens = float(self.joules[at]), row["output_tokens"]
            found.append(
                RequestEnergy(
                    ended_at=datetime.fromtimestamp(self.requests.end_us[at] / 1e6, self.window.start.tzinfo),
                    joules=joules,
                    watt_hours=joules / 3600,
                    joules_per_1000_output_tokens=1000 * joules / tokens if tokens else None,
                    is_estimate=bool(self.together[at] > 0),
                    gpus_told_by=self.requests.ran_on[self.requests.place[at]].told_by,
                    **row,
                )
            )
        return tuple(found)

    def _method(self) -> str:
        bases = {one.basis for one in self.gpus}
        words = {
            "counter": "the GPUs' energy counters",
            "power": "the integral of sampled power, where a GPU has no energy counter",
        }
        told = " and ".join(words[basis] for basis in ("counter", "power") if basis in bases)
        return f"{told or 'no energy was recorded'}; shared equally among the requests then running on a GPU"

    def _limits(self) -> tuple[str, ...]:
        is_asked = self._is_asked()
        is_of_host = np.array([one.told_by == "host" for one in self.requests.ran_on], bool)
        unnamed = int((is_of_host[self.requests.place] & is_asked).sum())
        together = bool((self.together[is_asked] > 0).any())
        no_energy = int((self._known_ratio()[is_asked] == 0).sum())
        candidates = (
            ("requests that had not finished an hour after the window, or by now, are not in it", True),
            ("where several ran at once, what each used is an estimate", together),
            (
                f"{unnamed:,} requests do not say which GPUs they ran on: all of their host were taken",
                bool(unnamed),
            ),
            (f"of {no_energy:,} requests no energy is known, and they count for nothing", bool(no_energy)),
            ("it is the energy of the GPUs alone, without CPU, memory, fans and power supply", True),
        )
        return tuple(words for words, is_so in candidates if is_so)
