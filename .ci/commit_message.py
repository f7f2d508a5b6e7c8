"""Say what keeps a commit message from being a Conventional Commit.

    python3 .ci/commit_message.py FILE            the message that Git hands to its commit-msg hook; - is stdin
    python3 .ci/commit_message.py --range A..B    every message of these commits, merges left out

Exit code 0: all are; 1: one is not; 2: the call or the range is wrong. The form: conventionalcommits.org 1.0.0.
"""

import re
import subprocess
import sys
from pathlib import Path

TYPES = {
    "feat": "what users can do now",
    "fix": "what no longer hurts them",
    "perf": "what takes less time or memory",
    "refactor": "the same by other code",
    "docs": "documentation",
    "test": "tests",
    "build": "packaging, images, dependencies",
    "ci": "the checks",
    "chore": "what remains, releases among it",
    "revert": "what is taken back",
}
HEADER = re.compile(r"(?P<type>[a-zA-Z]+)(\([a-z0-9][a-z0-9 ,/_-]*\))?!?: (?P<subject>\S.*)")
HEADER_MAX_CHARACTERS = 100
GITS_OWN = re.compile(r"Merge |Revert \"")
TO_BE_SQUASHED = re.compile(r"(fixup|squash|amend)! ")


def faults(message: str, *, may_be_squashed: bool = False) -> list[str]:
    """What is wrong with a message, a sentence each; one that Git itself wrote is right as it is."""
    header, *rest = message.splitlines() or [""]
    if GITS_OWN.match(header) or (may_be_squashed and TO_BE_SQUASHED.match(header)):
        return []
    found = header_faults(header)
    if rest and rest[0].strip():
        found.append("the second line is not empty: the body begins on the third")
    return found


def header_faults(header: str) -> list[str]:
    """What is wrong with its first line."""
    parts = HEADER.fullmatch(header)
    if not parts:
        return ["the first line is not 'type: subject' or 'type(scope): subject'"]
    found = []
    if parts["type"] not in TYPES:
        found.append(f"'{parts['type']}' is no type: one of {', '.join(TYPES)}")
    if parts["subject"].endswith("."):
        found.append("the subject ends with a full stop")
    if len(header) > HEADER_MAX_CHARACTERS:
        found.append(f"the first line has {len(header)} characters, more than {HEADER_MAX_CHARACTERS}")
    return found


def without_comments(text: str) -> str:
    """The message as Git will keep it: without comments, and without the changes that `commit -v` shows below."""
    kept = re.split(r"^# -+ >8 -+$", text, maxsplit=1, flags=re.MULTILINE)[0]
    return "\n".join(line for line in kept.splitlines() if not line.startswith("#")).strip()


def messages_of(commits: str) -> dict[str, str]:
    """The message of each commit of a range, by its short hash."""
    command = ["git", "log", "--no-merges", "-z", "--format=%h%n%B", "--end-of-options", commits]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"commit_message: {done.stderr.strip().splitlines()[0]}", file=sys.stderr)
        sys.exit(2)
    entries = [entry.partition("\n") for entry in done.stdout.split("\0") if entry.strip()]
    return {short: body.strip() for short, _, body in entries}


def main() -> None:
    match sys.argv[1:]:
        case ["--range", commits]:
            found = {name: faults(message) for name, message in messages_of(commits).items()}
        case ["-"]:
            found = {"the message": faults(without_comments(sys.stdin.read()))}
        case [path]:
            text = Path(path).read_text(encoding="utf-8")
            found = {"the message": faults(without_comments(text), may_be_squashed=True)}
        case _:
            print(f"commit_message: a file, - or --range A..B\n\n{__doc__}", file=sys.stderr)
            sys.exit(2)
    for name, sentences in found.items():
        for sentence in sentences:
            print(f"{name}: {sentence}")
    sys.exit(any(found.values()))


if __name__ == "__main__":
    main()
