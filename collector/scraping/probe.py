"""Inference servers as a probe: each is asked by a thread of its own, and no tick waits for any of them.

At every fifth second each thread that is back is handed the time and asks its server; what it brings is told at the
next tick that finds it, with the time at which it was asked. A server that hangs has a thread that hangs, until the
deadline, and nothing else.
"""

import http.client
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import msgspec

from collector.clock import Now
from collector.probe import Condition, CounterEpoch, Row, Turn
from collector.scraping.credentials import CredentialsError, headers_of
from collector.scraping.exposition_text import Histogram, Scrape, Series, UnknownServerError, parse_scrape
from store.events import SERVER_SAMPLE, WARM_SECONDS, AbsenceReason, Event

logger = logging.getLogger(__name__)

TIME_LIMIT_S = 4.0
BYTES_MAX = 8_000_000
COUNTERS = frozenset(field.name for field in SERVER_SAMPLE.fields if field.instrument == "counter")
WHOLE = frozenset(field.name for field in SERVER_SAMPLE.fields if field.type in ("int32", "int64"))


class ScrapeTarget(msgspec.Struct, frozen=True):
    """A server to scrape: its URL, the name of its service, and the files with what it wants to be shown."""

    url: str
    service: str | None = None
    token_file: str | None = None
    headers_file: str | None = None


class ScrapeError(Exception):
    """Why a server told nothing, as a phrase."""


def fetch(target: ScrapeTarget, *, time_limit_s: float = TIME_LIMIT_S) -> str:
    """What a server tells. A redirection is not followed: what it is shown is shown to it alone.

    Raises:
        ScrapeError: It cannot be had, or not in time.
    """
    parts = urlsplit(target.url)
    maker = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = maker(parts.hostname or "", parts.port, timeout=time_limit_s)
    path = (parts.path or "/metrics") + (f"?{parts.query}" if parts.query else "")
    try:
        shown = headers_of(target.token_file, target.headers_file)
        connection.request("GET", path, headers={"Accept": "text/plain", **shown})
        response = connection.getresponse()
        if response.status != http.client.OK:
            raise ScrapeError(f"it answered {path} with {response.status}")
        return _read(response, monotonic() + time_limit_s).decode()
    except CredentialsError as error:
        raise ScrapeError(str(error)) from None
    except TimeoutError:
        raise ScrapeError(f"it did not answer within {time_limit_s:g} s") from None
    except (OSError, http.client.HTTPException) as error:
        raise ScrapeError(str(error).lower()) from None
    except UnicodeDecodeError:
        raise ScrapeError("it does not speak Prometheus' text format") from None
    finally:
        connection.close()


def _read(response: http.client.HTTPResponse, until_s: float) -> bytes:
    """The body, bounded in bytes and as a whole in time: a server may send a byte now and then for ever."""
    body = bytearray()
    while part := response.read1(65_536):
        body += part
        if len(body) > BYTES_MAX:
            raise ScrapeError(f"it said more than {BYTES_MAX} bytes")
        if monotonic() > until_s:
            raise TimeoutError
    return bytes(body)


