"""What is being recorded: kinds, ages, size, what is absent and why."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from query.present.live import LiveState, live_state, probe_words
from query.reading.local_source import LocalSource
from store.events import KINDS
from store.ledger import lock_holder
from store.repair.quarantine import SetAside, quarantined

PROBES = ("host", "devices", "gpu")


@dataclass(frozen=True, slots=True)
class KindStatus:
    """How much of one kind there is; ages and times are None where there is nothing."""

    kind: str
    event_count: int
    first_at: datetime | None
    newest_at: datetime | None
    newest_age_s: float | None
    segment_count: int
    sealed_bytes: int


@dataclass(frozen=True, slots=True)
class LedgerStatus:
    """The state of a ledger.

    Args:
        folder: Where it is.
        ledger_id: Its identity.
        size_bytes: Bytes on disk.
        collector_pid: Process that records into it now; None where none does.
        collector_started_at: When that began, ISO 8601.
        newest_age_s: Age of the newest sample of any kind that is sampled; None where there is none.
        is_recording: Whether a collector runs and its samples are fresh.
        probes: What each probe watches, or why it sees nothing, in the recorder's words.
        kinds: Every declared kind.
        absent: Columns that are NULL now: what to reason.
        set_aside: Files in quarantine.
    """

    folder: Path
    ledger_id: str
    size_bytes: int
    collector_pid: int | None
    collector_started_at: str | None
    newest_age_s: float | None
    is_recording: bool
    probes: Mapping[str, str]
    kinds: tuple[KindStatus, ...]
    absent: Mapping[str, str]
    set_aside: tuple[SetAside, ...] = ()


def ledger_status(source: LocalSource, *, now: datetime, live: LiveState | None = None) -> LedgerStatus:
    """The state of the ledger of this host.

    Args:
        source: Where it is.
        now: The time of the question.
        live: The machine now, where that has been asked already.
    """
    with source.reader() as reader:
        extents = reader.extents()
        ledger_id, size_bytes = reader.ledger_id, reader.size_bytes
    kinds = []
    for kind, extent in extents.items():
        newest_us = extent.last_observed_at_us
        kinds.append(
            KindStatus(
                kind=kind,
                event_count=extent.event_count,
                first_at=_local(extent.first_observed_at_us, now),
                newest_at=_local(newest_us, now),
                newest_age_s=None if newest_us is None else max(0.0, now.timestamp() - newest_us / 1e6),
                segment_count=extent.segment_count,
                sealed_bytes=extent.sealed_bytes,
            )
        )
    holder = lock_holder(source.folder)
    live = live or live_state(source, now=now)
    ages = [
        one.newest_age_s for one in kinds if KINDS[one.kind].expected_every_seconds and one.newest_age_s is not None
    ]
    pid, started_at = (holder or {}).get("pid"), (holder or {}).get("started_at")
    return LedgerStatus(
        folder=source.folder,
        ledger_id=ledger_id,
        size_bytes=size_bytes,
        collector_pid=pid if isinstance(pid, int) else None,
        collector_started_at=started_at if isinstance(started_at, str) else None,
        newest_age_s=min(ages, default=None),
        is_recording=holder is not None and not live.is_stale,
        probes={probe: words for probe in PROBES if (words := probe_words(source, probe))},
        kinds=tuple(kinds),
        absent=_absent(live),
        set_aside=quarantined(source.folder),
    )


def _absent(live: LiveState) -> dict[str, str]:
    absent = {f"gpu {gpu.index} {column}": reason for gpu in live.gpus for column, reason in gpu.absence.items()}
    return absent | {f"host {column}": reason for host in live.hosts for column, reason in host.absence.items()}


def _local(time_us: int | None, now: datetime) -> datetime | None:
    return None if time_us is None else datetime.fromtimestamp(time_us / 1e6, now.tzinfo)
