"""LiteLLM's generic API callback, with the fields of its StandardLoggingPayload."""

import json

import pytest

PATH = "/ingest/litellm"


@pytest.fixture
def payload(now_us):
    """One as LiteLLM 1.109 builds it (litellm/types/utils.py), less what is not read."""
    ended_s = now_us / 1e6
    return {
        "id": "chatcmpl-1",
        "trace_id": "t-1",
        "call_type": "acompletion",
        "stream": True,
        "status": "success",
        "model": "llama-3",
        "model_group": "chat-default",
        "custom_llm_provider": "hosted_vllm",
        "api_base": "http://user:password@gpu-1:8000/v1?key=secret",
        "startTime": ended_s - 3,
        "completionStartTime": ended_s - 2,
        "endTime": ended_s,
        "prompt_tokens": 50,
        "completion_tokens": 11,
        "total_tokens": 61,
        "response_cost": 0.002,
        "cache_hit": False,
        "end_user": "ada@example.com",
        "metadata": {"user_api_key_alias": "key", "user_api_key_team_alias": "team-a", "requester_ip_address": None},
        "messages": [{"role": "user", "content": "the prompt"}],
        "response": {"choices": [{"message": {"content": "the answer"}}]},
        "error_str": None,
        "error_information": {"error_code": "", "error_class": "", "error_message": ""},
    }


def test_a_request_is_stored_without_its_texts_and_names(face, payload):
    status, answer = face.send(PATH, [payload, {**payload, "startTime": "soon"}])
    told = "event 2: expected float, got str in startTime"
    assert (status, answer) == (200, {"stored": 1, "repeated": 0, "rejected": 1, "errors": [told]})
    assert face.send(PATH, json.dumps(payload))[1]["repeated"] == 1
    (row,) = face.rows()
    expected = {
        "source": "litellm",
        "source_event_id": "chatcmpl-1",
        "trace_id": "t-1",
        "service": "litellm",
        "operation": "chat",
        "request_model": "chat-default",
        "response_model": "llama-3",
        "provider": "hosted_vllm",
        "server_address": "gpu-1:8000",
        "stream": True,
        "status": "ok",
        "duration_seconds": pytest.approx(3.0, abs=1e-5),
        "time_to_first_token_seconds": pytest.approx(1.0, abs=1e-5),
        "time_per_output_token_seconds": pytest.approx(0.2, abs=1e-5),
        "input_tokens": 50,
        "output_tokens": 11,
        "cost_usd": 0.002,
        "tenant": "team-a",
    }
    assert {name: row[name] for name in expected} == expected
    for text in ("the prompt", "the answer", "ada", "password", "secret"):
        assert text not in str(row)


def test_a_failure_says_why(face, payload):
    failure = {
        **payload,
        "status": "failure",
        "error_information": {
            "error_code": "429",
            "error_class": "RateLimitError",
            "error_message": "slow down, Bearer sk-abcdefghijklmnopqrst",
        },
    }
    assert face.send(PATH, [failure])[1]["stored"] == 1
    (row,) = face.rows()
    told = [row[name] for name in ("status", "http_status", "error_type", "error_message")]
    assert told == ["rejected", 429, "RateLimitError", "slow down, Bearer ***"]
