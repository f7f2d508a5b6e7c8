"""`gpuledger init`: the server in an MCP client's settings, and out of them again."""

import json
import stat
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuledger.clients import CLIENTS, Place, enter_server, remove_server, server_command
from gpuledger.jsonc import parse, with_member, without_member
from store.errors import UsageError

JSON_CLIENTS = sorted(set(CLIENTS) - {"codex"})


@pytest.fixture
def places(tmp_path):
    """The settings of a client in an empty home and an empty working folder."""
    home, folder = tmp_path / "home", tmp_path / "project"
    home.mkdir()
    folder.mkdir()
    return lambda client="claude-code", scope="user": Place(client, scope, home=home, folder=folder)


def enter(place, *, data=None, dry_run=False):
    return enter_server(place, data=data, dry_run=dry_run)


def given_text(place, text: str):
    path = place.resolved()[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def without_comments(text: str):
    return parse(text).value


def test_the_command_is_absolute():
    assert server_command().startswith("/")


@pytest.mark.parametrize(
    ("client", "scope", "path", "key", "typed"),
    [
        ("claude-code", "user", "home/.claude.json", "mcpServers", True),
        ("claude-code", "project", "project/.mcp.json", "mcpServers", True),
        ("claude-desktop", "user", "home/.config/Claude/claude_desktop_config.json", "mcpServers", False),
        ("cursor", "user", "home/.cursor/mcp.json", "mcpServers", False),
        ("cursor", "project", "project/.cursor/mcp.json", "mcpServers", False),
        ("vscode", "user", "home/.config/Code/User/mcp.json", "servers", True),
        ("vscode", "project", "project/.vscode/mcp.json", "servers", True),
        ("codex", "user", "home/.codex/config.toml", "mcp_servers", False),
        ("gemini", "user", "home/.gemini/settings.json", "mcpServers", False),
        ("gemini", "project", "project/.gemini/settings.json", "mcpServers", False),
    ],
)
def test_each_client_finds_the_server_where_it_looks_for_it(places, tmp_path, client, scope, path, key, typed):
    done = enter(places(client, scope), data=tmp_path / "ledger")
    assert done.path == tmp_path / path
    assert done.backup is None
    text = done.path.read_text()
    found = tomllib.loads(text) if path.endswith(".toml") else json.loads(text)
    command = {"command": server_command(), "args": ["mcp", "--data", str(tmp_path / "ledger")]}
    assert found == {key: {"gpuledger": {**({"type": "stdio"} if typed else {}), **command}}}
    assert stat.S_IMODE(done.path.stat().st_mode) == 0o600


@pytest.mark.parametrize("client", JSON_CLIENTS)
def test_what_else_stands_in_the_file_stays_and_the_file_as_it_was_is_kept(places, client):
    place = places(client)
    key = CLIENTS[client].servers_key
    before = f'{{"theme": "dark", "{key}": {{"other": {{"command": "x"}}}}}}'
    path = given_text(place, before)
    path.chmod(0o640)
    done = enter(place)
    found = json.loads(path.read_text())
    assert found["theme"] == "dark"
    assert list(found[key]) == ["other", "gpuledger"]
    assert done.backup == path.with_name(f"{path.name}.bak")
    assert done.backup.read_text() == before
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


WITH_COMMENTS = """\
// servers of this machine
{
    "inputs": [],   // none yet
    "servers": {
        /* the one that I wrote */
        "mine": { "command": "node", "args": ["a.js"], "url": "http://x//y" }, // keep
        "other": {
            "command": "x", // a last comma is allowed
        }
    }
}
"""


def test_comments_order_and_indentation_stay_and_undo_gives_the_file_as_it_was(places):
    place = places("vscode")
    path = given_text(place, WITH_COMMENTS)
    enter(place)
    text = path.read_text()
    entry = json.dumps({"type": "stdio", "command": server_command(), "args": ["mcp"]}, indent=2)
    indented = entry.replace("\n", "\n        ")
    assert text == WITH_COMMENTS.replace(
        "        }\n    }\n}", f'        }},\n        "gpuledger": {indented}\n    }}\n}}'
    )
    remove_server(place, dry_run=False)
    assert path.read_text() == WITH_COMMENTS


CODEX = """\
# my settings
model = "gpt-5"   # the good one

[mcp_servers.other]
command = "x"     # and its comment
args = ["a"]

[tui]
theme = "dark"
"""


def test_comments_and_order_of_toml_stay_and_undo_gives_the_file_as_it_was(places):
    place = places("codex")
    path = given_text(place, CODEX)
    enter(place)
    text = path.read_text()
    kept = [line for line in text.splitlines() if line and line in CODEX.splitlines()]
    assert kept == [line for line in CODEX.splitlines() if line]
    assert tomllib.loads(text)["mcp_servers"] == {
        "other": {"command": "x", "args": ["a"]},
        "gpuledger": {"command": server_command(), "args": ["mcp"]},
    }
    remove_server(place, dry_run=False)
    assert tomllib.loads(path.read_text()) == tomllib.loads(CODEX)
    assert [line for line in path.read_text().splitlines() if line] == [line for line in CODEX.splitlines() if line]


@pytest.mark.parametrize("client", sorted(CLIENTS))
def test_a_second_time_changes_nothing_and_undo_leaves_nothing_of_it(places, client):
    place = places(client)
    path = enter(place).path
    assert enter(place).difference == ""
    undone = remove_server(place, dry_run=False)
    assert undone.backup == path.with_name(f"{path.name}.bak")
    assert path.read_text().strip() in ("{}", "")
    assert remove_server(place, dry_run=False).difference == ""


@pytest.mark.parametrize("client", sorted(CLIENTS))
def test_an_entry_that_was_there_is_replaced_by_todays(places, tmp_path, client):
    place = places(client)
    path = enter(place, data=tmp_path / "old").path
    enter(place, data=tmp_path / "new")
    text = path.read_text()
    assert (text.count("gpuledger]") or text.count('"gpuledger":')) == 1
    assert str(tmp_path / "new") in text
    assert str(tmp_path / "old") not in text


def test_a_dry_run_shows_the_difference_and_writes_nothing(places):
    place = places()
    assert '+    "gpuledger": {' in enter(place, dry_run=True).difference
    assert list(place.home.iterdir()) == []
    path = enter(place).path
    text = path.read_text()
    assert '-    "gpuledger": {' in remove_server(place, dry_run=True).difference
    assert path.read_text() == text


def test_a_link_to_the_settings_stays_one(places):
    place = places()
    target = place.home / "dotfiles.json"
    target.write_text("{}")
    path = place.resolved()[1]
    path.symlink_to(target)
    enter(place)
    assert path.is_symlink()
    assert "gpuledger" in json.loads(target.read_text())["mcpServers"]


@pytest.mark.parametrize(
    ("client", "text"),
    [("claude-code", text) for text in ("{", "[]", '{"mcpServers": []}', "\x00", "{} x", "{'a': 1}", '{"a": 01}', "{,}", "[" * 500)]
    + [("codex", text) for text in ("[", "a = ", 'mcp_servers = "x"', "\x00")],
)  # fmt: skip
@pytest.mark.parametrize("change", [enter, remove_server], ids=["enter", "undo"])
def test_a_damaged_file_is_refused_and_left_as_it_is(places, client, text, change):
    place = places(client)
    path = given_text(place, text)
    with pytest.raises(UsageError, match=r" is damaged .*: correct it, or move it aside"):
        change(place, dry_run=False)
    assert path.read_text() == text
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_an_unknown_client_or_scope_is_refused(places):
    with pytest.raises(UsageError) as refusal:
        enter(places("cursr"))
    assert str(refusal.value) == "There is no client 'cursr': did you mean 'cursor'?"
    with pytest.raises(UsageError) as refusal:
        enter(places(scope="machine"))
    assert str(refusal.value) == "claude-code has no machine settings: give --scope user or --scope project"


def test_the_command_enters_and_takes_out(gpuledger):
    entered = gpuledger("init", "--client", "codex")
    path = gpuledger.home / ".codex/config.toml"
    assert entered.stdout.endswith(f"{path}: was written\n")
    assert gpuledger("init", "--client", "codex").stdout == f"{path}: gpuledger is entered already\n"
    assert f"(as it was: {path}.bak)" in gpuledger("init", "--client", "codex", "--undo").stdout
    assert gpuledger("init", "--client", "codex", "--undo").stdout == f"{path}: gpuledger is not entered\n"


SPACES = st.sampled_from(["", " ", "\n", "\t", " // {\n", '/* " } */', "\n  "])
KEYS = st.text('ab"\\/é', max_size=3)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | KEYS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def documents(draw, value=None):
    """A text with comments and last commas, and what it holds."""
    value = draw(st.dictionaries(KEYS, VALUES, max_size=4)) if value is None else value

    def written(one) -> str:
        if isinstance(one, dict | list):
            pairs = [f"{json.dumps(k)}{draw(SPACES)}:{draw(SPACES)}{written(v)}" for k, v in one.items()] if isinstance(one, dict) else [written(v) for v in one]  # fmt: skip
            inside = ",".join(f"{draw(SPACES)}{pair}{draw(SPACES)}" for pair in pairs)
            inside += draw(st.sampled_from(["", ","])) + draw(SPACES) if pairs else draw(SPACES)
            return f"{{{inside}}}" if isinstance(one, dict) else f"[{inside}]"
        return json.dumps(one)

    return f"{draw(SPACES)}{written(value)}{draw(SPACES)}", value


@settings(max_examples=300, deadline=None)
@given(documents(), KEYS, VALUES)
def test_a_member_goes_in_and_out_and_all_others_stay(document, key, value):
    text, held = document
    root = parse(text)
    assert root.value == held
    entered = with_member(text, root, key, value)
    assert parse(entered).value == {**held, key: value}
    left = without_member(entered, parse(entered), key)
    assert parse(left).value == {name: one for name, one in held.items() if name != key}
    if key not in held:
        for comment in (" // {", '/* " } */'):
            assert left.count(comment) == text.count(comment)
