"""Make a version: in the source, in the changelog, in Git. Nothing leaves the machine: what is pushed is the tag.

    python3 .ci/release.py cut LEVEL       commit and tag the source's version (current) or the next patch, minor, major
    python3 .ci/release.py check vX.Y.Z    is the tag the source's version, and in the changelog?
    python3 .ci/release.py notes vX.Y.Z    print the section of the changelog

Exit code 0: done; 1: refused, with the reason; 2: the call is wrong.
"""

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

SOURCE = Path("gpuledger/__init__.py")
CHANGELOG = Path("CHANGELOG.md")
VERSION = re.compile(r'^__version__ = "(\d+)\.(\d+)\.(\d+)"$', re.MULTILINE)
UNRELEASED = re.compile(r"^## \[Unreleased\].*$", re.MULTILINE)
LEVELS = ("current", "patch", "minor", "major")


class RefusedError(Exception):
    """Why there is no release; the sentence is for the person who asked for it."""


def version() -> tuple[int, int, int]:
    """The version that the source states."""
    stated = VERSION.search(SOURCE.read_text(encoding="utf-8"))
    if not stated:
        raise RefusedError(f'{SOURCE} does not state a version as __version__ = "X.Y.Z"')
    major, minor, patch = map(int, stated.groups())
    return major, minor, patch


def following(present: tuple[int, int, int], level: str) -> str:
    """The version at that distance, by semantic versioning."""
    major, minor, patch = present
    return {
        "current": f"{major}.{minor}.{patch}",
        "patch": f"{major}.{minor}.{patch + 1}",
        "minor": f"{major}.{minor + 1}.0",
        "major": f"{major + 1}.0.0",
    }[level]


def notes(wanted: str) -> str:
    """What the changelog says of a version, without its heading."""
    _, _, below = CHANGELOG.read_text(encoding="utf-8").partition(f"\n## [{wanted}]")
    section = below.partition("\n")[2].partition("\n## ")[0].strip()
    if not section:
        raise RefusedError(f"{CHANGELOG} says nothing of [{wanted}]")
    return section


def check(tag: str) -> None:
    """Refuse a tag that is not the source's version, or of which the changelog says nothing."""
    stated = following(version(), "current")
    if tag != f"v{stated}":
        raise RefusedError(f"the tag is {tag}, but {SOURCE} states {stated}")
    notes(stated)


def cut(level: str) -> str:
    """Write the version and the changelog's heading, commit and tag; the tag."""
    wanted = following(version(), level)
    tag = f"v{wanted}"
    if git("status", "--porcelain"):
        raise RefusedError("the working tree has changes: commit or stash them first")
    if git("tag", "--list", tag):
        raise RefusedError(f"the tag {tag} is there already: ask for patch, minor or major")
    changelog = CHANGELOG.read_text(encoding="utf-8")
    today = datetime.now(UTC).date().isoformat()
    released, headings = UNRELEASED.subn(f"## [Unreleased]\n\n## [{wanted}] – {today}", changelog)
    if headings != 1:
        raise RefusedError(f"{CHANGELOG} has {headings} headings '## [Unreleased]', not one")
    if not re.search(r"^- ", UNRELEASED.split(changelog)[1].partition("\n## ")[0], re.MULTILINE):
        raise RefusedError(f"{CHANGELOG} has no line under [Unreleased]: nothing to release")
    CHANGELOG.write_text(released, encoding="utf-8")
    SOURCE.write_text(VERSION.sub(f'__version__ = "{wanted}"', SOURCE.read_text(encoding="utf-8")), encoding="utf-8")
    git("commit", "--quiet", "--message", f"chore(release): {tag}", "--", str(SOURCE), str(CHANGELOG))
    git("tag", "--annotate", tag, "--message", f"gpuledger {wanted}")
    return tag


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)  # noqa: S607
    if done.returncode:
        raise RefusedError(f"git {arguments[0]}: {(done.stderr or done.stdout).strip()}")
    return done.stdout.strip()


def main() -> None:
    try:
        match sys.argv[1:]:
            case ["cut", level] if level in LEVELS:
                tag = cut(level)
                print(f"{tag} is committed and tagged here; to release it: git push --atomic origin HEAD {tag}")
            case ["check", tag]:
                check(tag)
            case ["notes", tag]:
                print(notes(tag.removeprefix("v")))
            case _:
                print(f"release: cut LEVEL, check TAG or notes TAG\n\n{__doc__}", file=sys.stderr)
                sys.exit(2)
    except RefusedError as refusal:
        print(f"release: {refusal}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
