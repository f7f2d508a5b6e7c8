"""Questions that cannot be answered as asked. The tree is drawn in `store.errors`."""

from store.errors import UsageError

_WORDS_MAX = 400


class WindowError(UsageError):
    """A time window that cannot be read, or that can be read in two ways."""


class UnknownMetricError(UsageError):
    pass


class UnknownGpuError(UsageError):
    pass


class UnknownEventTypeError(UsageError):
    pass


class LengthError(UsageError):
    """A length of time that cannot be read."""


class QuantityError(UsageError):
    """A value that cannot be read, or that is of another unit."""


class GroupingError(UsageError):
    """Requests cannot be grouped, cut or judged like that."""


class UnknownKindError(UsageError):
    pass


class SqlRefusedError(UsageError):
    """SQL that is not one plain SELECT over the published views."""


class SqlFailedError(UsageError):
    """SQL that was allowed and that DuckDB could not run."""


def first_words(message: str) -> str:
    """What DuckDB says is wrong, as one line: without the excerpt of the SQL, and cut where it quotes a long value."""
    line = " ".join(message.split("\n\nLINE", 1)[0].split())
    return line if len(line) <= _WORDS_MAX else f"{line[: _WORDS_MAX - 1]}…"
