"""Requests from OTLP spans.

A request is a span of a server (HTTP, RPC, vLLM's llm_request), or one of any kind that bears GenAI attributes with an
operation, a model or a system. Names old and new are known: those of OpenTelemetry's GenAI, HTTP and RPC conventions
(https://github.com/open-telemetry/semantic-conventions-genai), of vLLM (vllm/tracing.py: gen_ai.latency.*) and of
OpenLLMetry (llm.*). Other spans are no requests and are passed over. Attributes that are not named here are not read,
so no prompt or answer can come in.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from collector.ingest.protobuf import attributes_of, decoded, id_text
from collector.ingest.reading import EVENTS_MAX, PROBLEMS_MAX, Arrival, Read, check_time, too_many
from collector.ingest.requests import completed
from collector.ingest.texts import TEXT_CHARACTERS_MAX, error_text, pseudonym, short_text
from store.events import Event

INT32_MAX, INT64_MAX = 2**31 - 1, 2**63 - 1
_NUMBERS = frozenset({int, float})  # asked by type: a flag is no number, and isinstance of a union takes twice as long
_SCALARS = _NUMBERS | {bool, str}

_GRPC_STATUS = {1: "cancelled", 4: "timeout", 8: "rejected", 14: "rejected"}


def _seconds(value: Any) -> float | None:
    return float(value) if type(value) in _NUMBERS and 0 <= value < math.inf else None


def _count(value: Any) -> int | None:
    whole = int(value) if type(value) is float and value.is_integer() else value
    return whole if type(whole) is int and 0 <= whole <= INT64_MAX else None


def _small(value: Any) -> int | None:
    number = _count(int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 10 else value)
    return number if number is not None and number <= INT32_MAX else None


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _joined(value: Any) -> str | None:
    return short_text(",".join(value) if isinstance(value, list) else value)


def _path(value: Any) -> str | None:
    """A path without its query, which may hold a key."""
    return short_text(value.partition("?")[0]) if isinstance(value, str) else None


COLUMNS: Mapping[str, tuple[Callable[[Any], Any], tuple[str, ...]]] = {
    "operation": (short_text, ("gen_ai.operation.name", "llm.request.type")),
    "request_model": (short_text, ("gen_ai.request.model", "llm.request.model")),
    "response_model": (short_text, ("gen_ai.response.model", "llm.response.model")),
    "provider": (short_text, ("gen_ai.provider.name", "gen_ai.system")),
    "server_address": (short_text, ("server.address", "net.host.name", "http.host")),
    "stream": (_flag, ("gen_ai.request.stream", "llm.is_streaming")),
    "method": (short_text, ("http.request.method", "http.method", "rpc.method")),
    "endpoint": (_path, ("http.route", "url.path", "http.target")),
    "http_status": (_small, ("http.response.status_code", "http.status_code")),
    "error_type": (short_text, ("error.type",)),
    "finish_reason": (_joined, ("gen_ai.response.finish_reasons", "llm.response.finish_reason")),
    "duration_seconds": (_seconds, ("gen_ai.latency.e2e",)),
    "queue_seconds": (_seconds, ("gen_ai.latency.time_in_queue",)),
    "prefill_seconds": (_seconds, ("gen_ai.latency.time_in_model_prefill",)),
    "decode_seconds": (_seconds, ("gen_ai.latency.time_in_model_decode",)),
    "time_to_first_token_seconds": (
        _seconds,
        (
            "gen_ai.latency.time_to_first_token",
            "gen_ai.server.time_to_first_token",
            "gen_ai.response.time_to_first_chunk",
        ),
    ),
    "input_tokens": (
        _count,
        ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.usage.prompt_tokens"),
    ),
    "output_tokens": (
        _count,
        ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.usage.completion_tokens"),
    ),
    "cached_input_tokens": (
        _count,
        ("gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_read_input_tokens"),
    ),
    "reasoning_tokens": (_count, ("gen_ai.usage.reasoning.output_tokens", "gen_ai.usage.reasoning_tokens")),
}
"""Column, what makes its value of an attribute's, and the attributes that say it, the newest name first."""

_KEPT = frozenset(
    {"gen_ai.request.id", "gen_ai.response.id", "gen_ai.conversation.id", "gen_ai.request.max_tokens"}
    | {"gen_ai.request.temperature", "gen_ai.request.top_p", "gen_ai.request.n", "gen_ai.usage.num_sequences"}
    | {"gen_ai.tool.name", "gen_ai.agent.name", "rpc.system", "gen_ai.latency.time_in_model_inference"}
)
_OTHERS = frozenset(
    {"rpc.service", "rpc.grpc.status_code", "rpc.response.status_code", "enduser.id", "user.id", "server.port"}
)
_READINGS = {name: (column, rank, made) for column, (made, names) in COLUMNS.items() for rank, name in enumerate(names)}
"""Of each attribute the column, how many names of it are newer, and what makes its value."""
_WANTED = frozenset(_READINGS) | _KEPT | _OTHERS
_OF_GENAI = frozenset({"gen_ai.operation.name", "gen_ai.request.model", "gen_ai.response.model", "gen_ai.system"})
_OF_RESOURCE = frozenset({"service.name", "process.pid", "server.address", "host.name", "tenant"})
_OF_EXCEPTION = frozenset({"exception.type", "exception.message"})


