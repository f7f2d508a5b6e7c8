"""What an expression is made of, after it was read. Lengths of time are milliseconds, as Prometheus counts them."""

from dataclasses import dataclass
from typing import Literal

ValueType = Literal["scalar", "instant vector", "range vector", "string"]
MatchOperator = Literal["=", "!=", "=~", "!~"]


@dataclass(frozen=True, slots=True)
class Number:
    value: float


@dataclass(frozen=True, slots=True)
class Text:
    value: str


@dataclass(frozen=True, slots=True)
class Matcher:
    """A condition on one label; a label that is absent is the empty text."""

    label: str
    operator: MatchOperator
    value: str


@dataclass(frozen=True, slots=True)
class Selector:
    """Series by their labels.

    Args:
        matchers: All of which hold; the metric's name is the label `__name__`.
        range_ms: How far back a range vector reaches; None for an instant vector.
        offset_ms: By how much it looks back from the moment it is asked for.
    """

    matchers: tuple[Matcher, ...]
    range_ms: int | None = None
    offset_ms: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    function: str
    arguments: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One value of many series.

    Args:
        operation: Its name.
        argument: The vector.
        parameter: Of topk, bottomk and quantile.
        labels: The labels that are kept, or are not.
        is_without: Whether they are those that are not.
    """

    operation: str
    argument: "Node"
    parameter: "Node | None"
    labels: tuple[str, ...]
    is_without: bool


@dataclass(frozen=True, slots=True)
class Matching:
    """Which series of two vectors belong together.

    Args:
        is_on: Whether `labels` are those that must agree; else they are those that need not.
        labels: As above.
        many: The side that may have several for one of the other; None where neither.
        include: Labels that the many get from the one.
    """

    is_on: bool = False
    labels: tuple[str, ...] = ()
    many: Literal["left", "right"] | None = None
    include: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Binary:
    operator: str
    left: "Node"
    right: "Node"
    is_bool: bool
    matching: Matching


@dataclass(frozen=True, slots=True)
class Negative:
    operand: "Node"


Node = Number | Text | Selector | Call | Aggregate | Binary | Negative
