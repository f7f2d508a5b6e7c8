"""Resources, templates, prompts and completions over the official client."""

import json
from dataclasses import replace

import anyio
import pytest
from mcp import Client, MCPError
from mcp.types import PromptReference, ResourceTemplateReference

from mcp_server.completions import matching
from mcp_server.prompts import PROMPTS
from mcp_server.resources import LIVE_URI, ListenedBus
from mcp_server.server import make_server

PATHS = ("hardware/specs", "hardware/topology", "hardware/gpus", "hardware/cpu", "hardware/memory", "hardware/storage")
INHERITED = (*PATHS, "hardware/network", "system/capabilities", "system/health", "server/info")
JSON = "application/json"
OWN = ("schema", "metrics", "sql/examples", "status", "live", "events/recent")


def converse(settings, talk, era="auto"):
    async def call():
        async with Client(make_server(settings), mode=era) as client:
            return await talk(client)

    return anyio.run(call)


def read(settings, uri):
    async def talk(client):
        (content,) = (await client.read_resource(uri)).contents
        return json.loads(content.text)

    return converse(settings, talk)


@pytest.mark.parametrize("era", ["auto", "legacy"])
def test_every_resource_can_be_read_and_the_inherited_ones_under_both_schemes(settings, era):
    async def talk(client):
        uris = [str(one.uri) for one in (await client.list_resources()).resources if one.mime_type == JSON]
        return {uri: json.loads((await client.read_resource(uri)).contents[0].text) for uri in uris}

    found = converse(settings, talk, era)
    expected = [f"telemetry://{path}" for path in (*OWN, *INHERITED)] + [f"dgx://{path}" for path in INHERITED]
    assert sorted(found) == sorted(expected)
    for path in INHERITED:
        assert type(found[f"dgx://{path}"]) is type(found[f"telemetry://{path}"])
    gpus = found["dgx://hardware/gpus"]
    assert [(gpu["gpu_index"], gpu["name"]) for gpu in gpus] == [(0, "NVIDIA H200"), (1, "NVIDIA H200")]
    assert found["telemetry://status"]["kinds"]["gpu_sample"] == 1200
    assert found["telemetry://metrics"]["gpu.power_watts"] == "W"
    assert "power_watts" in found["telemetry://schema"]["gpu_sample"]["columns"]


def test_templates_answer_for_one_table_and_one_gpu(settings):
    assert read(settings, "telemetry://schema/request")["view"] == "request"
    one = read(settings, "telemetry://gpu/1")
    assert [row["gpu_uuid"][:8] for row in one["described"]] == ["GPU-bbbb"]
    history = read(settings, "telemetry://gpu/1/history?metric=gpu.power_watts&window=5m")
    assert history["stats"]["rows"][0][:3] == ["gpu.power_watts", "W", "1"]
    assert read(settings, "telemetry://gpu/0/history")["stats"]["rows"][0][0] == "gpu.utilization_percent"


@pytest.mark.parametrize("uri", ["telemetry://nothing", "telemetry://gpu/zero", "telemetry://schema/gpu_samples"])
def test_what_is_not_there_is_refused_as_the_protocol_says(settings, uri):
    async def talk(client):
        with pytest.raises(MCPError) as refused:
            await client.read_resource(uri)
        return refused.value.error.code

    assert converse(settings, talk) == -32602


def test_reading_without_a_ledger_says_so_and_the_server_lives_on(settings, tmp_path):
    async def talk(client):
        with pytest.raises(MCPError, match="There is no ledger"):
            await client.read_resource("telemetry://live")
        return await client.read_resource("telemetry://metrics")

    assert converse(replace(settings, folder=tmp_path / "nowhere"), talk).contents


def test_listeners_are_told_of_a_newer_state_and_nobody_is_asked_without_them():
    asked = []

    def newest():
        asked.append(len(asked))
        return len(asked) // 2

    async def listen():
        bus = ListenedBus(newest, every_s=0.0)
        heard, enough = [], anyio.Event()

        def listener(event):
            heard.append(event.uri)
            if len(heard) == 3:
                enough.set()

        assert not asked
        leave = bus.subscribe(listener)
        await enough.wait()
        leave()
        leave()  # twice is once
        await anyio.lowlevel.checkpoint()
        count = len(asked)
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        return heard, len(asked) - count

    heard, asked_after = anyio.run(listen)
    assert heard == [LIVE_URI] * 3
    assert asked_after <= 1  # the question that was under way


def test_every_prompt_can_be_got_and_names_tools_that_are_there(settings):
    async def talk(client):
        tools = {tool.name for tool in (await client.list_tools()).tools}
        prompts = (await client.list_prompts()).prompts
        given = {"a": "yesterday", "b": "today", "question": "how hot?", "start": "9", "end": "10"}
        texts = {}
        for prompt in prompts:
            wanted = {one.name: given[one.name] for one in prompt.arguments or () if one.required}
            texts[prompt.name] = (await client.get_prompt(prompt.name, wanted)).messages[0].content.text
        return tools, texts

    tools, texts = converse(settings, talk)
    assert list(texts) == sorted(prompt.__name__ for prompt in PROMPTS)
    for words in texts.values():
        named = {word for word in words.replace("(", " ( ").split() if "_" in word and word.isidentifier()}
        assert named <= tools | {"top_processes"}
        assert named


@pytest.mark.parametrize("era", ["auto", "legacy"])
def test_an_unknown_prompt_is_a_wrong_parameter_with_the_nearest_name(settings, era):
    async def talk(client):
        with pytest.raises(MCPError, match="did you mean 'gpu_report'") as refused:
            await client.get_prompt("gpu_reprot", {})
        return refused.value.error.code

    assert converse(settings, talk, era) == -32602


COMPLETED = [
    ("telemetry://gpu/{index}/history{?metric,window}", "metric", "gpu.power_w", "gpu.power_watts"),
    ("telemetry://gpu/{index}/history{?metric,window}", "window", "yest", "yesterday"),
    ("telemetry://gpu/{index}", "index", "", "0"),
    ("telemetry://schema/{table}", "table", "gpu_e", "gpu_event"),
]


@pytest.mark.parametrize(("template", "name", "begun", "expected"), COMPLETED)
def test_arguments_of_templates_are_completed(recording_now, template, name, begun, expected):
    async def talk(client):
        reference = ResourceTemplateReference(type="ref/resource", uri=template)
        return (await client.complete(reference, {"name": name, "value": begun})).completion.values

    assert converse(recording_now, talk)[0] == expected


def test_arguments_of_prompts_are_completed_and_unknown_ones_are_empty(settings):
    async def talk(client):
        reference = PromptReference(type="ref/prompt", name="gpu_report")
        windows = (await client.complete(reference, {"name": "window", "value": "7"})).completion.values
        nothing = (await client.complete(reference, {"name": "colour", "value": ""})).completion.values
        return windows, nothing

    assert converse(settings, talk) == (["7d", "yesterday 9-17"], [])


def test_what_begins_like_that_comes_before_what_holds_it():
    assert matching(["a.power", "power", "gpu"], "POW") == ["power", "a.power"]
