"""A robust line: what a request takes by its token counts, whatever a few slow ones did.

duration = base + a · input tokens + b · output tokens, with noise in proportion to the duration: residuals are judged
relative to what the line says. It begins with least absolute deviations (iteratively reweighted: Schlossmacher, "An
iterative technique for absolute deviations curve fitting", JASA 68, 1973) and ends with Tukey's biweight (Beaton and
Tukey, "The fitting of power series", Technometrics 16, 1974), which gives no weight at all to what lies far off. The
scale is the median absolute deviation times 1.4826, which estimates a standard deviation.
"""

from dataclasses import dataclass

import numpy as np

from store.rollups.cells import Floats

BIWEIGHT = 4.685  # 95 % of the efficiency of least squares where the noise is normal
ITERATIONS = 20
N_MIN = 30
MAD_TO_SIGMA = 1.4826
SCALE_MIN = 0.01  # durations repeat no better than that: without it a perfect line would call every request slow


@dataclass(frozen=True, slots=True)
class RobustLine:
    """What requests of one kind take.

    Args:
        n: Of how many it was fitted.
        base_seconds, per_input_token_seconds, per_output_token_seconds: Its coefficients, none below 0.
        relative_scale: The noise, as a share of what the line says.
        least_seconds: The line says at least so much: a tenth of the median.
    """

    n: int
    base_seconds: float
    per_input_token_seconds: float
    per_output_token_seconds: float
    relative_scale: float
    least_seconds: float

    def predicted(self, input_tokens: float, output_tokens: float) -> float:
        line = (
            self.base_seconds
            + self.per_input_token_seconds * input_tokens
            + self.per_output_token_seconds * output_tokens
        )
        return max(line, self.least_seconds)


def fit_robust_line(duration_s: Floats, input_tokens: Floats, output_tokens: Floats) -> RobustLine | None:
    """The line through these requests; None of fewer than `N_MIN`."""
    n = len(duration_s)
    if n < N_MIN:
        return None
    terms = np.column_stack([np.ones(n), input_tokens, output_tokens])
    least_s = float(np.median(duration_s)) / 10
    noise_s = np.full(n, max(float(np.median(duration_s)), 1e-9))
    coefficients = _weighted(terms, duration_s, 1 / noise_s**2)
    for iteration in range(ITERATIONS):
        noise_s = np.maximum(terms @ coefficients, max(least_s, 1e-9))
        residuals = (duration_s - terms @ coefficients) / noise_s
        weights = _absolute(residuals) if iteration < ITERATIONS // 2 else _biweight(residuals)
        coefficients = _weighted(terms, duration_s, weights / noise_s**2)
    residuals = (duration_s - terms @ coefficients) / np.maximum(terms @ coefficients, max(least_s, 1e-9))
    base, per_in, per_out = coefficients.tolist()
    return RobustLine(n, base, per_in, per_out, max(_scale(residuals), SCALE_MIN), least_s)


def _weighted(terms: Floats, values: Floats, weights: Floats) -> Floats:
    """Weighted least squares with no coefficient below 0: a token takes no less than no time.

    A term that comes out below 0 is left out and the others are fitted again; with three terms that is done at once.
    """
    root = np.sqrt(weights)
    used = list(range(terms.shape[1]))
    found = np.zeros(terms.shape[1])
    while used:
        fitted, *_ = np.linalg.lstsq(terms[:, used] * root[:, None], values * root, rcond=None)
        if fitted.min() >= 0:
            found[used] = fitted
            break
        used.pop(int(np.argmin(fitted * np.abs(terms[:, used]).mean(axis=0))))
    return found


def _absolute(residuals: Floats) -> Floats:
    return 1 / np.maximum(np.abs(residuals), 1e-4)


def _biweight(residuals: Floats) -> Floats:
    share = residuals / (BIWEIGHT * max(_scale(residuals), 1e-6))
    return np.where(np.abs(share) < 1, (1 - share**2) ** 2, 1e-9)


def _scale(residuals: Floats) -> float:
    return MAD_TO_SIGMA * float(np.median(np.abs(residuals - np.median(residuals))))
