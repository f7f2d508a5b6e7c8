"""What can be worked out of a request's own figures, whichever way it came in."""

from typing import Any

from collector.request_log import event_id

_TIMEOUT, _REJECTED, _CANCELLED = frozenset({408, 504}), frozenset({429, 503}), frozenset({499})


def status_of(http_status: int | None, *, is_error: bool) -> str:
    """How a request ended, by its HTTP status; 499 is nginx's word for a client that left."""
    if http_status in _TIMEOUT:
        return "timeout"
    if http_status in _REJECTED:
        return "rejected"
    if http_status in _CANCELLED:
        return "cancelled"
    return "error" if is_error or (http_status or 0) >= 400 else "ok"


def completed(values: dict[str, Any], ended_us: int) -> dict[str, Any]:
    """The values of a request with its identity, times, status and time per output token, where it lacks them."""
    duration_s = values.get("duration_seconds")
    started_us = values.get("started_at")
    values.setdefault("event_id", event_id(ended_us))
    values.setdefault("ended_at", ended_us)
    if duration_s is None and started_us is not None:
        duration_s = values["duration_seconds"] = max(0.0, (values["ended_at"] - started_us) / 1e6)
    if started_us is None and duration_s is not None:
        values["started_at"] = values["ended_at"] - round(duration_s * 1e6)
    if "status" not in values:
        is_error = "error_type" in values or "error_message" in values
        values["status"] = status_of(values.get("http_status"), is_error=is_error)
    first_s, tokens = values.get("time_to_first_token_seconds"), values.get("output_tokens") or 0
    is_told = "time_per_output_token_seconds" in values
    if not is_told and duration_s is not None and first_s is not None and tokens > 1:
        values["time_per_output_token_seconds"] = max(0.0, duration_s - first_s) / (tokens - 1)
    return values
