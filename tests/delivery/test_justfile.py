"""Every recipe can be read; each that is quick and needs neither root, Docker nor the network is run, in a copy of the source."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
JUST = Path(sys.prefix) / "bin/just"
ANSWERS_WITHIN_S = 60
PREDECESSORS = """
    default help build clean rebuild docs-build
    test test-watch test-coverage test-integration test-mock test-benchmark dev start
    lint lint-fix format format-check typecheck check
    docker-build docker-run docker-run-gpu docker-stop docker-clean docker-shell
    install update rollback service-start service-stop service-restart service-status service-logs service-enable service-disable
    health metrics logs logs-error
    generate-mcp-config save-mcp-config install-mcp-config configure-claude-code mcp-status
    setup link unlink prepare-publish validate-config docs-search hardware-report test-spark
    deps deps-update deps-outdated deps-audit deps-audit-fix release-patch release-minor release-major
    ci-test ci-build ci-verify pre-commit pre-push pre-release
"""
GROUPS = {"help", "build", "test", "dev", "quality", "docker", "deploy", "monitoring", "docs", "release"}


@dataclass(frozen=True)
class Copy:
    """The source in a repository of its own, with a home of its own."""

    folder: Path
    home: Path
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        own = {"PATH": os.environ["PATH"], "HOME": str(self.home), "VENV": sys.prefix, "PYTHONPATH": str(self.folder)}
        return {**own, **self.variables}

    def just(self, *arguments: str, code: int | None = 0) -> str:
        """Run a recipe and return all that it printed; code None: the exit code tells of the machine."""
        done = subprocess.run(
            [JUST, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert code in (None, done.returncode), done.stdout + done.stderr
        return done.stdout + done.stderr

    def git(self, *arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=self.folder, capture_output=True, text=True, check=True)
        return done.stdout.strip()


@pytest.fixture
def source(tmp_path):
    copy = Copy(tmp_path / "source", tmp_path / "home")
    copy.home.mkdir()
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (copy.folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy.folder / name)
    copy.git("init", "--quiet", "--initial-branch=main")
    copy.git("config", "user.name", "A")
    copy.git("config", "user.email", "a@example.com")
    copy.git("add", ".")
    copy.git("commit", "--quiet", "--message", "feat: everything")
    return copy


def recipes() -> dict[str, dict]:
    command = [JUST, "--dump", "--dump-format", "json"]
    return json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)["recipes"]


def test_every_recipe_of_the_predecessor_is_there_and_each_is_in_a_group_and_says_what_it_does():
    assert len(set(PREDECESSORS.split())) == 67
    assert set(PREDECESSORS.split()) - set(recipes()) == set()
    told = {name: (bool(one["doc"]), [of["group"] for of in one["attributes"]]) for name, one in recipes().items()}
    assert {name: said for name, said in told.items() if not said[0] or len(said[1]) != 1} == {}
    assert {group for _, groups in told.values() for group in groups} == GROUPS


def test_the_file_is_laid_out_as_just_does_it():
    subprocess.run([JUST, "--fmt", "--check"], cwd=ROOT, check=True)


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_can_be_read_to_its_last_command(name):
    needed = ["words"] * sum(
        parameter["default"] is None and parameter["kind"] == "singular" for parameter in recipes()[name]["parameters"]
    )
    done = subprocess.run([JUST, "--dry-run", name, *needed], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stderr.strip()


def test_default_and_help_show_what_can_be_done(source):
    shown = source.just()
    assert {name for name in recipes() if re.search(rf"^    {name}\b", shown, re.MULTILINE)} == set(recipes())
    assert "A flight recorder for GPU machines." in source.just("help")


def test_building_cleaning_and_building_again(source):
    source.just("build")
    first = sorted(path.name for path in (source.folder / "dist").iterdir())
    assert [name.rpartition("-")[0] or name for name in first] == [
        first[0].rpartition("-")[0],
        first[1].rpartition("-")[0],
    ]
    assert {Path(name).suffix for name in first} == {".whl", ".gz"}
    (source.folder / "dist/left.over").touch()
    source.just("rebuild")
    assert sorted(path.name for path in (source.folder / "dist").iterdir()) == first
    source.just("clean")
    assert not (source.folder / "dist").exists()
    assert source.git("status", "--porcelain") == ""


def test_the_generated_pages_are_written_and_words_are_found(source):
    page = source.folder / "docs/reference/settings.md"
    page.write_text("an old page\n")
    source.just("docs-build")
    assert source.git("status", "--porcelain") == ""
    assert "docs/reference/settings.md:" in source.just("docs-search", "collector.port")
    source.just("docs-search", "no such " + "words", code=1)


def test_tests_are_run_with_the_arguments_given(source):
    (source.folder / "tests/test_one.py").write_text(
        "def test_one():\n    assert True\n\n\ndef test_two():\n    assert False\n"
    )
    assert "1 passed" in source.just("test", "-n0", "tests/test_one.py", "-k", "one and not two")
    assert "1 failed" in source.just("test", "-n0", "tests/test_one.py", "-k", "two", code=1)


def test_code_is_judged_and_what_a_tool_can_mend_is_mended(source):
    odd = source.folder / "store/odd.py"
    odd.write_text('"""Odd."""\nimport os\nODD = ( 1,2 )\n')
    assert "F401" in source.just("lint", code=1)
    assert "store/odd.py" in source.just("format-check", code=1)
    source.just("lint-fix")
    source.just("format")
    assert odd.read_text() == '"""Odd."""\n\nODD = (1, 2)\n'
    source.just("lint")
    source.just("format-check")
    odd.write_text('"""Odd."""\n\nimport query.errors\n\nODD = query.errors\n')
    assert "store.odd -> query.errors" in source.just("imports", code=1)


def test_workflows_and_commits_are_judged(source):
    assert "No findings to report" in source.just("workflows")
    source.git("switch", "--quiet", "--create", "work")
    source.git("commit", "--quiet", "--allow-empty", "--message", "feat: a thing")
    source.just("commits")
    source.git("commit", "--quiet", "--allow-empty", "--message", "A thing")
    assert "the first line is not 'type: subject'" in source.just("commits", code=1)


def test_a_patch_is_committed_and_tagged(source):
    shown = source.just("release-patch")
    (tag,) = source.git("tag").split()
    assert f"{tag} is committed and tagged here" in shown
    assert source.git("log", "-1", "--format=%s") == f"chore(release): {tag}"


def test_the_command_is_linked_and_unlinked(source):
    link = source.home / ".local/bin/gpuledger"
    source.just("link")
    assert subprocess.run([link, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    source.just("unlink")
    assert not link.is_symlink()


def test_an_mcp_client_is_entered_and_its_status_told(source):
    assert "would be written" in source.just("generate-mcp-config")
    assert "would be written" in source.just("mcp-status")
    assert "was written" in source.just("save-mcp-config")
    assert "was written" in source.just("configure-claude-code")
    assert "gpuledger" in json.loads((source.folder / ".mcp.json").read_text())["mcpServers"]
    assert source.just("mcp-status").count("is entered already") == 2


def test_settings_are_validated(source):
    assert "collector.port" in source.just("validate-config")
    wrong = source.folder / "wrong.toml"
    wrong.write_text("[collector]\nport = 'nine'\n")
    assert "collector.port" in source.just("validate-config", "--config", str(wrong), code=2)


def test_a_recorder_is_started_is_well_shows_its_metrics_and_reports(source, unused_ports):
    collector, mcp = unused_ports
    running = Copy(
        source.folder,
        source.home,
        {
            "GPULEDGER_COLLECTOR__PORT": str(collector),
            "GPULEDGER_MCP__PORT": str(mcp),
            "COLLECTOR_URL": f"http://127.0.0.1:{collector}",
            "MCP_URL": f"http://127.0.0.1:{mcp}",
        },
    )
    assert "refused" in running.just("health", code=1)
    with subprocess.Popen(
        [JUST, "dev"], cwd=running.folder, env=running.environment, stderr=subprocess.DEVNULL, start_new_session=True
    ) as recorder:
        try:
            wait_until_well(running)
            assert "dgx_gpu_temperature_celsius{" in running.just("metrics")
            assert "3 demo GPUs" in running.just("hardware-report", code=None)
        finally:
            os.killpg(recorder.pid, 15)
            recorder.wait(60)
    assert "refused" in running.just("metrics", code=1)


def wait_until_well(running: Copy) -> None:
    until = time.monotonic() + ANSWERS_WITHIN_S
    while subprocess.run(
        [JUST, "health"], cwd=running.folder, env=running.environment, capture_output=True, check=False
    ).returncode:
        assert time.monotonic() < until, "the recorder is not well"


@pytest.fixture
def unused_ports() -> tuple[int, int]:
    import socket

    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]
