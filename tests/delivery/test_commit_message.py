"""A commit message is a Conventional Commit, or it is said why not."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci/commit_message.py"


def judged(*arguments: str, text: str | None = None, folder: Path | None = None) -> tuple[int, list[str]]:
    command = [sys.executable, str(SCRIPT), *arguments]
    done = subprocess.run(command, input=text, cwd=folder, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, (done.stdout or done.stderr).splitlines()


@pytest.fixture
def repository(tmp_path):
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    git(tmp_path, "config", "user.name", "A")
    git(tmp_path, "config", "user.email", "a@example.com")
    commit(tmp_path, "Whatever came before")
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def commit(folder: Path, message: str) -> str:
    git(folder, "commit", "--quiet", "--allow-empty", "--message", message)
    return git(folder, "rev-parse", "--short", "HEAD")


@pytest.mark.parametrize(
    "message",
    [
        "feat: a GPU that sleeps is left alone",
        "fix(collector): the tick after a suspend is no longer counted twice",
        "feat(query)!: windows end before their last second",
        "docs: a page on Kubernetes\n\nThe chart had none.\n\nBREAKING CHANGE: none",
        "chore(release): v0.2.0",
        "Merge branch 'main' into costs",
        'Revert "feat: a GPU that sleeps is left alone"\n\nThis reverts commit 0123456.',
    ],
)
def test_a_conventional_commit_is_accepted(message):
    assert judged("-", text=message) == (0, [])


@pytest.mark.parametrize(
    ("message", "faults"),
    [
        ("A GPU that sleeps is left alone", ["the first line is not 'type: subject' or 'type(scope): subject'"]),
        ("feat:a GPU", ["the first line is not 'type: subject' or 'type(scope): subject'"]),
        ("feat: ", ["the first line is not 'type: subject' or 'type(scope): subject'"]),
        ("", ["the first line is not 'type: subject' or 'type(scope): subject'"]),
        ("fixup! feat: a GPU", ["the first line is not 'type: subject' or 'type(scope): subject'"]),
        ("Feat: a GPU", ["'Feat' is no type: one of feat, fix, perf, refactor, docs, test, build, ci, chore, revert"]),
        (
            "fix: a GPU.\nand more",
            ["the subject ends with a full stop", "the second line is not empty: the body begins on the third"],
        ),
        ("fix: " + "x" * 96, ["the first line has 101 characters, more than 100"]),
    ],
)
def test_another_message_is_refused_with_every_reason(message, faults):
    assert judged("-", text=message) == (1, [f"the message: {fault}" for fault in faults])


def test_the_hook_sees_what_git_will_keep_and_lets_pass_what_will_be_squashed(tmp_path):
    message = tmp_path / "COMMIT_EDITMSG"
    message.write_text("fix: a GPU\n# Please enter the message\n# ---- >8 ----\n diff --git a b\n")
    assert judged(str(message)) == (0, [])
    message.write_text("fixup! fix: a GPU\n")
    assert judged(str(message)) == (0, [])


def test_every_commit_of_a_range_is_judged_and_merges_are_not(repository):
    git(repository, "switch", "--quiet", "--create", "work")
    commit(repository, "feat: one\n\nWith a body\nof two lines.")
    wrong = commit(repository, "two")
    git(repository, "switch", "--quiet", "main")
    commit(repository, "ci: three")
    git(repository, "merge", "--quiet", "--no-ff", "--message", "whatever a merge says", "work")
    code, lines = judged("--range", "HEAD~2..HEAD", folder=repository)
    assert (code, lines) == (1, [f"{wrong}: the first line is not 'type: subject' or 'type(scope): subject'"])
    assert judged("--range", f"{wrong}..HEAD", folder=repository) == (0, [])


@pytest.mark.parametrize("commits", ["no-such-branch..HEAD", "--output=x"])
def test_a_range_that_is_none_is_refused_and_never_taken_for_an_option(repository, commits):
    code, lines = judged("--range", commits, folder=repository)
    assert (code, lines[0].startswith("commit_message: fatal: ")) == (2, True)
    assert not (repository / "x").exists()


def test_a_wrong_call_is_told_the_right_one():
    code, lines = judged()
    assert (code, lines[0]) == (2, "commit_message: a file, - or --range A..B")
