"""What stood out while something was slow: one small function for each cause.

A scene is some moments that are to be explained beside some that are usual. A figure of a moment stands out where it is
beyond 95 % of the usual ones and differs from their median by what matters. An effect is an estimate in seconds: the
share of time in excess, times how long the moment took, and never more than what there is to explain.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from query.requests.surroundings import Interval, Surroundings
from store.events import CLOCK_EVENT_REASONS
from store.rollups.cells import Floats

USUAL_MIN = 8  # fewer say nothing about what is usual
SHARE_LEAST = 0.1  # of the time: less does not stand out
EXPLAINS_LEAST = 0.2  # of what there is to explain: less is not told
STATE_SHARE_LEAST = 0.01  # of a window without requests: half a minute of an hour
BUSY_PERCENT = 50.0  # an idle GPU lowers its clocks: only busy ones are compared
POWER_LEAST = 0.25  # by so much less power a busy GPU is held back: its load alone makes it vary
PRESSURE_LEAST = 0.2  # of the time: a moment of it comes and goes on every host
FULL_RATIO = 0.95
NEAR_US = 60_000_000  # an Xid that long before or after belongs to it
SWAP_LEAST = 10e6  # bytes a second: less is an idle page that comes back
RARE_SHARE = 0.1  # of the usual moments: what was there in more of them is usual itself

THROTTLES = {
    "throttle_sw_power_cap_seconds": "software power cap",
    "throttle_sw_thermal_seconds": "software thermal slowdown",
    "throttle_hw_thermal_seconds": "hardware thermal slowdown",
    "throttle_hw_power_brake_seconds": "hardware power brake",
    "throttle_sync_boost_seconds": "sync boost",
}
SLOWING = {bit: reason.replace("_", " ") for bit, reason in CLOCK_EVENT_REASONS.items() if reason != "gpu_idle"}

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Cause:
    """Something that stands out.

    Args:
        name: `throttling`, `clock_deficit`, `queueing`, `other_process` and the like.
        sentence: What it is, with its figures.
        effect_seconds: How much of the time it may explain; None where that cannot be told.
        evidence: What speaks for it.
        counter_evidence: What speaks against it.
        moments_ratio: In which share of what was looked at it stands out.
    """

    name: str
    sentence: str
    effect_seconds: float | None
    evidence: tuple[str, ...]
    counter_evidence: tuple[str, ...] = ()
    moments_ratio: float = 1.0


@dataclass(frozen=True, slots=True)
class Moment:
    """A request, or a piece of time.

    Args:
        interval: When.
        excess_seconds: How much of it there is to explain.
        row: The request's columns; empty for a piece of time.
    """

    interval: Interval
    excess_seconds: float = 0.0
    row: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> tuple[str | None, str | None]:
        """What it is compared with: the same operation and model."""
        return self.row.get("operation"), self.row.get("model")

    @property
    def took_s(self) -> float:
        return (self.interval[1] - self.interval[0]) / 1e6


@dataclass(frozen=True, slots=True)
class Standing:
    """A figure that stands out in some moments.

    Args:
        values: Of each moment.
        median: What is usual.
        chosen: In which it stands out.
    """

    values: Floats
    median: float
    chosen: Mask

    @property
    def typical(self) -> float:
        """The middle one of those that stand out."""
        return float(np.median(self.values[self.chosen]))


class Scene:
    """Moments to be explained, and usual ones.

    Args:
        moments, usual: These.
        seen: What was sampled around both.
    """

    def __init__(self, moments: Sequence[Moment], usual: Sequence[Moment], seen: Surroundings) -> None:
        self.moments = moments
        self.usual = usual
        self.seen = seen
        self.intervals = [one.interval for one in moments]
        self.usual_intervals = [one.interval for one in usual]
        self.took_s = np.array([one.took_s for one in moments])
        self.excess_s = np.array([one.excess_seconds for one in moments])

    def standing(self, kind: str, column: str, least: float) -> Standing | None:
        """Where the greatest of all series is that much above what is usual."""
        of_both = self.seen.greatest(kind, column, [*self.intervals, *self.usual_intervals])
        return self.compared(of_both[: len(self.moments)], of_both[len(self.moments) :], least)

    def compared(self, values: Floats, usual: Floats, least: float) -> Standing | None:
        known = usual[~np.isnan(usual)]
        if len(known) < USUAL_MIN:
            return None
        median = float(np.median(known))
        chosen = (values - median >= least) & (values > np.quantile(known, 0.95))
        return Standing(values, median, chosen) if chosen.any() else None

    def phase(self, figure: Callable[[dict[str, Any]], float | None]) -> tuple[Floats, Floats]:
        """A figure of the requests, and what is usual in others of the same operation and model; NaN if not known."""
        usual: dict[Any, list[float]] = {}
        for one in self.usual:
            if (value := figure(one.row)) is not None:
                usual.setdefault(one.kind, []).append(value)
        medians = {kind: float(np.median(of_kind)) for kind, of_kind in usual.items() if len(of_kind) >= USUAL_MIN}
        highest = {kind: float(np.quantile(usual[kind], 0.95)) for kind in medians}
        values = np.array([np.nan if (value := figure(one.row)) is None else value for one in self.moments])
        values = np.where(values > [highest.get(one.kind, np.inf) for one in self.moments], values, np.nan)
        return values, np.array([medians.get(one.kind, np.nan) for one in self.moments])

    @cached_property
    def is_busy(self) -> tuple[Mask, Mask]:
        """Whether a GPU was in use in each moment, and in each usual one; where that is not known it is."""
        of_both = self.seen.greatest("gpu_sample", "utilization_percent", [*self.intervals, *self.usual_intervals])
        busy = ~(of_both < BUSY_PERCENT)
        return busy[: len(self.moments)], busy[len(self.moments) :]

    def deficit(self, column: str) -> tuple[Floats, float] | None:
        """By which share the least of all busy GPUs is below the usual, NaN where it does not stand out; the usual."""
        of_both = self.seen.least("gpu_sample", column, [*self.intervals, *self.usual_intervals])
        busy, usual_busy = self.is_busy
        usual = of_both[len(self.moments) :][usual_busy]
        usual = usual[~np.isnan(usual)]
        if len(usual) < USUAL_MIN:
            return None
        median, values = float(np.median(usual)), of_both[: len(self.moments)]
        is_low = busy & (values < np.quantile(usual, 0.05)) & (values <= (1 - SHARE_LEAST) * median)
        return np.where(is_low, 1 - values / median, np.nan), median

    def cause(
        self,
        name: str,
        sentence: str,
        effects_s: Floats | None,
        chosen: Mask,
        evidence: Sequence[str],
        against: Sequence[str] = (),
    ) -> Cause:
        """A cause of the chosen moments, with the sum of its effects."""
        effect_s = None if effects_s is None else float(np.minimum(effects_s, self.excess_s)[chosen].sum())
        of_many = [f"in {int(chosen.sum())} of the {len(chosen)} looked at"] if len(chosen) > 1 else []
        return Cause(name, sentence, effect_s, (*of_many, *evidence), tuple(against), float(chosen.mean()))


def causes_of(scene: Scene, *, is_state: bool = False) -> tuple[Cause, ...]:
    """What stands out and matters, the largest effect first.

    Args:
        scene: The moments.
        is_state: They are pieces of time, not requests: there is nothing that was slow.
    """
    found = [cause for find in FINDERS for cause in find(scene)]
    total_s = float(scene.excess_s.sum())
    least_s = total_s * (STATE_SHARE_LEAST if is_state else EXPLAINS_LEAST)
    told = [one for one in found if _matters(one, least_s)]
    if not is_state and not told:
        told += [one for one in _phases(scene) if _matters(one, least_s)]
    return tuple(sorted(told, key=lambda one: -(one.effect_seconds or 0.0)))


def _matters(one: Cause, least_s: float) -> bool:
    if one.effect_seconds is None:
        return one.moments_ratio >= SHARE_LEAST
    return one.effect_seconds > 0 and one.effect_seconds >= least_s


# The server ---------------------------------------------------------------------------------------------------------


def _queueing(scene: Scene) -> Iterator[Cause]:
    waited, usual = scene.phase(lambda row: row.get("queue_seconds"))
    chosen = waited - usual > 0
    if chosen.any():
        waiting = scene.seen.greatest("server_sample", "requests_waiting_count", scene.intervals)[chosen]
        words = (
            f"it waited {np.median(waited[chosen]):.3g} s to be scheduled; {np.median(usual[chosen]):.3g} s is usual"
        )
        known = () if np.isnan(waiting).all() else (f"{np.nanmedian(waiting):.0f} requests were waiting on the server",)
        is_for = bool(known) and np.nanmedian(waiting) >= 1
        yield scene.cause(
            "queueing", words, waited - usual, chosen, known if is_for else (), () if is_for else known
        )  # fmt: skip
    elif not any(one.row for one in scene.moments) and (
        found := scene.standing("server_sample", "requests_waiting_count", 5.0)
    ):
        words = f"{found.typical:.0f} requests were waiting on the server; {found.median:.0f} is usual"
        yield scene.cause("queueing", words, scene.took_s, found.chosen, ("server_sample.requests_waiting_count",))


def _kv_pressure(scene: Scene) -> Iterator[Cause]:
    put_aside = np.array([one.row.get("preemption_count") or 0 for one in scene.moments])
    usual = np.mean([bool(one.row.get("preemption_count")) for one in scene.usual]) if scene.usual else 0.0
    chosen = (put_aside > 0) & (usual <= RARE_SHARE)
    facts = [f"it was put aside {int(np.median(put_aside[chosen]))} times"] if chosen.any() else []
    if found := scene.standing("server_sample", "preemption_count", 0.05):
        chosen |= found.chosen
        facts.append(f"the server put aside {found.typical:.2g} requests a second; {found.median:.2g} is usual")
    used = scene.standing("server_sample", "kv_cache_used_ratio", 0.05)
    if used and (full := used.chosen & (used.values >= FULL_RATIO)).any():
        chosen |= full
        facts.append(f"{_percent(used.typical)} of the KV cache was in use; {_percent(used.median)} is usual")
    if facts:
        against = () if any("aside" in fact for fact in facts) else ("nothing was put aside",)
        columns = ("request.preemption_count, server_sample.kv_cache_used_ratio and preemption_count",)
        yield scene.cause("kv_pressure", "; ".join(facts), None, chosen, columns, against)


# The GPU ------------------------------------------------------------------------------------------------------------


def _clocks(scene: Scene) -> Iterator[Cause]:
    throttled = list(_throttling(scene))
    yield from throttled
    if not throttled:
        yield from _slow_state(scene)


def _throttling(scene: Scene) -> Iterator[Cause]:
    both = [*scene.intervals, *scene.usual_intervals]
    found = {
        (words, column): standing
        for column, words in THROTTLES.items()
        if (standing := scene.standing("gpu_sample", column, SHARE_LEAST))
    }
    for bit, words in SLOWING.items() if not found else ():  # some GPUs have no counters, but say what holds them now
        share = scene.seen.share_of_bits("gpu_sample", "clock_event_reasons_bitmask", bit, both)
        if standing := scene.compared(share[: len(scene.moments)], share[len(scene.moments) :], SHARE_LEAST):
            found[words, "clock_event_reasons_bitmask"] = standing
    for (words, column), standing in found.items():
        yield _throttled(scene, words, column, standing)


def _throttled(scene: Scene, words: str, column: str, found: Standing) -> Cause:
    """What is lost is what the clock is lower, where that is known; else the time that it was held down."""
    deficits = scene.deficit("clock_sm_hertz")
    clock = scene.seen.least("gpu_sample", "clock_sm_hertz", scene.intervals)
    share = found.values - found.median
    lost = share if deficits is None else np.where(np.isnan(clock), share, np.nan_to_num(deficits[0]))
    facts, against = [f"gpu_sample.{column}"], []
    if deficits and (lost[found.chosen] > 0).any():
        facts.append(f"the SM clock was {_percent(float(np.median(lost[found.chosen])))} below the usual")
    elif deficits:
        against.append("the SM clock was as usual")
    sentence = f"{words} held the clocks down for {_percent(found.typical)} of the time"
    usual = f"{_percent(found.median)} is usual"
    return scene.cause("throttling", f"{sentence}; {usual}", lost * scene.took_s, found.chosen, facts, against)


def _slow_state(scene: Scene) -> Iterator[Cause]:
    """Busy, slower than usual, and nothing says why: by the clock, or by power at the same use (seen on GB10)."""
    clock, power = scene.deficit("clock_sm_hertz"), scene.deficit("power_watts")
    of_clock, of_power = (one[0] if one else np.full(len(scene.moments), np.nan) for one in (clock, power))
    against = ("no counter of throttling grew and no reason was told: what holds it is not known",)
    if (chosen := of_power >= POWER_LEAST).any():
        words = f"the GPU was busy at {_percent(float(np.median(of_power[chosen])))} less power than usual"
        facts = ["gpu_sample.power_watts"]
        if (of_clock[chosen] > 0).any():
            facts.append(f"the SM clock was {_percent(float(np.nanmedian(of_clock[chosen])))} below the usual")
        effects = np.fmax(of_power, of_clock) * scene.took_s
        yield scene.cause("slow_state", f"{words}, and said no reason", effects, chosen, facts, against)
    elif clock and (chosen := of_clock > 0).any():
        share = float(np.median(of_clock[chosen]))
        hertz = (1 - share) * clock[1]
        words = f"the SM clock was {hertz / 1e6:.0f} MHz, {_percent(share)} below the usual {clock[1] / 1e6:.0f} MHz"
        facts = ["gpu_sample.clock_sm_hertz"]
        yield scene.cause("clock_deficit", words, of_clock * scene.took_s, chosen, facts, against)


def _other_process(scene: Scene) -> Iterator[Cause]:
    usual = [{row["pid"] for row in _processes(scene, span)} for span in scene.usual_intervals]
    often = {pid: sum(pid in pids for pids in usual) for pid in set().union(*usual)}
    if not often:
        return
    shares: dict[int, Floats] = {}
    names: dict[int, str] = {}
    for at, span in enumerate(scene.intervals):
        for row in _processes(scene, span):
            percent = row["sm_utilization_percent"] or 0
            if often.get(row["pid"], 0) <= RARE_SHARE * len(usual) and percent >= 5:
                of_pid = shares.setdefault(row["pid"], np.zeros(len(scene.moments)))
                of_pid[at] = max(of_pid[at], percent / 100)
                names[row["pid"]] = row["name"] or "name not known"
    for pid, of_pid in shares.items():
        chosen = of_pid > 0
        share = _percent(float(np.median(of_pid[chosen])))
        words = f"process {pid} ({names[pid]}) used {share} of the GPU beside it"
        evidence = (f"it was there in {often.get(pid, 0)} of {len(usual)} of the baseline",)
        yield scene.cause("other_process", words, of_pid * scene.took_s, chosen, evidence)


def _processes(scene: Scene, span: Interval) -> list[dict[str, Any]]:
    """As far as a sample of a process reaches: they are taken every 5 s."""
    return scene.seen.rows("process_sample", (span[0] - 5_000_000, span[1] + 5_000_000))


def _xids(scene: Scene) -> Iterator[Cause]:
    usual = [_xids_near(scene, span) for span in scene.usual_intervals if _is_apart(scene, span)]
    of_moments = [_xids_near(scene, span) for span in scene.intervals]
    for xid, message in {code: text for found in of_moments for code, text in found.items()}.items():
        before = sum(xid in found for found in usual)
        if before > RARE_SHARE * len(usual):
            continue
        chosen = np.array([xid in found for found in of_moments])
        against = ["it may have come from another process"]
        against += [f"there was one near {before} of {len(usual)} of the baseline, too"] if before else []
        yield scene.cause("xid", f"Xid {xid} within a minute of it", None, chosen, (message or "gpu_event",), against)


def _is_apart(scene: Scene, span: Interval) -> bool:
    """Whether no Xid can be near both to some usual span and to a moment."""
    return all(span[1] + 2 * NEAR_US < one[0] or span[0] - 2 * NEAR_US > one[1] for one in scene.intervals)


def _xids_near(scene: Scene, span: Interval) -> dict[int, str | None]:
    rows = scene.seen.rows("gpu_event", (span[0] - NEAR_US, span[1] + NEAR_US))
    return {row["xid"]: row["message"] for row in rows if row["event"] == "xid"}


def _pcie_replay(scene: Scene) -> Iterator[Cause]:
    if found := scene.standing("gpu_sample", "pcie_replay_count", 1.0):
        words = f"PCIe packets were sent again, {found.typical:.3g} a second; {found.median:.3g} is usual"
        against = ("what it costs depends on what was moved",)
        yield scene.cause("pcie_replay", words, None, found.chosen, ("gpu_sample.pcie_replay_count",), against)


def _leak(scene: Scene) -> Iterator[Cause]:
    """A process whose memory grew all the time, on a GPU whose memory is full."""
    used = scene.seen.greatest("gpu_sample", "memory_used_bytes", scene.intervals)
    total = scene.seen.greatest("gpu_sample", "memory_total_bytes", scene.intervals)
    chosen = used >= FULL_RATIO * total
    if not chosen.any():
        return
    for pid, name, grown, hours in _growing(scene.seen.table("process_sample")):
        if grown >= SHARE_LEAST * np.nanmax(total):
            words = f"process {pid} ({name}) grew by {grown / 2**30:.1f} GiB in {hours:.1f} h, and the GPU's memory "
            words += f"is {_percent(float(np.median((used / total)[chosen])))} full"
            evidence = ("process_sample.memory_used_bytes only grew",)
            yield scene.cause("leak", words, None, chosen, evidence, ("a cache that fills up looks the same",))


GROWTH_POINTS = 60


def _growing(table: pa.Table) -> Iterator[tuple[int, str, float, float]]:
    """Processes whose device memory grows steadily: pid, name, bytes, hours.

    The slope is the median of those between all pairs (Theil, 1950; Sen, JASA 63, 1968); steady is where nine in ten of
    the pairs grow (Kendall's tau of 0.8).
    """
    valid = table.filter(table["memory_used_bytes"].is_valid())
    pids = valid["pid"].to_numpy() if valid.num_rows else np.empty(0, np.int64)
    for pid in np.unique(pids).tolist():
        mine = np.flatnonzero(pids == pid)
        mine = mine[np.linspace(0, len(mine) - 1, min(len(mine), GROWTH_POINTS)).astype(np.int64)]
        rows = valid.take(pa.array(mine))
        seconds = rows["observed_at"].cast(pa.int64()).to_numpy() / 1e6
        used = rows["memory_used_bytes"].to_numpy().astype(np.float64)
        early, late = np.triu_indices(len(mine), 1)
        is_apart = seconds[late] > seconds[early]
        slopes = ((used[late] - used[early]) / np.maximum(seconds[late] - seconds[early], 1e-6))[is_apart]
        if len(mine) >= USUAL_MIN and len(slopes) and np.mean(slopes > 0) >= 0.9:
            length_s = float(seconds[-1] - seconds[0])
            yield pid, rows["name"][0].as_py() or "name not known", float(np.median(slopes)) * length_s, length_s / 3600


# The host -----------------------------------------------------------------------------------------------------------


def _host(scene: Scene) -> Iterator[Cause]:
    yield from _pressure(scene, "cpu", "the CPU", _run_queue(scene))
    of_memory = list(_memory(scene))
    yield from of_memory
    if not any("swap" in fact for cause in of_memory for fact in cause.evidence):  # which is on a disk, and waits too
        yield from _pressure(scene, "io", "disks", _slowest_disk(scene))


def _pressure(scene: Scene, resource: str, words: str, facts: Sequence[str]) -> Iterator[Cause]:
    column = f"pressure_{resource}_some_seconds"
    if found := scene.standing("system_sample", column, PRESSURE_LEAST):
        share = f"{_percent(found.typical)} of the time; {_percent(found.median)} is usual"
        sentence = f"tasks of the host waited for {words} {share}"
        effects = (found.values - found.median) * scene.took_s
        evidence = (f"system_sample.{column}", *facts)
        against = ("pressure is of the whole host: whose tasks waited is not known",)
        yield scene.cause(f"{resource}_pressure", sentence, effects, found.chosen, evidence, against)


def _memory(scene: Scene) -> Iterator[Cause]:
    swapped = scene.standing("system_sample", "swap_in_bytes", SWAP_LEAST)
    words = [f"{swapped.typical / 1e6:.3g} MB/s came back from swap"] if swapped else []
    found = list(_pressure(scene, "memory", "memory", words))
    yield from found
    if swapped and not found:
        against = ("no task is known to have waited for it",)
        yield scene.cause(
            "memory_pressure", words[0], None, swapped.chosen, ("swap: system_sample.swap_in_bytes",), against
        )


def _run_queue(scene: Scene) -> list[str]:
    found = scene.standing("system_sample", "tasks_running_count", 2.0)
    count = scene.seen.greatest("system_sample", "cpu_count", scene.intervals)
    cpus = "" if np.isnan(count).all() else f" on {np.nanmax(count):.0f} CPUs"
    return [f"{found.typical:.0f} tasks were ready to run{cpus}; {found.median:.0f} is usual"] if found else []


def _slowest_disk(scene: Scene) -> list[str]:
    """What a read or write of a disk took, where that stands out."""
    facts = []
    for what, seconds, count in (("read", "read_seconds", "reads_count"), ("write", "write_seconds", "writes_count")):
        both = [*scene.intervals, *scene.usual_intervals]
        took, done = (scene.seen.greatest("device_sample", name, both) for name in (seconds, count))
        each_s = np.where(done > 0, took / np.where(done > 0, done, 1.0), np.nan)
        found = scene.compared(each_s[: len(scene.moments)], each_s[len(scene.moments) :], 0.005)
        if found:
            facts.append(f"a {what} took {1000 * found.typical:.3g} ms; {1000 * found.median:.3g} ms is usual")
    return facts


# Which phase --------------------------------------------------------------------------------------------------------


def prefill_s(row: dict[str, Any]) -> float | None:
    """Seconds from the end of the queue to the first token; None where the source does not say."""
    if row.get("prefill_seconds") is not None:
        return float(row["prefill_seconds"])
    if row.get("time_to_first_token_seconds") is None:
        return None
    return max(float(row["time_to_first_token_seconds"]) - float(row.get("queue_seconds") or 0.0), 0.0)


def decode_s(row: dict[str, Any]) -> float | None:
    """Seconds from the first token to the last; None where the source does not say."""
    if row.get("decode_seconds") is not None:
        return float(row["decode_seconds"])
    if row.get("time_to_first_token_seconds") is None or row.get("duration_seconds") is None:
        return None
    return max(float(row["duration_seconds"]) - float(row["time_to_first_token_seconds"]), 0.0)


def _per_token(row: dict[str, Any]) -> float | None:
    taken = decode_s(row)
    return taken / max((row.get("output_tokens") or 0) - 1, 1) if taken is not None else None


def _phases(scene: Scene) -> Iterator[Cause]:
    """Which phase got longer by what the requests themselves or the server say, where nothing else stands out."""
    values, usual = scene.phase(prefill_s)
    if (chosen := values > usual).any() and (facts := _cached(scene)):
        words = f"the prompt took {np.median(values[chosen]):.3g} s; {np.median(usual[chosen]):.3g} s is usual"
        yield scene.cause("prefill", words, values - usual, chosen, facts)
    values, usual = scene.phase(_per_token)
    if (chosen := values > usual).any() and (facts := _beside(scene)):
        tokens = np.array([max((one.row.get("output_tokens") or 0) - 1, 1) for one in scene.moments])
        each, of_usual = 1000 * np.median(values[chosen]), 1000 * np.median(usual[chosen])
        words = f"each token after the first took {each:.3g} ms; {of_usual:.3g} ms is usual"
        yield scene.cause("decode", words, (values - usual) * tokens, chosen, facts)


def _cached(scene: Scene) -> list[str]:
    """That less of the prompt came from the cache than usual, where it did."""

    def share(row: dict[str, Any]) -> float:
        known = row.get("cached_input_tokens") is not None and row.get("input_tokens")
        return row["cached_input_tokens"] / row["input_tokens"] if known else np.nan

    of_moments, usual = (np.array([share(one.row) for one in some]) for some in (scene.moments, scene.usual))
    if np.isnan(of_moments).all() or np.isnan(usual).all():
        return []
    now, before = float(np.nanmedian(of_moments)), float(np.nanmedian(usual))
    if before - now < SHARE_LEAST:
        return []
    return [f"{_percent(now)} of the prompt came from the cache; {_percent(before)} is usual"]


def _beside(scene: Scene) -> list[str]:
    found = scene.standing("server_sample", "requests_running_count", 2.0)
    return [f"{found.typical:.0f} requests ran at once; {found.median:.0f} is usual"] if found else []


FINDERS: Sequence[Callable[[Scene], Iterator[Cause]]] = (
    _queueing,
    _clocks,
    _other_process,
    _host,
    _kv_pressure,
    _xids,
    _pcie_replay,
    _leak,
)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
