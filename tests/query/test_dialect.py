"""The SQL of every analysis keeps to what DuckDB and ClickHouse both understand, and understand alike."""

import re
import string
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

import pyarrow as pa
import pytest

from query.catalogue import metrics
from query.costs.activity import activity
from query.costs.energy import energy_of_requests
from query.costs.leaks import memory_leaks
from query.costs.stragglers import stragglers
from query.costs.throttling import throttling
from query.costs.waste import HOLDERS, waste
from query.export import export_events
from query.history.changes import find_changes
from query.history.comparison import shared_metrics
from query.history.trends import trend
from query.present.availability import availability
from query.present.capabilities import capabilities
from query.present.live import live_state, probe_words
from query.present.machine import descriptions
from query.present.nearest import why_nothing
from query.present.processes import rank_processes
from query.present.timeline import timeline
from query.reading.newest_rows import NewestQuestion
from query.reading.trend_reading import TrendQuestion
from query.requests.baselines import read_like
from query.requests.diagnosis import diagnose, diagnose_window
from query.requests.duration_ranks import Ranked
from query.requests.slow import SlowRule, _rows, slow_requests
from query.requests.summary import RequestFilter
from query.requests.surroundings import read_surroundings
from store.derivations import arrow_schema
from store.errors import NoDataError
from store.events import KINDS

TEXTS = {entry.name: entry.read_text() for entry in files("query").joinpath("sql").iterdir()}
FRAGMENTS = {
    *(
        "relation",
        "in_window",
        "filter",
        "epoch_us",
        "bucket",
        "hours",
        "p50",
        "p95",
        "probe",
        "start",
        "end",
    ),  # by the engine
    *("keys", "same_series", "name", "value", "interval", "reasons", "column"),  # names of declared columns
    *(
        "counts",
        "groups",
        "spreads",
        "columns",
        "expected",
        "limit",
        "least",
        "stride",
        "top",
        "seq",
        "seqs",
    ),  # of requests
    *("holder", "processes", "held_least", "sm_below", "power_below"),  # of costs
}
NOT_SHARED = {
    r"\bmedian\b": "samples on ClickHouse",
    r"\bquantile\w*\s*\(": "samples on ClickHouse, or has its arguments elsewhere",
    r"\bapprox_": "is not exact, and not there on ClickHouse",
    r"\b(arg_max|arg_min)\b": "is max_by and min_by",
    r"\bpercentile_(cont|disc)\b": "is not there on ClickHouse",
    r"\btime_bucket\b": "takes its arguments the other way round on ClickHouse",
    r"\blist\s*\(": "is not there on ClickHouse",
    r"\btry_cast\b": "is not there on ClickHouse",
    r"\bcast\s*\(\s*null\b": "is an error on ClickHouse",
    r"//": "is not there on ClickHouse",
    r"\b(epoch|epoch_us|epoch_ms|make_timestamptz|to_timestamp)\s*\(": "is not there on ClickHouse",
    r"\b(tablesample|using\s+sample)\b": "is not there on ClickHouse",
    r"\brange\s+between\b": "takes no interval on ClickHouse",
    r"\$\w+": "is how DuckDB alone binds a value",
}


class ListeningEngine:
    """Writes down what it is asked, in fragments of no engine, and finds nothing."""

    name = "nobody's"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def relation(self, kind: str) -> str:
        return f"<{kind}>"

    def quantile(self, value: str, share: float) -> str:
        return f"<quantile {value} {share}>"

    def bucket(self, time: str, seconds: str) -> str:
        return f"<bucket {time} {seconds}>"

    def epoch_us(self, time: str) -> str:
        return f"<epoch {time}>"

    def parameter(self, name: str, kind: str) -> str:
        return f"<{name} {kind}>"

    def times_of(self, *_: Any) -> tuple[int, int]:
        return 0, 60

    def trend(self, _: TrendQuestion) -> None:
        """It has nothing at hand: the engine is to be asked."""

    def newest(self, question: NewestQuestion) -> list[Any]:
        return question.ask(self)

    def query(self, sql: str, **parameters: Any) -> pa.Table:
        self.asked.append(sql)
        places = {name: VALUES[kind] for name, kind in re.findall(r"<(\w+) (time|int|ints|float|text)>", sql)}
        assert {name: type(value) for name, value in parameters.items()} == places
        kind = re.search(r"from <(\w+)>", sql)[1]
        schema = arrow_schema(KINDS[kind])
        if " as model" in sql:
            schema = schema.append(pa.field("model", pa.string()))
        return pa.table({"message": [None]}) if "max_by(message" in sql else schema.empty_table()

    @contextmanager
    def engine(self, *_: Any, **__: Any) -> Iterator["ListeningEngine"]:
        yield self