class Server:
    """One server, and what it said before.

    Args:
        target: Which one.
        get: Gives what it tells.
    """

    def __init__(self, target: ScrapeTarget, get: Callable[[ScrapeTarget], str] = fetch) -> None:
        self._target = target
        self._get = get
        parts = urlsplit(target.url)
        path = "" if parts.path in ("", "/", "/metrics") else parts.path
        self.address = f"{parts.netloc.rpartition('@')[2]}{path}"
        self.problem: str | None = None
        self._epochs: dict[Series, CounterEpoch] = {}
        self._before: dict[tuple[Series, str], Histogram] = {}
        self._started_s: float | None = None

    def read(self, now: Now) -> list[Event]:
        """Its rows, one a model and engine; where it tells nothing, rows that say so."""
        try:
            scrape = parse_scrape(self._get(self._target))
        except ScrapeError as error:
            return self._down(now, str(error), AbsenceReason.LOST)
        except UnknownServerError:
            return self._down(now, "its metrics are of no inference server that is known")
        except (ValueError, KeyError):
            return self._down(now, "it does not speak Prometheus' text format")
        self.problem = None
        if scrape.started_s != self._started_s:
            self._forget()
        self._started_s = scrape.started_s
        return [self._event(scrape, series, now) for series in scrape.values]

    def _forget(self) -> None:
        for epoch in self._epochs.values():
            epoch.end()
        self._before.clear()

    def _event(self, scrape: Scrape, series: Series, now: Now) -> Event:
        values = {column: round(value) if column in WHOLE else value for column, value in scrape.values[series].items()}
        epoch = self._epochs.setdefault(series, CounterEpoch(COUNTERS))
        current = epoch.follow(values, now)
        if epoch.has_restarted:
            self._before = {key: before for key, before in self._before.items() if key[0] != series}
        row = Row()
        row.put(dict.fromkeys(scrape.asked, AbsenceReason.NOT_SUPPORTED))
        row.put(values)
        row.put(self._grown(series, scrape.histograms.get(series, {})))
        row.put({"server_kind": scrape.server_kind, "counter_epoch": current, "up": True, **self._whose(series)})
        return Event("server_sample", now.wall_us, row.event_values())

    def _grown(self, series: Series, histograms: Mapping[str, Histogram]) -> dict[str, Any]:
        """What came into each histogram since the row before; nothing is known of it in the first."""
        grown: dict[str, Any] = {}
        for column, histogram in histograms.items():
            before = self._before.get((series, column))
            since = histogram.since(before) if before else None
            self._before[series, column] = histogram
            grown[column] = since.as_json() if since and since.count else AbsenceReason.NO_DATA
        return grown

    def _down(self, now: Now, why: str, reason: AbsenceReason = AbsenceReason.NO_DATA) -> list[Event]:
        """Rows in which all is absent: the server is lost, or what it said was nothing of the kind."""
        self.problem = why
        absence = {"*": reason}
        return [
            Event("server_sample", now.wall_us, {"up": False, "absence": absence, **self._whose(series)})
            for series in self._epochs or [(None, None)]
        ]

    def _whose(self, series: Series) -> dict[str, Any]:
        model, engine = series
        known = {"service": self._target.service, "model": model, "engine": engine}
        given = {name: value for name, value in known.items() if value is not None}
        return {"server_address": self.address, "interval_seconds": WARM_SECONDS, **given}


class _Scraper:
    """A server and the thread that asks it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.is_back = threading.Event()
        self.is_back.set()
        self.brought: SimpleQueue[Event] = SimpleQueue()
        self._inbox: SimpleQueue[Now | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"scrape-{server.address}", daemon=True)
        self._thread.start()

    def ask(self, now: Now | None) -> None:
        """Have the server asked, unless its thread is still on its way; with None the thread ends."""
        if now is None or self.is_back.is_set():
            self.is_back.clear()
            self._inbox.put(now)

    def _run(self) -> None:
        while (now := self._inbox.get()) is not None:
            try:
                for event in self.server.read(now):
                    self.brought.put(event)
            except Exception:  # whatever a server says, the next time it may say something else
                logger.exception("scraping %s failed", self.server.address)
            self.is_back.set()


class ScrapeProbe:
    """All servers of the settings' scrape list.

    Args:
        targets: The servers.
        interval_s: Time between two ticks.
    """

    name = "scrape"
    condition = Condition.ANSWERS

    def __init__(self, targets: Sequence[ScrapeTarget], *, interval_s: float) -> None:
        self.scrapers = [_Scraper(Server(target)) for target in targets]
        self._turn = Turn(WARM_SECONDS, interval_s)

    def read(self, now: Now) -> list[Event]:
        if self._turn.has_come(now):
            for scraper in self.scrapers:
                scraper.ask(now)
        return [scraper.brought.get_nowait() for scraper in self.scrapers for _ in range(scraper.brought.qsize())]

    def status(self) -> str:
        problems = [f"{one.server.address}: {one.server.problem}" for one in self.scrapers if one.server.problem]
        watched = f"scraping {len(self.scrapers)} servers"
        return f"{watched}; {'; '.join(problems)}" if problems else watched

    def close(self) -> None:
        """Let the threads end; one that waits for a server ends with the process."""
        for scraper in self.scrapers:
            scraper.ask(None)
