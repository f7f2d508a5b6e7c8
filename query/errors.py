"""Questions that cannot be answered as asked. The tree is drawn in `store.errors`."""

from store.errors import UsageError


class WindowError(UsageError):
    """A time window that cannot be read, or that can be read in two ways."""


class UnknownMetricError(UsageError):
    pass


class UnknownGpuError(UsageError):
    pass


class UnknownKindError(UsageError):
    pass


class SqlRefusedError(UsageError):
    """SQL that is not one plain SELECT over the published views."""


class SqlFailedError(UsageError):
    """SQL that was allowed and that DuckDB could not run."""
