"""`/ingest/litellm`: LiteLLM's generic API callback.

It posts batches of its StandardLoggingPayload (litellm/types/utils.py) to GENERIC_LOGGER_ENDPOINT, as a JSON array or
NDJSON. Only the fields named here are decoded: messages and response never leave the body.
"""

from typing import Any

import msgspec

from collector.ingest.reading import Arrival, Read, check_time, read_each
from collector.ingest.requests import completed
from collector.ingest.texts import error_text, pseudonym, safe_attributes, short_text
from store.events import Event

_OPERATIONS = {
    "completion": "chat",
    "acompletion": "chat",
    "text_completion": "text_completion",
    "atext_completion": "text_completion",
    "embedding": "embeddings",
    "aembedding": "embeddings",
}
"""LiteLLM's call types by the names of gen_ai.operation.name; others stay as they are."""


class _Failure(msgspec.Struct):
    error_class: str | None = None
    error_code: str | None = None
    error_message: str | None = None


class _Metadata(msgspec.Struct):
    user_api_key_alias: str | None = None
    user_api_key_team_alias: str | None = None
    user_api_key_team_id: str | None = None


class _Payload(
    msgspec.Struct, rename={"started_s": "startTime", "ended_s": "endTime", "first_s": "completionStartTime"}
):
    id: str
    started_s: float
    ended_s: float
    first_s: float | None = None
    trace_id: str | None = None
    call_type: str | None = None
    stream: bool | None = None
    status: str | None = None
    model: str | None = None
    model_group: str | None = None
    custom_llm_provider: str | None = None
    api_base: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    response_cost: float | None = None
    cache_hit: bool | None = None
    end_user: str | None = None
    error_str: str | None = None
    error_information: _Failure | None = None
    metadata: _Metadata | None = None


_decode = msgspec.json.Decoder(_Payload, strict=False).decode


def read_litellm(body: bytes, _content_type: str, arrival: Arrival) -> Read:
    """The requests of a body. Raises `Refusal` where it cannot be read at all."""
    return read_each(body, lambda item: _event(_decode(item), arrival))


def _event(sent: _Payload, arrival: Arrival) -> Event:
    ended_us = check_time(round(sent.ended_s * 1e6), arrival)
    started_us = check_time(round(sent.started_s * 1e6), arrival)
    metadata = sent.metadata or _Metadata()
    values: dict[str, Any] = {
        "source": "litellm",
        "source_event_id": short_text(sent.id),
        "service": "litellm",
        "started_at": started_us,
        "ended_at": ended_us,
        "trace_id": short_text(sent.trace_id),
        "operation": short_text(_OPERATIONS.get(sent.call_type or "", sent.call_type)),
        "request_model": short_text(sent.model_group or sent.model),
        "response_model": short_text(sent.model),
        "provider": short_text(sent.custom_llm_provider),
        "server_address": _server(sent.api_base),
        "stream": sent.stream,
        "input_tokens": sent.prompt_tokens,
        "output_tokens": sent.completion_tokens,
        "cost_usd": sent.response_cost,
        "tenant": short_text(metadata.user_api_key_team_alias or metadata.user_api_key_team_id),
        "user_hash": pseudonym(sent.end_user, arrival.ledger_id),
        "attributes": safe_attributes({} if sent.cache_hit is None else {"cache_hit": sent.cache_hit}),
        **_failure(sent),
    }
    if sent.stream and sent.first_s is not None and sent.first_s >= sent.started_s:
        values["time_to_first_token_seconds"] = sent.first_s - sent.started_s
    return Event("request", ended_us, completed(values, ended_us))


def _failure(sent: _Payload) -> dict[str, Any]:
    """How it ended: `completed` judges by the HTTP status where there is an error."""
    if sent.status != "failure":
        return {"status": "ok"}
    told = sent.error_information or _Failure()
    code = told.error_code or ""
    return {
        "error_type": short_text(told.error_class) or "unknown",
        "error_message": error_text(told.error_message or sent.error_str),
    } | ({"http_status": int(code)} if code.isdecimal() and len(code) == 3 else {})


def _server(api_base: str | None) -> str | None:
    """Host and port of a URL: what stands before them may be a password, what comes after a key."""
    if not api_base:
        return None
    authority = api_base.partition("://")[2] or api_base
    return short_text(authority.partition("/")[0].partition("?")[0].rpartition("@")[2])
