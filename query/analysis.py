"""What every analysis says of itself, so that its answer can be judged."""

from dataclasses import dataclass

from query.windows import Window


@dataclass(frozen=True, slots=True)
class Analysis:
    """The head of an analysis.

    Args:
        window: The window that was asked for, resolved.
        coverage: Which share of it was recorded, 0 to 1.
        n: How many were looked at.
        method: How, in words.
        limits: What it cannot say.
    """

    window: Window
    coverage: float
    n: int
    method: str
    limits: tuple[str, ...]
