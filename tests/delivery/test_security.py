"""What SECURITY.md claims is enforced somewhere and shown by a test, and both are where it says."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINKED = re.compile(r"\[`([\w./]+)`\]\(([\w./]+)\)")
CLAIMS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "SECURITY.md").read_text().splitlines()
    if "](tests/" in line
]


def test_there_is_a_claim_for_every_face():
    assert len(CLAIMS) > 30


@pytest.mark.parametrize(("claim", "places", "tests"), CLAIMS, ids=[claim for claim, *_ in CLAIMS])
def test_a_claim_names_a_file_that_is_there_and_tests_that_are_in_theirs(claim, places, tests):
    assert [path for _, path in LINKED.findall(places) if not (ROOT / path).is_file()] == []
    assert LINKED.search(places), claim
    shown = LINKED.findall(tests)
    assert shown, claim
    assert [name for name, path in shown if not re.search(rf"def {name}\(", (ROOT / path).read_text())] == []
