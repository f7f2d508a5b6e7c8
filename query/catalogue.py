"""Metrics by name: `gpu.power_watts`, `cpu.utilization_percent`. Derived from the declared events."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from query.errors import UnknownKindError, UnknownMetricError
from store.derivations import unit_sign
from store.errors import did_you_mean
from store.events import KINDS, Field, Kind, measured_fields


@dataclass(frozen=True, slots=True)
class Metric:
    """A quantity that can be asked for over time.

    Args:
        name: `<subject>.<quantity with its unit last>`.
        kind: The kind of event it is read from.
        column: The field it is read from.
    """

    name: str
    kind: Kind
    column: Field

    @property
    def is_counter(self) -> bool:
        return self.column.instrument == "counter"

    @property
    def unit(self) -> str:
        """Unit of the values of a trend, as a sign: of a counter it is the rate's."""
        sign = unit_sign(self.column)
        return _RATES.get(sign, f"{sign}/s") if self.is_counter else sign

    @property
    def increase_unit(self) -> str:
        """Unit of a counter's growth, as a sign; empty for a gauge."""
        return unit_sign(self.column) if self.is_counter else ""


_RATES = {"J": "W"}  # the rate of an energy has a name of its own


@cache
def metrics() -> Mapping[str, Metric]:
    """All metrics, by name, in the order of their declaration."""
    trended = [kind for kind in KINDS.values() if kind.series or kind.expected_every_seconds]
    return {
        kind.metric_name(column): Metric(kind.metric_name(column), kind, column)
        for kind in trended
        for column in measured_fields(kind)
    }


def find_metric(name: str) -> Metric:
    """The metric of that name; case and blanks around it do not matter.

    Raises:
        UnknownMetricError: There is none; the message names the nearest.
    """
    wanted = name.strip().lower()
    if wanted in metrics():
        return metrics()[wanted]
    hint = did_you_mean(wanted, metrics(), "list them with 'gpuledger metrics'")
    raise UnknownMetricError(f"There is no metric {name!r}", hint)


def find_kind(name: str) -> Kind:
    """The kind of event of that name.

    Raises:
        UnknownKindError: There is none; the message names the nearest.
    """
    wanted = name.strip().lower()
    if wanted in KINDS:
        return KINDS[wanted]
    hint = did_you_mean(wanted, KINDS, f"there are {', '.join(KINDS)}")
    raise UnknownKindError(f"There is no kind of event {name!r}", hint)
