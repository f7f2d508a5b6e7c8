"""Requests out of files: what `vllm bench serve` saved, and tables of requests as Parquet or CSV.

A row's identity is the digest of its file and its place in it. What the ledger has under that identity is not stored
again, so a file can be given twice, and one that broke off in the middle is completed.
"""

import csv
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from query.ad_hoc import run_sql
from query.reading.local_source import LocalSource
from query.windows import zone_info
from store.errors import UsageError, did_you_mean
from store.events import REQUEST, Event
from store.ledger import Ledger
from store.sent_events import Receipt, SentBatch

SOURCE = "file"
BATCH_EVENTS = 5_000
ROWS_MAX = 10_000_000
GIVEN_BY_US = frozenset({"source", "source_event_id", "attributes"})
KNOWN = {one.name: one.type for one in REQUEST.fields if one.name not in GIVEN_BY_US} | {"observed_at": "time"}
TIMES = frozenset({"observed_at", "started_at", "ended_at", "duration_seconds"})
BENCH_LISTS = ("input_lens", "output_lens", "ttfts", "itls", "start_times", "errors")
WHOLE_BELOW = {"int32": 2**31, "int64": 2**63}
STATUSES = {name: name for name in ("ok", "error", "cancelled", "timeout", "rejected")}

Numbered = tuple[int, Mapping[str, Any]]
"""A row's number, from 1, and its values by column."""


class RefusedRowError(Exception):
    """Why a row is no request, as a phrase."""


@dataclass
class Imported:
    """What became of a file's rows: how many are new, how many were there already, and why others were refused."""

    path: Path
    stored: int = 0
    known: int = 0
    refused: list[str] = field(default_factory=list)


def import_file(source: LocalSource, path: Path, *, time_zone: str, service: str | None, dry_run: bool) -> Imported:
    """Store the requests of a file that the ledger does not have.

    Args:
        source: The ledger.
        path: A .json of `vllm bench serve`, a .parquet or a .csv.
        time_zone: Of times that bear none.
        service: Which service answered, where the file does not say.
        dry_run: Only look.

    Raises:
        UsageError: It cannot be read, or is nothing of the kind.
        LedgerUnusableError: The ledger takes no events.
    """
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:32]
        rows = _rows(path, time_zone)
        known = _known_ids(source, digest)
        done = Imported(path)
        events = _events(rows, digest, known, done, time_zone, service)
        while batch := list(islice(events, BATCH_EVENTS)):
            receipt = Receipt(len(batch), 0) if dry_run else _appended(source.folder, batch)
            done.stored += receipt.stored
            done.known += receipt.repeated
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{path} cannot be read ({reason.lower()})", "nothing more of it was stored") from None
    return done


def _appended(folder: Path, batch: Sequence[Event]) -> Receipt:
    """Store a batch as that of any source: what the ledger knows, as from an import beside this one, is not stored."""
    with Ledger(folder) as ledger:
        return ledger.append_sent([SentBatch(batch)])[0]


def _known_ids(source: LocalSource, digest: str) -> set[str]:
    """What the whole history has of the file: the ledger's own keys reach back some 250,000 events."""
    query = (
        f"select source_event_id from request where source = '{SOURCE}' and starts_with(source_event_id, '{digest}-')"
    )
    return set(run_sql(source, query, rows_max=ROWS_MAX, time_limit_s=600).table["source_event_id"].to_pylist())


def _events(
    rows: Iterable[Numbered], digest: str, known: set[str], done: Imported, time_zone: str, service: str | None
) -> Iterator[Event]:
    for number, row in rows:
        identity = f"{digest}-{number}"
        if identity in known:
            done.known += 1
            continue
        try:
            values = {name: _value(name, value, time_zone) for name, value in row.items() if value not in (None, "")}
            timed = _timed(values)
        except RefusedRowError as error:
            done.refused.append(f"{done.path} row {number}: {error}")
            continue
        observed_us = timed.pop("observed_at")
        own = {"source": SOURCE, "source_event_id": identity}
        yield Event("request", observed_us, {**({"service": service} if service else {}), **timed, **own})


def _timed(values: dict[str, Any]) -> dict[str, Any]:
    """The row with the times that follow from those it has."""
    started, ended, duration_s = (values.get(name) for name in ("started_at", "ended_at", "duration_seconds"))
    if ended is None and started is not None and duration_s is not None:
        ended = started + round(duration_s * 1e6)
    if started is None and ended is not None and duration_s is not None:
        started = ended - round(duration_s * 1e6)
    if duration_s is None and started is not None and ended is not None:
        duration_s = (ended - started) / 1e6
    observed = values.get("observed_at", ended)
    if (observed is None or duration_s is None) and set(values) & TIMES == {"observed_at"}:
        raise RefusedRowError(
            "observed_at says when it was noted, not when it ran: add two of started_at, ended_at and duration_seconds"
        )
    if observed is None or duration_s is None:
        raise RefusedRowError("it does not say when: give two of started_at, ended_at and duration_seconds")
    if duration_s < 0:
        raise RefusedRowError("it ended before it started")
    told = {"started_at": started, "ended_at": ended, "duration_seconds": duration_s, "observed_at": observed}
    return {"status": "ok", **values, **{name: value for name, value in told.items() if value is not None}}


