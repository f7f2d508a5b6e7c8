"""OTLP over HTTP: `/v1/traces` and `/v1/metrics`, protobuf and JSON.

https://opentelemetry.io/docs/specs/otlp/#otlphttp. What decodes a body is imported when the first one comes; the
answers are three fields and written here by hand: ExportTraceServiceResponse and ExportMetricsServiceResponse have the
same numbers, and a refusal is a google.rpc.Status.
"""

from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, Response

from collector.ingest.intake import Outcome
from collector.ingest.reading import Arrival, Read, Refusal

if TYPE_CHECKING:
    from collector.ingest.series import SeriesReader

PROTOBUF, JSON = "application/x-protobuf", "application/json"
_RETRYABLE = {429: 8, 503: 14}  # google.rpc.Code: RESOURCE_EXHAUSTED, UNAVAILABLE
_INVALID_ARGUMENT = 3


def read_traces(body: bytes, content_type: str, arrival: Arrival) -> Read:
    """Requests from spans. Raises `Refusal` where the body cannot be read."""
    _check(content_type)
    from collector.ingest.spans import read_spans  # noqa: PLC0415 - protobuf takes 12 MiB, for those who use it

    return read_spans(body, content_type == JSON, arrival)


class MetricsReader:
    """Samples of inference servers from metrics; what they count from is kept between two bodies."""

    def __init__(self) -> None:
        self._series: SeriesReader | None = None

    def read(self, body: bytes, content_type: str, arrival: Arrival) -> Read:
        """The samples of a body. Raises `Refusal` where it cannot be read."""
        _check(content_type)
        if self._series is None:
            from collector.ingest.series import SeriesReader  # noqa: PLC0415 - as above

            self._series = SeriesReader()
        return self._series.read(body, content_type == JSON, arrival)


def _check(content_type: str) -> None:
    if content_type not in (PROTOBUF, JSON):
        raise Refusal(415, f"OTLP comes as {PROTOBUF} or {JSON}, not as {content_type[:100]!r}")


def answer_traces(outcome: Outcome, content_type: str) -> Response:
    return _answer(outcome.read, content_type, "rejectedSpans")


def answer_metrics(outcome: Outcome, content_type: str) -> Response:
    return _answer(outcome.read, content_type, "rejectedDataPoints")


def _answer(read: Read, content_type: str, rejected_name: str) -> Response:
    message = "; ".join(read.problems)
    if content_type == JSON:
        partial = {rejected_name: str(read.rejected), "errorMessage": message}  # int64 is text in protobuf's JSON
        return JSONResponse({"partialSuccess": partial} if read.rejected else {})
    partial_bytes = _number(1, read.rejected) + _text(2, message.encode())
    return Response(_text(1, partial_bytes) if read.rejected else b"", media_type=PROTOBUF)


def refuse(refusal: Refusal, content_type: str) -> Response:
    code = _RETRYABLE.get(refusal.status, _INVALID_ARGUMENT)
    if content_type == PROTOBUF:
        body = _number(1, code) + _text(2, refusal.sentence.encode())
        return Response(body, refusal.status, media_type=PROTOBUF)
    return JSONResponse({"code": code, "message": refusal.sentence}, refusal.status)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _text(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)
