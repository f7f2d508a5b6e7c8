"""The hooks of Git call our own tools: what .pre-commit-config.yaml names is there, and no commit fetches anything."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
HOOKS = [
    hook for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"] for hook in repo["hooks"]
]
COMES_WITH = {"python": "python", "just": "rust-just", "lint-imports": "import-linter"}


def test_every_hook_is_local_and_runs_what_is_installed():
    read = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [repo["repo"] for repo in read["repos"]] == ["local"]
    assert {hook["language"] for hook in HOOKS} == {"system"}
    assert [hook["entry"] for hook in HOOKS if not hook["entry"].startswith(".venv-dev/bin/")] == []


def test_every_tool_of_a_hook_comes_with_the_development_tools():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    declared = {re.match(r"[\w-]+", line)[0] for line in extras["dev"] + extras["test"]} | {"python", "gpuledger"}
    tools = {Path(hook["entry"].split()[0]).name for hook in HOOKS}
    assert {COMES_WITH.get(tool, tool) for tool in tools} <= declared


def test_the_message_is_judged_when_it_is_written_and_files_when_they_are_committed():
    assert {hook["id"]: hook.get("stages", ["pre-commit"]) for hook in HOOKS if "stages" in hook} == {
        "commit-message": ["commit-msg"]
    }


def test_a_hook_that_is_for_some_files_finds_some_here():
    paths = [
        str(path.relative_to(ROOT)) for folder in ("store", ".github") for path in (ROOT / folder).rglob("*.*")
    ] + ["justfile"]
    idle = [
        hook["id"] for hook in HOOKS if "files" in hook and not any(re.search(hook["files"], path) for path in paths)
    ]
    assert idle == []
