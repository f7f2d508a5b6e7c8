"""The seam between an analysis and what runs it.

An analysis is one SQL text with a few named fragments; an `Engine` fills them in and runs it. The text keeps to what
DuckDB and ClickHouse both understand. `query.reading.duck_engine` is the engine of one host.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol

from store.snapshot import END_OF_TIME_US

if TYPE_CHECKING:
    import pyarrow as pa

    from query.reading.newest_rows import NewestQuestion
    from query.reading.trend_reading import TrendQuestion, TrendReading

ParameterKind = Literal["time", "int", "ints", "float", "text"]


ALL_COLUMNS: Mapping[str, Collection[str]] = MappingProxyType({})
"""No kind is narrowed to some of its columns."""


class Engine(Protocol):
    """One question's access to the events of some kinds in one window.

    Args:
        name: Of what runs it.
    """

    name: str

    def relation(self, kind: str) -> str:
        """What to select the events of `kind` from."""

    def quantile(self, value: str, share: float) -> str:
        """The exact quantile of an expression, interpolated between neighbours."""

    def bucket(self, time: str, seconds: str) -> str:
        """The number of the bucket of so many seconds, counted from the epoch, that a time falls into."""

    def epoch_us(self, time: str) -> str:
        """A time as microseconds since the epoch."""

    def parameter(self, name: str, kind: ParameterKind) -> str:
        """The place of a bound value; a `time` is bound as microseconds since the epoch."""

    def query(self, sql: str, **parameters: Any) -> "pa.Table": ...


class Source(Protocol):
    """Where the events are."""

    def engine(
        self,
        kinds: Iterable[str],
        *,
        start_us: int = 0,
        end_us: int = END_OF_TIME_US,
        columns: Mapping[str, Collection[str]] = ALL_COLUMNS,
    ) -> AbstractContextManager[Engine]:
        """An engine that sees at least the events of `kinds` in [start_us, end_us), in one consistent picture.

        Of a kind that is in `columns` it may see only these: a wide one takes 20 ms to make ready whole.
        """

    def times_of(self, kind: str, seq: int) -> tuple[int, int] | None:
        """Times between which the event of that number was observed, [from, to); None where there is none."""

    def trend(self, question: "TrendQuestion") -> "TrendReading | None":
        """What a trend is made of, for whom that is at hand; None where an engine is to be asked."""

    def newest(self, question: "NewestQuestion") -> "Sequence[Mapping[str, Any]]":
        """The newest row of each series of a kind."""


@cache
def sql_text(name: str) -> str:
    """The text of `query/sql/NAME.sql`, with its fragments still to be filled in as `{fragment}`."""
    return files("query").joinpath("sql").joinpath(f"{name}.sql").read_text()


def in_window(engine: Engine) -> str:
    """The condition that an event lies in [start, end), for the parameters of these names."""
    return f"observed_at >= {engine.parameter('start', 'time')} and observed_at < {engine.parameter('end', 'time')}"
