"""A version is cut in a repository of its own, and what is not ready for one is refused and left as it was."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / ".ci/release.py"
CHANGELOG = """\
# Changelog

## [Unreleased] – 0.3.0

### Added

- A thing.

## [0.2.9] – 2026-01-01

- An older thing.
"""


@pytest.fixture
def repository(tmp_path):
    (tmp_path / "gpuledger").mkdir()
    (tmp_path / "gpuledger/__init__.py").write_text('"""A package."""\n\n__version__ = "0.3.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    git(tmp_path, "config", "user.name", "A")
    git(tmp_path, "config", "user.email", "a@example.com")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "feat: a thing")
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def release(folder: Path, *arguments: str, code: int = 0) -> str:
    command = [sys.executable, str(SCRIPT), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return (done.stderr if code else done.stdout).strip()


@pytest.mark.parametrize(
    ("level", "version"), [("current", "0.3.0"), ("patch", "0.3.1"), ("minor", "0.4.0"), ("major", "1.0.0")]
)
def test_a_release_is_a_commit_and_a_tag_with_the_version_in_source_and_changelog(repository, level, version):
    assert f"git push --atomic origin HEAD v{version}" in release(repository, "cut", level)
    assert git(repository, "log", "-1", "--format=%s %D") == f"chore(release): v{version} HEAD -> main, tag: v{version}"
    assert git(repository, "cat-file", "-t", f"v{version}") == "tag"
    assert git(repository, "status", "--porcelain") == ""
    assert f'__version__ = "{version}"' in (repository / "gpuledger/__init__.py").read_text()
    headings = re.findall(r"^## (.*)$", (repository / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert [heading.partition(" –")[0] for heading in headings] == ["[Unreleased]", f"[{version}]", "[0.2.9]"]
    assert release(repository, "check", f"v{version}") == ""
    assert release(repository, "notes", f"v{version}") == "### Added\n\n- A thing."


def test_notes_of_the_oldest_version_end_with_the_file(repository):
    assert release(repository, "notes", "v0.2.9") == "- An older thing."


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("new.txt", "", "release: the working tree has changes: commit or stash them first"),
        ("CHANGELOG.md", "# Changelog\n", "release: CHANGELOG.md has 0 headings '## [Unreleased]', not one"),
        (
            "CHANGELOG.md",
            "## [Unreleased]\n\n## [0.2.9]\n\n- Old.\n",
            "release: CHANGELOG.md has no line under [Unreleased]: nothing to release",
        ),
        (
            "gpuledger/__init__.py",
            "",
            'release: gpuledger/__init__.py does not state a version as __version__ = "X.Y.Z"',
        ),
    ],
)
def test_what_is_not_ready_is_refused_and_left_as_it_was(repository, file, content, reason):
    (repository / file).write_text(content)
    if file != "new.txt":
        git(repository, "commit", "--quiet", "--all", "--message", "fix: something")
    before = git(repository, "rev-parse", "HEAD"), git(repository, "status", "--porcelain")
    assert release(repository, "cut", "minor", code=1) == reason
    assert (git(repository, "rev-parse", "HEAD"), git(repository, "status", "--porcelain")) == before
    assert git(repository, "tag") == ""


def test_a_version_is_released_once(repository):
    release(repository, "cut", "current")
    reason = "release: the tag v0.3.0 is there already: ask for patch, minor or major"
    assert release(repository, "cut", "current", code=1) == reason


def test_a_tag_that_is_not_the_sources_version_is_refused(repository):
    reason = "release: the tag is v0.4.0, but gpuledger/__init__.py states 0.3.0"
    assert release(repository, "check", "v0.4.0", code=1) == reason
    assert release(repository, "check", "v0.3.0", code=1) == "release: CHANGELOG.md says nothing of [0.3.0]"


@pytest.mark.parametrize("arguments", [(), ("cut",), ("cut", "huge"), ("notes",)])
def test_a_wrong_call_is_told_the_right_one(repository, arguments):
    assert release(repository, *arguments, code=2).startswith("release: cut LEVEL, check TAG or notes TAG")


def test_this_source_is_ready_for_a_release(tmp_path):
    """The two files that a release rewrites have the form that it expects."""
    (tmp_path / "gpuledger").mkdir()
    for name in ("CHANGELOG.md", "gpuledger/__init__.py"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    git(tmp_path, "config", "user.name", "A")
    git(tmp_path, "config", "user.email", "a@example.com")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "feat: everything")
    tag = release(tmp_path, "cut", "minor").split()[0]
    assert "- " in release(tmp_path, "notes", tag)
