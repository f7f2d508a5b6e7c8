"""A diagnosis finds what was planted, and blames nothing where nothing was. The stories are benchmarks/scenarios.py."""

from datetime import UTC, datetime

import numpy as np
import pytest

from query.reading.local_source import LocalSource
from query.requests.diagnosis import Diagnosis, WindowDiagnosis, diagnose, diagnose_window
from query.requests.summary import RequestFilter
from query.windows import Window
from store.errors import NoDataError

CAUSES = {
    "throttling": "throttling", "throttling_without_counters": "throttling", "clock_deficit": "clock_deficit",
    "slow_state": "slow_state", "other_process": "other_process", "queueing": "queueing", "kv_pressure": "kv_pressure",
    "prefill": "prefill", "decode": "decode", "leak": "leak", "slow_disk": "io_pressure", "cpu": "cpu_pressure",
    "memory": "memory_pressure", "xid": "xid", "pcie_replay": "pcie_replay",
}  # fmt: skip
ONLY_OF_REQUESTS = {"kv_pressure", "prefill", "decode", "queueing"}
SEED = 7


@pytest.fixture(scope="module")
def scenarios(pytestconfig):
    return pytestconfig.pluginmanager.get_plugin("scenarios")


@pytest.fixture(scope="module")
def told(scenarios, tmp_path_factory):
    """Tells a story once: the story and its ledger."""
    known = {}

    def tell(plant: str, *, with_requests: bool = True):
        key = (plant, with_requests)
        if key not in known:
            story = scenarios.story(plant, SEED, with_requests=with_requests)
            source = LocalSource(tmp_path_factory.mktemp("story") / "ledger")
            scenarios.record(source.folder, story)
            known[key] = (story, source)
        return known[key]

    yield tell
    for _, source in known.values():
        source.close()


@pytest.fixture
def ask(scenarios, told):
    def asked(plant: str) -> Diagnosis:
        return diagnose(told(plant)[1], "asked", now=scenarios.at(scenarios.LENGTH_S))

    return asked


@pytest.fixture
def ask_window(scenarios, told):
    def asked(plant: str, only: RequestFilter | None = None, *, with_requests: bool = True) -> WindowDiagnosis:
        story, source = told(plant, with_requests=with_requests)
        first, last = (datetime.fromtimestamp(edge / 1e6, UTC) for edge in story.window_us)
        window = Window(first, last, "UTC", "planted")
        return diagnose_window(source, window, now=scenarios.at(scenarios.LENGTH_S), only=only)

    return asked


def test_every_plant_that_has_a_cause_is_tried(scenarios):
    assert {plant: cause for plant, cause in scenarios.PLANTS.items() if cause} == CAUSES


@pytest.mark.parametrize("plant", CAUSES)
def test_what_was_planted_is_found_and_nothing_else(ask, plant):
    found = ask(plant)
    assert found.is_slow
    assert [one.name for one in found.causes] == [CAUSES[plant]]
    assert (found.coverage, found.n) == (pytest.approx(1.0, abs=0.005), 40)
    assert {one.name for one in found.phases} == {"queue", "prefill", "decode"}


@pytest.mark.parametrize("plant", CAUSES)
def test_a_window_around_it_says_the_same(ask_window, plant):
    found = ask_window(plant)
    assert found.is_slow
    assert {one.name for one in found.causes} == {CAUSES[plant]}
    assert 0 < found.slow_count < found.request_count


@pytest.mark.parametrize("plant", [plant for plant in CAUSES if plant not in ONLY_OF_REQUESTS])
def test_a_machine_that_tells_of_no_requests_shows_it_too(ask_window, plant):
    found = ask_window(plant, with_requests=False)
    assert {one.name for one in found.causes} == {CAUSES[plant]}
    assert found.request_count == 0
    assert found.limits[0].startswith("no request finished in it")


def test_an_effect_is_about_what_was_lost(ask):
    found = ask("throttling")
    (cause,) = found.causes
    assert cause.effect_seconds == pytest.approx(found.duration_seconds - found.expected_seconds, rel=0.2)
    assert any("below the usual" in fact for fact in cause.evidence)


def test_a_slow_disk_is_told_by_what_a_read_took(ask):
    (cause,) = ask("slow_disk").causes
    assert any("a read took" in fact for fact in cause.evidence)
    assert cause.counter_evidence == ("pressure is of the whole host: whose tasks waited is not known",)


@pytest.mark.parametrize("plant", ["nothing", "long_answer"])
def test_a_request_that_took_what_its_tokens_explain_has_nothing_to_explain(ask, plant):
    found = ask(plant)
    assert (found.is_slow, found.causes) == (False, ())


def test_a_window_in_which_all_is_as_usual_has_nothing_to_explain(ask_window):
    found = ask_window("nothing")
    assert (found.is_slow, found.causes) == (False, ())
    assert found.slowdown_ratio == pytest.approx(1.0, abs=0.05)
    assert ask_window("nothing", with_requests=False).causes == ()


