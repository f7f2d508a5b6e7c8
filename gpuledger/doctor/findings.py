"""What a check found, and how findings reach a person."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How serious a finding is."""

    OK = "ok"
    WARNING = "warning"  # something is not recorded, or not as well as it could be
    PROBLEM = "problem"  # something does not work


@dataclass(frozen=True, slots=True)
class Check:
    """One finding.

    Args:
        name: What was looked at.
        state: How it stands.
        finding: What was found, as a sentence without a full stop.
        next_step: What to do about it, best a command; empty where nothing is to be done.
        details: More of it, a line each.
    """

    name: str
    state: State
    finding: str
    next_step: str = ""
    details: tuple[str, ...] = ()


def exit_code(checks: Sequence[Check]) -> int:
    """1 where there is a problem, 5 where there is a warning, 0 otherwise."""
    states = {check.state for check in checks}
    return 1 if State.PROBLEM in states else 5 if State.WARNING in states else 0


def verdict(checks: Sequence[Check]) -> str:
    """`2 problems, 1 warning`, or that all is well."""
    counts = {state: sum(check.state is state for check in checks) for state in (State.PROBLEM, State.WARNING)}
    words = [f"{count} {state}{'' if count == 1 else 's'}" for state, count in counts.items() if count]
    return ", ".join(words) or "all is well"


def lines(checks: Sequence[Check]) -> Iterator[str]:
    """The findings for a person: state, name, finding; below it details and what to do."""
    width = max((len(check.name) for check in checks), default=0)
    for check in checks:
        yield f"{check.state:<8} {check.name:<{width}}  {check.finding}"
        below = " " * (width + 11)
        yield from (f"{below}{detail}" for detail in check.details)
        if check.next_step:
            yield f"{below}→ {check.next_step}"
