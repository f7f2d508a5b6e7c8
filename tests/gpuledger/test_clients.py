"""`gpuledger init`: the server in an MCP client's settings."""

import json
import stat

import pytest

from gpuledger.clients import enter_server, server_command
from store.errors import UsageError


@pytest.fixture
def enter(tmp_path):
    home, folder = tmp_path / "home", tmp_path / "project"
    home.mkdir()
    folder.mkdir()

    def call(**choices):
        return enter_server(
            "claude-code",
            **{"scope": "user", "data": None, "home": home, "folder": folder, "dry_run": False, **choices},
        )

    call.home, call.folder = home, folder
    return call


def entry(**more) -> dict:
    return {"type": "stdio", "command": server_command(), "args": ["mcp"], **more}


def test_the_command_is_absolute():
    assert server_command().startswith("/")


def test_the_server_is_entered_into_a_new_file_that_only_its_owner_may_read(enter):
    done = enter()
    path = enter.home / ".claude.json"
    assert (done.path, done.backup) == (path, None)
    assert json.loads(path.read_text()) == {"mcpServers": {"gpuledger": entry()}}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_else_stands_in_the_file_stays_and_the_file_as_it_was_is_kept(enter):
    path = enter.home / ".claude.json"
    before = '{"theme": "dark", "mcpServers": {"other": {"command": "x"}}}'
    path.write_text(before)
    path.chmod(0o640)
    done = enter()
    assert json.loads(path.read_text()) == {
        "theme": "dark",
        "mcpServers": {"other": {"command": "x"}, "gpuledger": entry()},
    }
    assert done.backup == enter.home / ".claude.json.bak"
    assert done.backup.read_text() == before
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_second_time_changes_nothing(enter):
    enter()
    assert enter().difference == ""


def test_a_dry_run_shows_the_difference_and_writes_nothing(enter):
    done = enter(dry_run=True)
    assert '+    "gpuledger": {' in done.difference
    assert list(enter.home.iterdir()) == []


def test_the_project_scope_writes_into_the_working_folder_with_the_ledger_it_is_for(enter):
    done = enter(scope="project", data=enter.home / "ledger")
    assert done.path == enter.folder / ".mcp.json"
    (server,) = json.loads(done.path.read_text())["mcpServers"].values()
    assert server["args"] == ["mcp", "--data", str(enter.home / "ledger")]


@pytest.mark.parametrize("text", ["{", "[]", '{"mcpServers": []}', "\x00"])
def test_a_damaged_file_is_refused_and_left_as_it_is(enter, text):
    path = enter.home / ".claude.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"\.claude\.json is damaged .*: correct it, or move it aside"):
        enter()
    assert path.read_text() == text
    assert [entry.name for entry in enter.home.iterdir()] == [".claude.json"]


def test_an_unknown_scope_is_refused(enter):
    with pytest.raises(UsageError) as refusal:
        enter(scope="machine")
    assert str(refusal.value) == "claude-code has no machine settings: give --scope user or --scope project"
