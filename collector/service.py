"""The collector as a process: sampler thread, sealing child, HTTP face, signals."""

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from collector.beginning import adoption_command, begin_recording
from collector.clock import Clock, Now, SystemClock
from collector.dcgm import DcgmCollector
from collector.demo import DemoProbe
from collector.exposition import LedgerFigures, LiveCollector, Received, UpkeepFigures, expose
from collector.gpu.driver_library import LIBRARY
from collector.gpu.probe import GpuProbe
from collector.guarded import GuardedProbe
from collector.host.devices import DeviceProbe
from collector.host.probe import HostProbe
from collector.host.sensors import read_sensors
from collector.ingest.face import TOKEN_NAME, Door, ingest_routes, is_here
from collector.ingest.intake import Intake
from collector.ingest.tally import NewestServers, Tally
from collector.listening import bound_socket
from collector.notifying import ServiceManager
from collector.pausing import PausableProbe
from collector.probe import Condition, Probe
from collector.recordings.replay import ReplayProbe
from collector.renewing import Renewal, become_anew
from collector.sampler import Sampler
from collector.scraping.probe import ScrapeProbe, ScrapeTarget
from store.events import stale_after_s
from store.ledger import Ledger
from store.repair.quarantine import here_and_now, quarantined_count
from store.snapshot import LedgerReader
from store.space import SpaceLimits, SpaceWatch, free_bytes
from store.tokens import token_in
from store.upkeep.settings import UpkeepSettings

logger = logging.getLogger(__name__)

SEAL_TIME_LIMIT_S = 600.0
LAST_TICK_TIME_LIMIT_S = 10.0  # /proc or a disk that hangs; what may hang in a driver is guarded


class CollectorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a collector needs to know. Units as in the names; see `gpuledger.settings` for their defaults."""

    ledger_folder: str
    host: str
    port: int
    sample_interval_s: float
    seal_interval_s: float
    source: str
    demo_seed: int
    replay_loop: bool = False
    log_level: str
    version: str
    low_space_bytes: int = SpaceLimits().low_bytes
    read_only_space_bytes: int = SpaceLimits().read_only_bytes
    upkeep: UpkeepSettings = UpkeepSettings()
    scrape: tuple[ScrapeTarget, ...] = ()
    dcgm: bool = False

    def recorded_by(self) -> dict[str, Any]:
        """What decides how the recording looks, for its start event; no folder, address or token among it."""
        retention = {f"retention.{name}": value for name, value in msgspec.to_builtins(self.upkeep.retention).items()}
        return {
            "collector.sample_interval_s": self.sample_interval_s,
            "collector.seal_interval_s": self.seal_interval_s,
            "collector.source": self.source.partition(":")[0],
            **retention,
        }


class Sealer:
    """Starts the child that seals, compacts and retains when it is due, one at a time, and reaps it.

    Args:
        folder: The ledger's folder.
        interval_s: Time between two sealings.
        upkeep: What the child is told.
        first: A command to run at once, before the first of them.
    """

    def __init__(self, folder: Path, interval_s: float, upkeep: UpkeepSettings, first: Sequence[str] = ()) -> None:
        self._first = first
        told = msgspec.json.encode(upkeep).decode()
        self._command = [sys.executable, "-P", "-m", "store", str(folder), "--settings", told]
        self._interval_s = interval_s
        self._started_s: float | None = None
        self.figures = UpkeepFigures()
        self._child: subprocess.Popen[bytes] | None = None

    def look(self, now: Now) -> None:
        """Reap a child that ended, and start one when it is time. Never waits."""
        if self._started_s is None:
            self._started_s = now.monotonic_s  # the first one is due an interval after the start
        running_s = now.monotonic_s - self._started_s
        if self._child and self._child.poll() is None:
            if running_s > SEAL_TIME_LIMIT_S:
                logger.error("sealing took more than %.0f s and was ended", SEAL_TIME_LIMIT_S)
                self._child.kill()
            return
        if self._child:
            self._reap(self._child, running_s)
        self._child = None
        if running_s >= self._interval_s or self._first:
            self._started_s = now.monotonic_s
            command, self._first = self._first or self._command, ()
            try:
                self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 - our own module
            except OSError as error:  # no process or memory left: recording goes on, the tail is kept
                self.figures = replace(self.figures, failures=self.figures.failures + 1)
                logger.error("sealing could not be started (%s); it is tried again", error)  # noqa: TRY400

    def _reap(self, child: "subprocess.Popen[bytes]", took_s: float) -> None:
        before, has_failed = self.figures, bool(child.returncode)
        self.figures = UpkeepFigures(before.runs + 1, before.failures + has_failed, before.seconds + took_s)
        if has_failed:
            logger.error("sealing failed with exit code %d; nothing is lost, and it is tried again", child.returncode)

    def close(self) -> None:
        """Let a running child finish; killing it would lose nothing but its work."""
        if self._child:
            try:
                self._child.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()


class Health:
    """Whether this collector does what it is for.

    Args:
        sampler: The sampler to judge.
        clock: What time it is.
    """

    def __init__(self, sampler: Sampler, clock: Clock) -> None:
        self._sampler = sampler
        self._clock = clock
        self._started_s = clock.now().monotonic_s

    def stopped_because(self) -> str | None:
        """Why sampling counts as stopped; None when it goes on."""
        latest = self._sampler.latest
        since_s = latest.now.monotonic_s if latest.now else self._started_s
        age_s = self._clock.now().monotonic_s - since_s
        if age_s <= stale_after_s(self._sampler.interval_s):
            return None
        return (
            f"sampling has stopped: the newest tick is {age_s:.0f} s old, "
            f"one is due every {self._sampler.interval_s:g} s"
        )

    def not_ready_because(self) -> str | None:
        """Why the newest state is not in the ledger as a whole; None when it is."""
        latest = self._sampler.latest
        if stopped := self.stopped_because():
            return stopped
        if latest.now is None:
            return "no tick has been taken yet"
        return latest.problem or self._stalled_because()

    def _stalled_because(self) -> str | None:
        stalled = [probe for probe in self._sampler.probes if probe.condition is Condition.STALLED]
        return "; ".join(f"the {probe.name} probe is {probe.status()}" for probe in stalled) or None

    def answer(self, problem: str | None) -> JSONResponse:
        latest = self._sampler.latest
        body = {
            "status": "unavailable" if problem else "ok",
            "reason": problem,
            "ticks": latest.ticks,
            "missed_ticks": latest.missed_ticks,
            "probes": {probe.name: probe.status() for probe in self._sampler.probes},
        }
        return JSONResponse(body, status_code=503 if problem else 200)


@dataclass(frozen=True, slots=True)
class Exposed:
    """What /metrics exposes.

    Args:
        live: Our own families.
        dcgm: Those of dcgm-exporter.
        is_dcgm_usual: Whether they come with every scrape, not only with `?set=dcgm`.
    """

    live: LiveCollector
    dcgm: DcgmCollector
    is_dcgm_usual: bool = False

    def scraped(self, accept: str, sets: Sequence[str]) -> tuple[bytes, str]:
        more = [self.dcgm] if self.is_dcgm_usual or "dcgm" in sets else []
        return expose(self.live, *more, accept=accept)


def http_face(health: Health, metrics: Exposed, ingest: Sequence[Route] = ()) -> Starlette:
    """The collector's HTTP face: /metrics, /healthz, /readyz, and what takes events in."""

    async def serve_metrics(request: Request) -> Response:
        body, content_type = metrics.scraped(request.headers.get("accept", ""), request.query_params.getlist("set"))
        return Response(body, headers={"content-type": content_type})

    async def healthz(_: Request) -> Response:
        return health.answer(health.stopped_because())

    async def readyz(_: Request) -> Response:
        return health.answer(health.not_ready_because())

    own = [Route("/metrics", serve_metrics), Route("/healthz", healthz), Route("/readyz", readyz)]
    return Starlette(routes=[*own, *ingest])


