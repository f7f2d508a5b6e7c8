"""What happened: GPU events, the recorder's own life and notes in one order of time, runs of the same folded.

A GPU that is throttled a hundred times an hour is one line with a count, its first time and its last.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from query.engine import Engine, Source, in_window, sql_text
from query.errors import UnknownEventTypeError
from query.windows import Window
from store.errors import did_you_mean

READ_MAX = 5_000  # of each kind: the newest
FOLD_WITHIN = timedelta(minutes=10)
SEVERITIES = ("info", "warning", "critical")
_COLUMNS: Mapping[str, Sequence[str]] = {
    "gpu_event": ("event", "gpu_index", "severity", "xid", "throttle_reason", "duration_seconds", "message"),
    "ledger_event": ("event", "probe", "duration_seconds", "message"),
    "annotation": ("text as message",),
}
_LEDGER_WARNINGS = frozenset(
    ("gap", "clock_step", "probe_failed", "probe_stalled", "quarantine", "disk_low", "disk_full")
)


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that happened, or a run of the same.

    Args:
        seq: Number of the newest of them in the ledger.
        at: When it happened first.
        last_at: And last.
        n: How often.
        kind: gpu_event, ledger_event or annotation.
        event: What it was: xid, throttle_begin, gap, start; `annotation` for a note.
        severity: info, warning or critical.
        gpu: NVML index, where it is about one.
        detail: The Xid, the reason of a throttle, the probe.
        duration_seconds: How long it had lasted, added up; None where that is not said.
        message: The source's own words, of the newest: text from outside.
    """

    seq: int
    at: datetime
    last_at: datetime
    n: int
    kind: str
    event: str
    severity: str
    gpu: int | None
    detail: str | None
    duration_seconds: float | None
    message: str | None


@dataclass(frozen=True, slots=True)
class Timeline:
    """What happened in a window, the newest first.

    Args:
        window: As it was resolved.
        happenings: The newest of them.
        n: How many there are, folded.
        event_count: How many events that was.
        is_cut: Whether a kind had more events than are read.
    """

    window: Window
    happenings: tuple[Happening, ...]
    n: int
    event_count: int
    is_cut: bool


def timeline(
    source: Source,
    window: Window,
    *,
    types: Sequence[str] = (),
    severity: str = "info",
    gpus: Sequence[int] = (),
    before_seq: int | None = None,
    top: int = 20,
) -> Timeline:
    """What happened in `window`.

    Args:
        source: Where the events are.
        window: The time asked about.
        types: Only these, such as `xid`, `gap`, `annotation`; all where empty.
        severity: Only these and worse.
        gpus: Only about these GPUs; then without what is about none.
        before_seq: Only what the ledger holds before this number: how one goes on reading.
        top: At most so many.

    Raises:
        UnknownEventTypeError: There is no such type of event.
    """
    _check(types)
    found: list[Happening] = []
    is_cut = False
    with source.engine(tuple(_COLUMNS), start_us=window.start_us, end_us=window.end_us) as engine:
        for kind in _COLUMNS:
            rows = _rows(engine, kind, window, before_seq)
            is_cut |= len(rows) == READ_MAX
            found += [_happening(kind, row, window) for row in rows]
    wanted = [one for one in found if _is_wanted(one, types, severity, gpus)]
    folded = sorted(_folded(wanted), key=lambda one: (one.last_at, one.seq), reverse=True)
    return Timeline(window, tuple(folded[:top]), len(folded), len(wanted), is_cut)


def event_types() -> tuple[str, ...]:
    """The types that can be asked for, as they are declared."""
    from store.events import KINDS  # noqa: PLC0415 - only who asks for types

    words = [KINDS[kind].by_name["event"].meaning.rstrip(".") for kind in ("gpu_event", "ledger_event")]
    named = (part.partition("(")[0].strip() for text in words for part in text.replace(" or ", ", ").split(","))
    return tuple(dict.fromkeys((*(name for name in named if name.isidentifier()), "annotation")))


def _check(types: Sequence[str]) -> None:
    for name in types:
        if name not in event_types():
            hint = did_you_mean(name, event_types(), f"there are {', '.join(event_types())}")
            raise UnknownEventTypeError(f"There is no type of event {name!r}", hint)


def _rows(engine: Engine, kind: str, window: Window, before_seq: int | None) -> list[dict[str, Any]]:
    text = sql_text("told_events").format(
        columns=", ".join(_COLUMNS[kind]),
        relation=engine.relation(kind),
        in_window=in_window(engine),
        filter=f"seq < {engine.parameter('seq', 'int')}",
        top=engine.parameter("top", "int"),
    )
    edges = {"start": window.start_us, "end": window.end_us}
    found: list[dict[str, Any]] = engine.query(text, **edges, seq=before_seq or 2**62, top=READ_MAX).to_pylist()
    return found


def _happening(kind: str, row: Mapping[str, Any], window: Window) -> Happening:
    event = row.get("event") or kind
    at = row["observed_at"].astimezone(window.start.tzinfo)
    detail = f"Xid {row['xid']}" if row.get("xid") is not None else row.get("throttle_reason") or row.get("probe")
    default = "warning" if kind == "ledger_event" and event in _LEDGER_WARNINGS else "info"
    return Happening(
        seq=row["seq"],
        at=at,
        last_at=at,
        n=1,
        kind=kind,
        event=event,
        severity=row.get("severity") or default,
        gpu=row.get("gpu_index"),
        detail=detail,
        duration_seconds=row.get("duration_seconds"),
        message=row.get("message"),
    )


def _is_wanted(one: Happening, types: Sequence[str], severity: str, gpus: Sequence[int]) -> bool:
    rank = SEVERITIES.index(one.severity) if one.severity in SEVERITIES else len(SEVERITIES)
    return (not types or one.event in types) and rank >= SEVERITIES.index(severity) and (not gpus or one.gpu in gpus)


def _folded(found: Iterable[Happening]) -> Iterator[Happening]:
    """Runs of the same thing as one each. A note is never folded: each says something else."""
    open_runs: dict[tuple[Any, ...], Happening] = {}
    for one in sorted(found, key=lambda one: (one.at, one.seq)):
        key = (one.seq,) if one.kind == "annotation" else (one.kind, one.event, one.gpu, one.detail, one.severity)
        run = open_runs.get(key)
        if run is not None and one.at - run.last_at <= FOLD_WITHIN:
            open_runs[key] = _joined(run, one)
            continue
        if run is not None:
            yield run
        open_runs[key] = one
    yield from open_runs.values()


def _joined(run: Happening, one: Happening) -> Happening:
    lasted = [each for each in (run.duration_seconds, one.duration_seconds) if each is not None]
    return replace(
        run,
        seq=max(run.seq, one.seq),
        last_at=one.last_at,
        n=run.n + 1,
        duration_seconds=sum(lasted) if lasted else None,
        message=one.message or run.message,
    )
