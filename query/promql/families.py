"""The families of the history: what `/metrics` exposes of every kind of sample, and the columns behind it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from store.derivations import prometheus_families, prometheus_labels
from store.events import KINDS, Field, Kind

JOB = "gpuledger"

Labels = tuple[tuple[str, str], ...]
"""Names and values, in the order of the names. `__name__` is the metric's."""


@dataclass(frozen=True, slots=True)
class Member:
    """One field of a family.

    Args:
        field: The column.
        labels: What tells it from the others of its family.
        bit: Of a set of bits the one that is meant; None for the value itself.
    """

    field: Field
    labels: Labels = ()
    bit: int | None = None


@dataclass(frozen=True, slots=True)
class HistoryFamily:
    """One metric of the history.

    Args:
        name: As it is asked for, with the `_total` of counters.
        type: `gauge` or `counter`.
        help: What it says.
        kind: Of which kind of event.
        members: Its fields.
    """

    name: str
    type: str
    help: str
    kind: Kind
    members: tuple[Member, ...]


@cache
def families() -> Mapping[str, HistoryFamily]:
    """All families by name, in the order of their declaration."""
    found = {}
    for kind in KINDS.values():
        if kind.expected_every_seconds:
            for family in prometheus_families(kind):
                name = f"{family.name}_total" if family.type == "counter" else family.name
                members = tuple(one for field, labels in family.members for one in _members(field, labels))
                found[name] = HistoryFamily(name, family.type, family.help, kind, members)
    return found


def _members(field: Field, labels: Labels) -> list[Member]:
    if not field.bits:
        return [Member(field, labels)]
    return [Member(field, (*labels, ("reason", reason)), bit) for bit, reason in field.bits.items()]


def labels_of(family: HistoryFamily, member: Member, host: str, values: Mapping[str, object]) -> Labels:
    """The labels of one series.

    Args:
        family: Its family.
        member: Its field.
        host: Where it was observed, which is its instance.
        values: Of the columns behind the labels of its kind; the label of one that is None is absent.
    """
    own = {label: values[column] for label, column in prometheus_labels(family.kind).items()}
    named = {label: str(value) for label, value in own.items() if value is not None}
    every = {**named, **dict(member.labels), "__name__": family.name, "instance": host, "job": JOB}
    return tuple(sorted(every.items()))