def _value(name: str, value: Any, time_zone: str) -> Any:
    kind = KNOWN[name]
    try:
        if kind == "time":
            return _microseconds(value, time_zone)
        if kind in WHOLE_BELOW:
            return _whole(value, WHOLE_BELOW[kind])
        if kind == "float64":
            return _measure(value)
        if kind == "bool":
            return value if isinstance(value, bool) else {"true": True, "false": False}[str(value).lower()]
        if kind == "strings":
            return [str(one) for one in (value.split() if isinstance(value, str) else value)]
        return STATUSES[value] if name == "status" else str(value)[:200]
    except (ValueError, TypeError, KeyError, OverflowError):
        raise RefusedRowError(f"{name} cannot be {str(value)[:50]!r}") from None


def _whole(value: Any, bound: int) -> int:
    number = int(value)
    if number != float(value) or not 0 <= number < bound:
        raise ValueError
    return number


def _measure(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number) or number < 0:
        raise ValueError
    return number


def _microseconds(value: Any, time_zone: str) -> int:
    """Microseconds since the epoch: as a number, or as a time in ISO 8601."""
    if isinstance(value, int) or (isinstance(value, str) and value.isdecimal()):
        return _whole(value, 2**53)
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=zone_info(time_zone))
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _rows(path: Path, time_zone: str) -> Iterator[Numbered]:
    if path.suffix == ".json":
        return _bench_rows(path, time_zone)
    if path.suffix == ".csv":
        return enumerate(_csv_rows(path), 1)
    if path.suffix == ".parquet":
        return enumerate(_parquet_rows(path), 1)
    raise UsageError(f"{path} is no file of requests", "give one that ends in .json, .csv or .parquet")


def _check_columns(path: Path, names: Iterable[str | None]) -> None:
    for name in names:
        if name not in KNOWN:
            hint = did_you_mean(str(name), KNOWN, "rename it to a column of request, or leave it out")
            raise UsageError(f"{path} has a column {name!r} that requests do not have", hint)


def _csv_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, restkey="(more values than columns)")
        _check_columns(path, reader.fieldnames or ())
        for row in reader:
            yield {name: value for name, value in row.items() if name in KNOWN}


def _parquet_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            _check_columns(path, file.schema_arrow.names)
            for batch in file.iter_batches(BATCH_EVENTS):
                yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise UsageError(f"{path} cannot be read ({str(error).splitlines()[0]})", "is it a Parquet file?") from None


def _bench_rows(path: Path, time_zone: str) -> Iterator[Numbered]:
    """The requests of a `vllm bench serve --save-result --save-detailed`.

    Its `start_times` are of a clock of their own; `date`, the local time at which the run ended, and `duration` tell
    when the first of them was. A request's duration is its time to first token and the times between tokens.
    """
    try:
        saved = json.loads(path.read_bytes())
        lists = [saved[name] for name in BENCH_LISTS]
        ended = datetime.strptime(saved["date"], "%Y%m%d-%H%M%S").replace(tzinfo=zone_info(time_zone))
        first_us = round((ended.timestamp() - float(saved["duration"])) * 1e6)
        first_s = min(saved["start_times"], default=0.0)
        common = {"operation": "completion", "response_model": saved.get("model_id"), "provider": saved.get("backend")}
        requests = [{**common, **_bench_row(first_us, first_s, *one)} for one in zip(*lists, strict=True)]
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(
            f"{path} is no detailed result of 'vllm bench serve' ({type(error).__name__}: {str(error)[:80]})",
            "make one with --save-result --save-detailed, of a vLLM that saves start_times",
        ) from None
    yield from enumerate(requests, 1)


def _bench_row(
    first_us: int,
    first_s: float,
    tokens_in: int,
    tokens_out: int,
    first_token_s: float,
    between_s: list[float],
    started_s: float,
    error: str,
) -> dict[str, Any]:
    if error:
        outcome: dict[str, Any] = {"status": "error", "error_type": "bench"}
    else:
        per_token_s = sum(between_s) / (tokens_out - 1) if tokens_out > 1 else None
        outcome = {"time_to_first_token_seconds": first_token_s, "time_per_output_token_seconds": per_token_s}
    return {
        **outcome,
        "stream": True,
        "started_at": first_us + round((started_s - first_s) * 1e6),
        "duration_seconds": first_token_s + sum(between_s),
        "input_tokens": tokens_in,
        "output_tokens": tokens_out,
    }
