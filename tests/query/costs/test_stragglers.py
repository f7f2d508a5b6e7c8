"""The GPU that lags behind its peers is found, and in a healthy group none is."""

import numpy as np
import pytest

from query.costs.stragglers import stragglers

MINUTES = 20


def group(book, gpus: int, plant=None, *, at: int = 2, minutes: int = MINUTES, percent: int = 99, seed: int = 1):
    """GPUs that do the same work, sampled every 10 s; `plant` changes what one of them says."""
    random = np.random.default_rng(seed)
    events = []
    for s in range(0, minutes * 60, 10):
        for gpu in range(gpus):
            row = {
                "utilization_percent": percent,
                "clock_sm_hertz": round(1.9e9 + random.normal(0, 5e6)),
                "temperature_celsius": 65 + 0.7 * gpu + random.normal(0, 0.5),
                "power_watts": 600 + random.normal(0, 8),
                "sm_active_ratio": 0.8 + random.normal(0, 0.02),
            }
            events.append(book.gpu(s, gpu, **row | (plant(row, s) if plant and gpu == at else {})))
    return events


def ask(book, minutes: int = MINUTES):
    return stragglers(book.source, book.window(0, minutes * 60), now=book.at(minutes * 60))


@pytest.mark.parametrize(
    ("plant", "metric"),
    [
        (lambda row, _: {"clock_sm_hertz": row["clock_sm_hertz"] - 150_000_000}, "clock_sm_hertz"),
        (lambda row, _: {"temperature_celsius": row["temperature_celsius"] + 15}, "temperature_celsius"),
        (lambda row, _: {"power_watts": row["power_watts"] - 120}, "power_watts"),
        (lambda row, _: {"sm_active_ratio": row["sm_active_ratio"] + 0.18}, "sm_active_ratio"),
    ],
)
def test_a_planted_straggler_is_found_and_no_other(book, plant, metric):
    book.record(group(book, 8, plant))
    found = ask(book)
    assert [(one.gpu_index, [each.metric for each in one.deviations]) for one in found.found] == [(2, [metric])]
    [deviation] = found.found[0].deviations
    assert (deviation.persistent_ratio, abs(deviation.robust_z) >= 3) == (1.0, True)


def test_the_figures_are_numpys(book):
    slow = lambda row, _: {"clock_sm_hertz": row["clock_sm_hertz"] - 150_000_000}  # noqa: E731 - as the others above
    events = group(book, 4, slow)
    book.record(events)
    [deviation] = ask(book).found[0].deviations
    minutes = {}
    for one in events:
        place = (one.observed_at_us // 60_000_000, one.values["gpu_index"])
        minutes.setdefault(place, []).append(one.values["clock_sm_hertz"])
    means = np.array([[np.mean(minutes[m, gpu]) for m in sorted({m for m, _ in minutes})] for gpu in range(4)])
    peers = np.median(means[[0, 1, 3]], axis=0)
    assert (deviation.value, deviation.peers_value) == pytest.approx((np.median(means[2]), np.median(peers)))


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_in_a_healthy_group_nobody_is_blamed(book, seed):
    book.record(group(book, 8, seed=seed))
    found = ask(book)
    assert (found.found, found.n) == ((), 8)


def test_a_gpu_that_lagged_for_a_while_is_no_straggler(book):
    book.record(group(book, 8, lambda _, s: {"clock_sm_hertz": 1_200_000_000} if s < 300 else {}))
    assert ask(book).found == ()


def test_three_of_a_kind_are_too_few_and_it_says_so(book):
    book.record(group(book, 3, lambda *_: {"clock_sm_hertz": 1_200_000_000}))
    found = ask(book)
    assert (found.found, found.n) == ((), 0)
    assert found.groups[0].reason == "3 of a kind do the same work, and a GPU is compared with 3 peers at least"


@pytest.mark.parametrize(("minutes", "percent"), [(5, 99), (MINUTES, 10)])
def test_too_short_a_time_together_is_no_comparison(book, minutes, percent):
    book.record(group(book, 8, lambda *_: {"clock_sm_hertz": 1_200_000_000}, minutes=minutes, percent=percent))
    found = ask(book)
    assert (found.found, found.n) == ((), 0)
    assert "busy together" in found.groups[0].reason


def test_gpus_of_different_jobs_are_not_compared(book):
    def job(gpu, s):
        row = {"gpu_uuid": f"GPU-{gpu}", "pid": 100 + gpu, "slurm_job_id": "41" if gpu < 4 else "42"}
        return book.event("process_sample", s, **row)

    other = group(book, 8)
    for one in other:
        if one.values["gpu_index"] >= 4:
            one.values["clock_sm_hertz"] = 1_200_000_000
    book.record([*other, *(job(gpu, s) for gpu in range(8) for s in range(0, 60, 5))])
    found = ask(book)
    assert [(one.work, one.n, one.reason) for one in found.groups] == [("41", 4, None), ("42", 4, None)]
    assert found.found == ()


def test_gpus_of_different_make_are_not_compared(book):
    names = [book.event("inventory", 0, gpu_uuid=f"GPU-{gpu}", name="H200" if gpu else "A2") for gpu in range(5)]
    book.record([*names, *group(book, 5, lambda *_: {"clock_sm_hertz": 1_200_000_000}, at=0)])
    found = ask(book)
    assert {one.name: one.reason is None for one in found.groups} == {"H200": True, "A2": False}
    assert found.found == ()