def test_a_slow_request_around_which_nothing_stands_out_has_no_cause(ask):
    found = ask("client")
    assert (found.is_slow, found.causes) == (True, ())
    assert found.coverage == pytest.approx(1.0, abs=0.005)


def test_where_nothing_was_sampled_it_says_that_it_cannot_know(ask, ask_window):
    found = ask("gap")
    assert (found.is_slow, found.causes, found.coverage) == (True, (), 0.0)
    expected = "(nothing was sampled for a while): what went on then cannot be known"
    assert any(expected in words for words in found.limits)
    assert any("cannot be known" in words for words in ask_window("gap").limits)


def test_coverage_is_the_share_of_the_time_near_a_sample(book):
    book.record([*(book.gpu(s, power_watts=70.0) for s in range(20) if not 5 <= s < 15), slow(book, 10.0, "half")])
    assert diagnose(book.source, "half", now=book.at(60)).coverage == pytest.approx(0.2, abs=0.01)


def slow(book, duration_s: float, trace: str):
    return book.event(
        "request", 15, operation="odd", status="ok", duration_seconds=duration_s, trace_id=trace, gpu_uuids=["GPU-0"]
    )


def test_only_the_requests_asked_for_are_judged(ask_window):
    every = ask_window("queueing")
    chat = ask_window("queueing", RequestFilter(operation="chat"))
    assert 0 < chat.request_count < every.request_count
    with pytest.raises(NoDataError, match="There is no such request in this window"):
        ask_window("queueing", RequestFilter(operation="nothing"))


def test_a_request_without_others_like_it_is_not_judged(book):
    book.record([book.event("request", 5, operation="odd", duration_seconds=9.0, trace_id="t-1"), book.host(5)])
    found = diagnose(book.source, "t-1", now=book.at(60))
    assert (found.is_slow, found.expected_seconds, found.causes) == (None, None, ())
    assert found.limits[0].startswith("fewer than 8 requests like it ended well")


def test_hours_that_were_slow_themselves_are_no_baseline(book):
    """Held back for eight hours: the hours before are as slow, and the ones before those are not."""
    random = np.random.default_rng(1)
    events = []
    for s in range(0, 12 * 3600, 60):
        is_held = s >= 4 * 3600
        events += [
            book.gpu(s + t, clock_sm_hertz=1_000_000_000 if is_held else 1_980_000_000, utilization_percent=95)
            for t in range(-6, 1)
        ]
        took_s = (4.0 if is_held else 2.0) * float(np.exp(random.normal(0, 0.03)))
        more = {"operation": "chat", "response_model": "llama", "status": "ok", "gpu_uuids": ["GPU-0"]}
        events.append(book.event("request", s, duration_seconds=took_s, output_tokens=100, trace_id=f"t-{s}", **more))
    book.record(sorted(events, key=lambda one: one.observed_at_us))
    found = diagnose(book.source, f"t-{12 * 3600 - 60}", now=book.at(12 * 3600))
    assert [one.name for one in found.causes] == ["clock_deficit"]
    assert found.limits[0].startswith("the 6 hours before were slow too: it is compared with earlier ones")
    window = diagnose_window(book.source, book.window(11.5 * 3600, 12 * 3600), now=book.at(12 * 3600))
    assert [one.name for one in window.causes] == ["clock_deficit"]


def test_a_request_is_found_by_its_number_and_by_its_names_in_files_and_tail(scenarios, told, ask):
    by_name = ask("nothing")
    by_number = diagnose(told("nothing")[1], str(by_name.seq), now=scenarios.at(scenarios.LENGTH_S))
    assert by_number == by_name


@pytest.mark.parametrize("name", ["12345", "nobody"])
def test_a_request_that_there_is_not_is_refused(book, name):
    with pytest.raises(NoDataError, match=f"There is no request '{name}'"):
        diagnose(book.source, name, now=book.at(60))


@pytest.mark.parametrize("shift", [0, 1])
def test_a_growth_is_told_by_the_slopes_of_all_pairs_as_scipy_has_them(book, shift):
    from scipy.stats import theilslopes

    from query.requests.causes import _growing
    from query.requests.surroundings import read_surroundings

    random = np.random.default_rng(shift)
    used = [round(2**30 * (1 + s / 50) + 2**26 * random.normal()) for s in range(0, 250, 5)]
    book.record(
        book.event("process_sample", 5 * at, gpu_uuid="GPU-0", pid=9, name="python", memory_used_bytes=one)
        for at, one in enumerate(used)
    )
    with book.source.engine(["process_sample", *_kinds()]) as engine:
        seen = read_surroundings(engine, book.window(0, 600), [_edges(book.window(0, 600))], gpus=(), server=None)
    ((pid, name, grown, hours),) = _growing(seen.table("process_sample"))
    assert (pid, name) == (9, "python")
    assert grown == pytest.approx(theilslopes(used, np.arange(len(used)) * 5.0).slope * hours * 3600)


def _edges(window):
    return window.start_us, window.end_us


def _kinds():
    from query.requests.surroundings import COLUMNS

    return COLUMNS
