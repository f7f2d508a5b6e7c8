"""The two tools that write: not there unless allowed, and then a file in one folder, and a note."""

import json
import shutil
from dataclasses import replace

import polars as pl
import pytest

from mcp_server.tokens import tokens
from mcp_server.tools import Desk, all_tools
from query.export import ExportFolder


@pytest.fixture
def writable(recorded, settings, tmp_path):
    folder = shutil.copytree(recorded, tmp_path / "ledger")
    export = ExportFolder(tmp_path / "exports", 10_000_000)
    return replace(settings, folder=folder, export=export, allows_annotations=True)


def names(settings):
    return {tool.name for tool in all_tools(Desk(settings))}


def test_they_are_listed_only_where_they_are_allowed(settings, writable):
    assert names(writable) - names(settings) == {"add_annotation", "export_data"}
    assert names(replace(writable, export=None)) - names(settings) == {"add_annotation"}
    hints = {tool.name: tool.annotations for tool in all_tools(Desk(writable))}
    assert [name for name, one in hints.items() if not one.read_only_hint] == ["add_annotation", "export_data"]


def test_the_whole_list_is_small_with_them(writable):
    wire = [
        {"name": tool.name, "description": tool.description, "inputSchema": tool.parameters,
         "outputSchema": tool.output_schema, "annotations": tool.annotations.model_dump(by_alias=True, exclude_none=True)}
        for tool in all_tools(Desk(writable))
    ]  # fmt: skip
    assert tokens(json.dumps(wire, separators=(",", ":"))) <= 2_800


@pytest.mark.parametrize("what", ["gpu_sample", "select gpu_index, power_watts from gpu_sample"])
def test_an_export_is_a_file_that_polars_reads(writable, ask, what):
    told = ask(writable, "export_data", {"what": what, "name": "mine", "window": "1h"}).structured_content
    path = writable.export.path / "mine.parquet"
    assert told["path"] == str(path)
    assert pl.read_parquet(path).height == told["events"] == 1200
    assert path.stat().st_size == told["size_bytes"]


def test_a_name_that_leads_elsewhere_is_refused_and_nothing_is_written(writable, ask):
    answer = ask(writable, "export_data", {"what": "gpu_sample", "name": "../mine"})
    assert answer.is_error
    assert "cannot be the name of an export" in answer.content[0].text
    assert not list(writable.folder.parent.glob("mine*"))


def test_a_note_is_found_where_it_was_pinned(writable, ask):
    told = ask(writable, "add_annotation", {"text": "swapped the fan", "at": "5m", "tags": ["fan"]})
    assert told.structured_content["seq"] > 0
    found = ask(writable, "list_events", {"types": ["annotation"]}).structured_content["events"]
    assert [row[found["columns"].index("message")] for row in found["rows"]] == ["swapped the fan"]