def read_spans(body: bytes, is_json: bool, arrival: Arrival) -> Read:
    """The requests among the spans of an ExportTraceServiceRequest. Raises `Refusal` where it is none."""
    message = decoded(ExportTraceServiceRequest(), body, is_json=is_json)
    if sum(len(scope.spans) for part in message.resource_spans for scope in part.scope_spans) > EVENTS_MAX:
        raise too_many()
    events: list[Event] = []
    problems: list[str] = []
    rejected = 0
    for part in message.resource_spans:
        resource = attributes_of(part.resource.attributes, _OF_RESOURCE)
        for span in (span for scope in part.scope_spans for span in scope.spans):
            try:
                if (event := _event(span, resource, arrival)) is not None:
                    events.append(event)
            except ValueError as error:
                rejected += 1
                if rejected <= PROBLEMS_MAX:
                    problems.append(f"span {span.name[:100]!r}: {error}")
    return Read(events, rejected, problems)


def _event(span: Span, resource: Mapping[str, Any], arrival: Arrival) -> Event | None:
    said = attributes_of(span.attributes, _WANTED)
    if span.kind != Span.SPAN_KIND_SERVER and _OF_GENAI.isdisjoint(said):
        return None
    trace_id, span_id = id_text(span.trace_id, 16), id_text(span.span_id, 8)
    if trace_id is None or span_id is None:
        raise ValueError("its trace id or span id is none")
    started_us = check_time(span.start_time_unix_nano // 1000, arrival)
    ended_us = check_time(span.end_time_unix_nano // 1000, arrival)
    if ended_us < started_us:
        raise ValueError("it ends before it begins")
    values: dict[str, Any] = {
        "source": "otlp",
        "source_event_id": f"{trace_id}-{span_id}",
        "started_at": started_us,
        "ended_at": ended_us,
        "trace_id": trace_id,
        "span_id": span_id,
        "service": short_text(resource.get("service.name")),
        "pid": _small(resource.get("process.pid")),
        "tenant": short_text(resource.get("tenant")),
        **_columns(said),
    }
    values.setdefault("server_address", short_text(resource.get("server.address") or resource.get("host.name")))
    values["user_hash"] = pseudonym(said.get("enduser.id") or said.get("user.id"), arrival.ledger_id)
    values["attributes"] = _kept(said)
    values |= _rpc(said) | _failure(span, values)
    values.setdefault("endpoint", short_text(span.name))
    return Event("request", ended_us, completed(values, ended_us))


def _columns(said: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that attributes fill, each by the newest of its names that says something."""
    found: dict[str, Any] = {}
    ranks: dict[str, int] = {}
    for name, said_value in said.items():
        if (reading := _READINGS.get(name)) is not None:
            column, rank, made = reading
            if rank < ranks.get(column, math.inf) and (value := made(said_value)) is not None:
                found[column], ranks[column] = value, rank
    return found


def _kept(said: Mapping[str, Any]) -> dict[str, Any] | None:
    """The few attributes that stay as they are: ids, settings of the request, names; texts are cut."""
    return {
        name: value[:TEXT_CHARACTERS_MAX] if isinstance(value, str) else value
        for name, value in said.items()
        if name in _KEPT and type(value) in _SCALARS
    } or None


def _rpc(said: Mapping[str, Any]) -> dict[str, Any]:
    """Service and method as gRPC writes its paths, and how its status codes end a call."""
    found = {}
    if isinstance(service := said.get("rpc.service"), str):
        found["endpoint"] = short_text(f"/{service}/{said.get('rpc.method', '')}")
    code = said.get("rpc.grpc.status_code", said.get("rpc.response.status_code"))
    if isinstance(code, int) and code != 0:
        found["status"] = _GRPC_STATUS.get(code, "error")
    return found


def _failure(span: Span, values: Mapping[str, Any]) -> dict[str, Any]:
    """What a span that failed says of it; its exceptions are looked at only then."""
    if span.status.code != Status.STATUS_CODE_ERROR:
        return {}
    thrown: dict[str, Any] = {}
    for event in span.events[-4:]:
        thrown |= attributes_of(event.attributes, _OF_EXCEPTION) if event.name == "exception" else {}
    error_type = values.get("error_type") or short_text(thrown.get("exception.type")) or "unknown"
    message = error_text(span.status.message) or error_text(thrown.get("exception.message"))
    return {"error_type": error_type} | ({"error_message": message} if message else {})
