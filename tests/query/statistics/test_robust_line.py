"""The line through durations and token counts is that of the many, whatever the few did."""

import numpy as np
import pytest

from query.statistics.robust_line import N_MIN, fit_robust_line


def made(seed: int, n: int, noise: float = 0.05):
    random = np.random.default_rng(seed)
    tokens_in, tokens_out = random.integers(10, 4000, n).astype(float), random.integers(1, 900, n).astype(float)
    exact = 0.08 + 0.0002 * tokens_in + 0.012 * tokens_out
    return exact * np.exp(random.normal(0, noise, n)), tokens_in, tokens_out


def test_without_noise_it_is_the_line_of_least_squares():
    duration, tokens_in, tokens_out = made(1, 200, noise=0.0)
    terms = np.column_stack([np.ones(200), tokens_in, tokens_out])
    expected, *_ = np.linalg.lstsq(terms, duration, rcond=None)
    line = fit_robust_line(duration, tokens_in, tokens_out)
    found = (line.base_seconds, line.per_input_token_seconds, line.per_output_token_seconds)
    assert found == pytest.approx(tuple(expected), rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_a_fifth_of_requests_ten_times_too_slow_do_not_move_it(seed):
    duration, tokens_in, tokens_out = made(seed, 1000)
    duration[::5] *= 10
    line = fit_robust_line(duration, tokens_in, tokens_out)
    assert line.predicted(1000, 400) == pytest.approx(0.08 + 0.2 + 4.8, rel=0.02)
    assert line.relative_scale == pytest.approx(0.05, rel=0.5)


def test_a_token_never_takes_less_than_no_time():
    random = np.random.default_rng(3)
    tokens_in, tokens_out = random.uniform(0, 1000, 300), random.uniform(0, 1000, 300)
    line = fit_robust_line(10 - 0.005 * tokens_in + 0.001 * tokens_out, tokens_in, tokens_out)
    assert line.per_input_token_seconds == 0
    assert min(line.base_seconds, line.per_output_token_seconds) >= 0


def test_too_few_requests_have_no_line():
    assert fit_robust_line(*made(1, N_MIN - 1)) is None
    assert fit_robust_line(*made(1, N_MIN)).n == N_MIN


def test_requests_that_are_all_alike_have_a_line():
    same = np.full(50, 2.0)
    assert fit_robust_line(same, np.full(50, 7.0), np.zeros(50)).predicted(7, 0) == pytest.approx(2.0)
