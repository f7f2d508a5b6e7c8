"""Times as the ledger writes them: microseconds since the epoch, and ISO 8601 where a person reads along."""

from datetime import UTC, datetime

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US


def iso_text(time_us: int) -> str:
    """Always with six digits of microseconds, which sort as the times do."""
    moment = datetime.fromtimestamp(time_us // 1_000_000, UTC).replace(microsecond=time_us % 1_000_000)
    return moment.isoformat(timespec="microseconds")


def microseconds(text: str) -> int:
    """The time that `iso_text` wrote, exactly: a float of seconds would lose microseconds.

    Raises:
        ValueError: It is no time.
    """
    moment = datetime.fromisoformat(text)
    return int(moment.replace(microsecond=0).timestamp()) * 1_000_000 + moment.microsecond
