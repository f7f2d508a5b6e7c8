"""Percentiles per hour and over all from mergeable sketches, against numpy's exact ones, through the public question."""

import numpy as np
import pytest

from query.requests import summary as requests
from query.requests.summary import SHARES, summarize_requests
from store.rollups.updating import update_rollups

HOURS = 4
PER_HOUR = 6000

DISTRIBUTIONS = {
    "lognormal": lambda random, n: random.lognormal(-1.0, 1.2, n),
    "bimodal": lambda random, n: np.where(
        random.random(n) < 0.7, random.normal(0.2, 0.02, n), random.normal(9.0, 0.5, n)
    ),
    "heavy_tail": lambda random, n: 0.05 * (1 + random.pareto(1.1, n)),
    "five_decades": lambda random, n: 10 ** random.uniform(-4, 1.5, n),
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, open_book):
    """Four hours of requests of an operation each distribution, each hour twice as slow as the one before."""
    book = open_book(tmp_path_factory.mktemp("served") / "ledger")
    random = np.random.default_rng(9)
    durations = {name: draw(random, HOURS * PER_HOUR // 4) for name, draw in DISTRIBUTIONS.items()}
    seconds = np.sort(random.uniform(0, HOURS * 3600, HOURS * PER_HOUR // 4))
    slower = 2.0 ** (seconds // 3600)
    values = {name: np.maximum(of_all, 1e-5) * slower for name, of_all in durations.items()}
    book.append(
        book.event("request", second, operation=name, status="ok", duration_seconds=duration)
        for name, of_all in values.items()
        for second, duration in zip(seconds.tolist(), of_all.tolist(), strict=True)
    )
    book.seal()
    update_rollups(book.folder, now_us=round(book.at(HOURS * 3600 + 60).timestamp() * 1e6))
    return book, seconds, values


@pytest.mark.parametrize("step_s", [3600, None])
def test_every_percentile_of_every_bucket_is_within_one_percent_of_the_exact_one(served, monkeypatch, step_s):
    book, seconds, values = served
    for module in ("query.reading.resolutions", "query.requests.summary"):
        monkeypatch.setattr(f"{module}.RAW_UPTO_S", -1.0)
    monkeypatch.setattr("query.reading.resolutions.MINUTE_UPTO_S", -1.0)
    assert requests.RAW_UPTO_S == -1.0
    window = book.window(0, HOURS * 3600)
    found = summarize_requests(book.source, window, now=book.at(HOURS * 3600), by=("operation",), step_s=step_s)
    assert (found.resolution, found.n, len(found.groups)) == ("hour", HOURS * PER_HOUR, 4 * (HOURS if step_s else 1))
    for group in found.groups:
        exact = values[group.operation]
        if step_s:
            hour = (group.begins_at - book.at(0)).total_seconds() // 3600
            exact = exact[seconds // 3600 == hour]
        assert group.duration.n == len(exact)
        for name, share in SHARES.items():
            wanted = np.quantile(exact, share)
            assert getattr(group.duration, name) == pytest.approx(wanted, rel=0.01 * (1 + 1e-9)), (
                group.operation,
                name,
            )