def run(settings: CollectorSettings) -> int:
    """Record until SIGTERM or SIGINT. Returns the exit code.

    Raises:
        NotALedgerError, LedgerUnusableError, LedgerHeldError: The ledger cannot be recorded into.
        UsageError: The HTTP address cannot be listened on.
    """
    clock = SystemClock()
    folder = Path(settings.ledger_folder)
    listener = bound_socket(settings.host, settings.port, "collector.port")
    beginning = begin_recording(folder, here_and_now())
    limits = SpaceLimits(settings.low_space_bytes, settings.read_only_space_bytes)
    first = adoption_command(folder) if beginning.has_strays else ()
    sealer = Sealer(folder, settings.seal_interval_s, settings.upkeep, first)
    stop, told_to_end = threading.Event(), threading.Event()
    renewal = Renewal(stop)
    manager = ServiceManager()
    tally, servers = Tally(), NewestServers()

    def after_tick(now: Now) -> None:
        manager.ticked()
        sealer.look(now)
        servers.note(sampler.latest.events)
        if not sampler.latest.problem:
            renewal.look(sampler.latest.events)

    sampler = Sampler(
        ledger=beginning.ledger,
        probes=_probes(settings, folder, clock, renewal),
        clock=clock,
        interval_s=settings.sample_interval_s,
        version=settings.version,
        pid=os.getpid(),
        after_tick=after_tick,
        settings=settings.recorded_by(),
        space=SpaceWatch(limits, lambda: free_bytes(folder)),
    )
    health = Health(sampler, clock)
    received = Received(tally, lambda: servers.standing(clock.now().wall_us))
    metrics = _exposed(settings, folder, sampler, health, sealer, received)

    def end(*_: object) -> None:
        told_to_end.set()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    failures: list[BaseException] = []
    sampling = threading.Thread(target=_sample, args=(sampler, stop, failures), name="sampler", daemon=True)
    intake = Intake(lambda: Ledger(folder), SpaceWatch(limits, lambda: free_bytes(folder)))
    token = None if is_here(settings.host) else token_in(folder / TOKEN_NAME)
    serving = _serve(http_face(health, metrics, ingest_routes(Door(intake, token, tally, servers))), listener)
    sampling.start()
    logger.info("recording to %s; http://%s:%d/metrics", folder, settings.host, listener.getsockname()[1])
    stop.wait()
    sampling.join(LAST_TICK_TIME_LIMIT_S)
    serving.should_exit = True
    intake.close()
    sealer.close()
    has_ended = not sampling.is_alive()
    if has_ended:
        beginning.ledger.close()
    else:
        logger.warning("a probe hangs: this recording ends without its stop event")
    beginning.lock.close()
    if renewal.is_wanted and has_ended and not failures and not told_to_end.is_set():
        become_anew()
    return 1 if failures else 0


def _exposed(
    settings: CollectorSettings, folder: Path, sampler: Sampler, health: Health, sealer: Sealer, received: Received
) -> Exposed:
    def is_fresh() -> bool:
        return health.stopped_because() is None

    def size_bytes() -> int:
        with LedgerReader(folder) as reader:
            return reader.size_bytes

    figures = LedgerFigures(
        lambda: quarantined_count(folder), lambda: free_bytes(folder), size_bytes, lambda: sealer.figures
    )
    live = LiveCollector(lambda: sampler.latest, is_fresh, settings.version, figures, received)
    return Exposed(live, DcgmCollector(lambda: sampler.latest, is_fresh, socket.gethostname()), settings.dcgm)


def _probes(settings: CollectorSettings, folder: Path, clock: Clock, renewal: Renewal) -> list[Probe]:
    interval_s = settings.sample_interval_s
    machine: list[Probe] = [
        HostProbe(ledger_folder=folder, interval_s=interval_s, sensors=read_sensors),
        DeviceProbe(interval_s=interval_s),
        *([ScrapeProbe(settings.scrape, interval_s=interval_s)] if settings.scrape else []),
    ]
    kind, _, file = settings.source.partition(":")
    if kind == "demo":
        return [*machine, PausableProbe(DemoProbe(interval_s=interval_s, seed=settings.demo_seed), folder)]
    if kind == "replay":
        replayed = ReplayProbe(Path(file), interval_s=interval_s, is_looped=settings.replay_loop)
        return [*machine, PausableProbe(replayed, folder)]

    def gpu_probe(left_alone: Callable[[], Collection[str]]) -> PausableProbe:
        probe = GpuProbe(interval_s=interval_s, left_alone=left_alone, on_kept_library=renewal.consider)
        return PausableProbe(probe, folder)

    return [*machine, GuardedProbe(gpu_probe, clock=clock, interval_s=interval_s, call_of=LIBRARY.call_of)]


def _sample(sampler: Sampler, stop: threading.Event, failures: list[BaseException]) -> None:
    try:
        sampler.run(stop)
    except BaseException as error:
        logger.exception("sampling ended")
        failures.append(error)
        stop.set()  # a process that does not sample is better gone: its supervisor starts it again


class _QuietServer(uvicorn.Server):
    """A server that looks once a second whether it should end; uvicorn's looks ten times, at 0.15 % of a core."""

    async def main_loop(self) -> None:
        while not self.should_exit:  # noqa: ASYNC110 - a flag is what uvicorn ends by, set in another thread
            await asyncio.sleep(1.0)


def _serve(app: Starlette, listener: socket.socket) -> uvicorn.Server:
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", ws="none", date_header=False)
    server = _QuietServer(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="http", daemon=True)
    thread.start()
    return server
