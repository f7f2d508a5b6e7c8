"""Prompts and answers stay out of the ledger, whichever way in, wherever they stand in what is sent."""

import itertools
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

PATHS = ("/ingest/events", "/ingest/litellm", "/v1/traces", "/v1/metrics")
NUMBERS = itertools.count(1)  # ids of their own: what is sent again is not stored again
CANARY = "zanzibar-canary-4711"
WORDS = st.sampled_from([CANARY, f"tell me of {CANARY}\n", f"{CANARY} " * 300])
NAMES = st.sampled_from(
    [
        "prompt",
        "messages",
        "response",
        "content",
        "gen_ai.prompt",
        "gen_ai.completion",
        "gen_ai.input.messages",
        "gen_ai.output.messages",
        "gen_ai.system_instructions",
        "llm.prompts.0.content",
        "traceloop.entity.input",
        "traceloop.entity.output",
        "input.value.text",
        "tool-arguments",
    ]
)
NESTED = st.recursive(
    WORDS, lambda inner: st.lists(inner, min_size=1, max_size=2) | st.dictionaries(NAMES, inner, min_size=1, max_size=2)
)
CONTENT = st.dictionaries(NAMES, NESTED, min_size=1, max_size=5)


def attribute(name, value):
    if isinstance(value, dict):
        pairs = [attribute(inner, of_inner) for inner, of_inner in value.items()]
        return {"key": name, "value": {"kvlistValue": {"values": pairs}}}
    if isinstance(value, list):
        return {"key": name, "value": {"arrayValue": {"values": [attribute("", one)["value"] for one in value]}}}
    return {"key": name, "value": {"stringValue": value}}


def own_event(content, now_us):
    return "/ingest/events", {"kind": "request", "observed_at": now_us, "attributes": {**content, "retries": 1}}


def litellm(content, now_us):
    times = {"id": f"c-{next(NUMBERS)}", "startTime": now_us / 1e6 - 1, "endTime": now_us / 1e6}
    return "/ingest/litellm", [{**content, **times, "metadata": content, "model_parameters": content}]


def span(content, now_us):
    attributes = [attribute(name, value) for name, value in content.items()]
    of_span = {
        "traceId": "5b8efff798038103d269b633813fc60c",
        "spanId": f"{next(NUMBERS):016x}",
        "name": "chat llama",
        "kind": 2,
        "startTimeUnixNano": str(now_us * 1000),
        "endTimeUnixNano": str(now_us * 1000),
        "attributes": attributes,
        "events": [{"name": "gen_ai.user.message", "attributes": attributes}],
    }
    scope = {"scope": {"attributes": attributes}, "spans": [of_span]}
    return "/v1/traces", {"resourceSpans": [{"resource": {"attributes": attributes}, "scopeSpans": [scope]}]}


def gauge(content, now_us):
    attributes = [attribute(name, value) for name, value in content.items()]
    exemplar = {"filteredAttributes": attributes, "asInt": "1"}
    point = {"timeUnixNano": str(now_us * 1000), "asInt": "3", "attributes": attributes, "exemplars": [exemplar]}
    metric = {"name": "vllm:num_requests_running", "gauge": {"dataPoints": [point]}}
    scopes = [{"metrics": [metric]}]
    return "/v1/metrics", {"resourceMetrics": [{"resource": {"attributes": attributes}, "scopeMetrics": scopes}]}


@pytest.mark.parametrize("way", [own_event, litellm, span, gauge])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=CONTENT)
def test_no_text_of_a_prompt_or_an_answer_reaches_the_ledgers_folder_or_the_log(way, content, face, now_us, caplog):
    path, body = way(content, now_us)
    status, _, answer = face.post(path, body)
    assert status == 200
    assert sum(face.door.tally.events[path, "accepted"] for path in PATHS) == 1
    face.door.tally.events.clear()
    assert CANARY not in answer.decode()
    assert CANARY not in caplog.text
    for file in (one for one in face.folder.rglob("*") if one.is_file()):
        assert CANARY.encode() not in file.read_bytes(), file.name


def test_the_search_finds_what_is_stored(face, now_us):
    """Otherwise the property above would say nothing."""
    path, body = own_event({}, now_us)
    assert face.post(path, {**body, "service": CANARY})[0] == 200
    assert any(CANARY.encode() in one.read_bytes() for one in face.folder.rglob("*") if one.is_file())


SECRET = "sk-abcdefghijklmnopqrstuv"


@pytest.mark.parametrize("padding", [0, 150, 190, 205, 1990, 5000])
def test_error_texts_are_cut_and_their_secrets_hidden_also_where_the_cut_falls_into_one(face, now_us, padding):
    told = f"{'x' * padding} api_key={SECRET} and on and on {'y' * 500}"
    failed = {"error_class": "E", "error_message": told}
    call = {"id": "c", "startTime": now_us / 1e6, "endTime": now_us / 1e6, "status": "failure"}
    _, spans = span({}, now_us)
    of_span = spans["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    of_span["status"] = {"code": 2, "message": told}
    for path, body in (
        ("/ingest/events", {"kind": "request", "error_message": told}),
        ("/ingest/litellm", {**call, "error_information": failed}),
        ("/v1/traces", spans),
    ):
        assert face.post(path, json.dumps(body))[0] == 200
    messages = [row["error_message"] for row in face.rows()]
    assert len(messages) == 3
    assert max(map(len, messages)) <= 200
    for file in (one for one in face.folder.rglob("*") if one.is_file()):
        assert SECRET[:8].encode() not in file.read_bytes()
