"""Trends from rollups equal those from the events, wherever both can answer."""

from typing import Any

import pytest

from query import resolutions, trends
from query.trends import Trend, TrendSeries, trend
from store.events import Event
from store.rollups import update_rollups
from store.sketch import RELATIVE_ERROR

HOUR_S = 3600
FIGURES = ("label", "series", "n", "min", "avg", "max", "last", "increase", "coverage")


def roll(book, at_s: float) -> None:
    """Seal everything and bring the rollups up, as the child does at that time."""
    book.seal()
    update_rollups(book.folder, now_us=round(book.at(at_s).timestamp() * 1e6))


@pytest.fixture
def always_rolled(monkeypatch: pytest.MonkeyPatch):
    """Makes rollups answer every window, however short, by the resolution that is named."""

    def choose(resolution: str) -> None:
        monkeypatch.setattr(resolutions, "RAW_UPTO_S", -1.0)
        monkeypatch.setattr(resolutions, "MINUTE_UPTO_S", -1.0 if resolution == "hour" else 1e12)

    return choose


def from_events(book, metric: str, start_s: float, end_s: float, **asked: Any) -> Trend:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(trends, "plan_rollups", lambda *_: None)
        return trend(book.source, metric, book.window(start_s, end_s), now=book.at(end_s), **asked)


def from_rollups(book, metric: str, start_s: float, end_s: float, resolution: str, **asked: Any) -> Trend:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(resolutions, "RAW_UPTO_S", -1.0)
        patched.setattr(resolutions, "MINUTE_UPTO_S", -1.0 if resolution == "hour" else 1e12)
        return trend(book.source, metric, book.window(start_s, end_s), now=book.at(end_s), **asked)


def near(one: float | None) -> Any:
    return None if one is None else pytest.approx(one, rel=1e-9, abs=1e-9)


def figures(one: TrendSeries) -> tuple[Any, ...]:
    return (*(getattr(one, name) for name in FIGURES), *one.points)


def assert_equal(rolled: Trend, raw: Trend) -> None:
    """All figures alike, and percentiles within the sketch's error."""
    assert (rolled.step_s, rolled.first_point_at) == (raw.step_s, raw.first_point_at)
    assert (rolled.newest_age_s, rolled.coverage) == (near(raw.newest_age_s), near(raw.coverage))
    assert [figures(one) for one in rolled.series] == [
        tuple(near(value) if isinstance(value, float) else value for value in figures(one)) for one in raw.series
    ]
    for ours, theirs in zip(rolled.series, raw.series, strict=True):
        reach = max(abs(theirs.min), abs(theirs.max)) if theirs.min < 0 < theirs.max else 0
        for name in ("p50", "p95"):
            exact = getattr(theirs, name)
            tolerance = RELATIVE_ERROR * (reach or abs(exact)) * (1 + 1e-6) + 1e-9
            assert getattr(ours, name) == pytest.approx(exact, rel=0, abs=tolerance), name


def readings(book, count: int, *, every_s: float, gpus: int = 2) -> list[Event]:
    """A load that comes and goes, a value missing now and then, counters that restart and one that wraps."""
    events = []
    for number in range(count):
        second = number * every_s
        for gpu in range(gpus):
            load = (number * 37 + gpu * 11) % 101
            values: dict[str, Any] = {
                "utilization_percent": load,
                "power_watts": None if number % 17 == gpu else 60.0 + 5.5 * load,
                "energy_joules": 1000.0 + (number % 500) * 3.25 * (gpu + 1),
                "counter_epoch": number // 500,
                "pcie_tx_bytes": (number * 1_000_003) % 2**32,
                "fan_speed_percent": 40 + load // 10 if number % 5 == 0 else None,
                "interval_seconds": every_s,
            }
            events.append(book.gpu(second, gpu, **values))
    return events


@pytest.mark.parametrize("resolution", ["minute", "hour"])
@pytest.mark.parametrize(
    "metric",
    ["gpu.utilization_percent", "gpu.power_watts", "gpu.energy_joules", "gpu.pcie_tx_bytes", "gpu.fan_speed_percent"],
)
@pytest.mark.parametrize("window", [(0, 5 * HOUR_S), (HOUR_S, 3 * HOUR_S), (2 * HOUR_S, 5 * HOUR_S + 17)])
def test_every_figure_of_a_trend_is_the_same_from_rollups(long_book, resolution, metric, window):
    raw = from_events(long_book, metric, *window, points=3)
    rolled = from_rollups(long_book, metric, *window, resolution, points=3)
    assert (raw.resolution, rolled.resolution) == ("raw", resolution)
    assert len(rolled.series) == 2
    assert_equal(rolled, raw)


@pytest.fixture(scope="module")
def long_book(tmp_path_factory: pytest.TempPathFactory, open_book):
    """Five hours of which four are rolled up: part of the last hour is sealed, part is in the tail. Not to be added to."""
    book = open_book(tmp_path_factory.mktemp("long") / "ledger")
    events = readings(book, 1800, every_s=10)
    book.append(events[:3300])
    roll(book, 4 * HOUR_S + 60)
    book.append(events[3300:])
    return book