VALUES = {"time": int, "int": int, "ints": list, "float": float, "text": str}


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory, machine) -> list[str]:
    """The text of every question that this room asks."""
    listening, window, now = ListeningEngine(), machine.window(0, 3600), machine.at(3600)
    for metric in metrics().values():
        gpus = [7] if "gpu_index" in metric.kind.by_name else []
        trend(listening, metric.name, window, now=now, gpus=gpus)
    only = RequestFilter("a", "b", "c", "ok")
    for rule in (SlowRule("threshold", threshold_seconds=1.0), SlowRule("percentile"), SlowRule("excess")):
        slow_requests(listening, window, rule, now=now, only=only)
    with pytest.raises(NoDataError):
        diagnose(listening, "12", now=now)
    with pytest.raises(NoDataError):
        diagnose(listening, "trace", now=now)
    diagnose_window(listening, window, now=now)
    _rows(listening, window, Ranked([12], (0, 60), 1, is_estimate=False), {})
    read_like(listening, (0, 60), ("a", "b"), but_seq=1)
    read_surroundings(listening, window, [(0, 60)], gpus=["GPU-0"], server="a")
    shared_metrics(listening, window, window, ())
    find_changes(listening, window)
    live_state(listening, now=now)
    descriptions(listening, "gpu")
    rank_processes(listening, window, gpus=[0], user="a")
    availability(listening, window)
    timeline(listening, window, gpus=[0])
    capabilities(listening)
    probe_words(listening, "gpu")
    energy_of_requests(listening, window)
    for by in HOLDERS:
        waste(listening, window, now=now, by=by)
    throttling(listening, window, now=now)
    memory_leaks(listening, window, now=now)
    stragglers(listening, window, now=now)
    activity(listening, window)
    why_nothing(listening, ["request"], window)
    export_events(listening, "request", window, format="csv", path=tmp_path_factory.mktemp("out") / "x.csv")
    return listening.asked


@pytest.mark.parametrize("name", TEXTS)
def test_every_text_begins_by_saying_what_it_asks(name):
    assert re.match(r"-- [A-Z][^\n]+\n", TEXTS[name])
    assert TEXTS[name].endswith("\n")


@pytest.mark.parametrize("name", TEXTS)
def test_every_text_uses_fragments_that_are_known(name):
    used = {field for _, field, _, _ in string.Formatter().parse(TEXTS[name]) if field}
    assert used <= FRAGMENTS


def test_no_fragment_is_known_that_no_text_uses():
    used = {field for text in TEXTS.values() for _, field, _, _ in string.Formatter().parse(text) if field}
    assert used == FRAGMENTS


@pytest.mark.parametrize("form", NOT_SHARED)
def test_nothing_is_asked_that_the_engines_understand_differently(asked, form):
    code = [re.sub("--[^\n]*", "", text).lower() for text in (*TEXTS.values(), *asked)]
    assert [text for text in code if re.search(form, text)] == [], NOT_SHARED[form]


def test_the_texts_are_all_that_is_asked_and_all_are_asked(asked):
    beginnings = {text.split("\n", 1)[0] for text in TEXTS.values()}
    assert {text.split("\n", 1)[0] for text in asked} <= beginnings
    assert {line for text in asked for line in text.split("\n")} >= beginnings  # a text may stand in another


def test_values_are_bound_and_never_written_into_a_text(asked, machine):
    edges = {
        edge
        for hours in (1, 7)
        for edge in (machine.window(0, hours * 3600).start_us, machine.window(0, hours * 3600).end_us)
    }
    assert [text for text in asked if any(str(edge) in text for edge in edges)] == []


@pytest.mark.parametrize(
    "sql",
    [
        "select median(x)",
        "select quantile_cont(x, 0.5)",
        "select quantile(0.5)(x)",
        "select arg_max(a, b)",
        "select percentile_cont(0.5) within group (order by x)",
        "select time_bucket(interval 1 hour, t)",
        "select approx_quantile(x, 0.5)",
        "select list(x)",
        "select try_cast(x as int)",
        "select a // b",
    ],
)
def test_the_check_notices_each_of_them(sql):
    assert [form for form in NOT_SHARED if re.search(form, sql)]
