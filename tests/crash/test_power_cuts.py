"""Power cuts on a simulated disk, by the thousand; and that each sync of the protocol is needed for it.

More of them: `python -m tests.crash.simulated --seeds 100000`. Real ones: `sudo python -m tests.crash.power_cut`.
"""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
SEEDS = 2000
SEEDS_WITHOUT_A_SYNC = 1000
CHANGES = frozenset({"fsync", "fdatasync", "unlink", "rename", "rmdir", "mkdir", "remove"})
SYNCS = {
    "sync(folder / parent) in remove_unfinished",
    "sync(folder) in _sync_or_remove",
    "sync(part.parent) in make_folder, called by open_head",
    "sync(part.parent) in make_folder, called by seal_tail",
    "sync(part.parent) in make_folder, called by set_aside",
    "sync(part.parent) in make_folder, called by write_cells",
    "sync(path.parent) in publish_file, called by merge_segments",
    "sync(path.parent) in publish_file, called by seal_tail",
    "sync(path.parent) in publish_file, called by set_aside",
    "sync(path.parent) in publish_file, called by write_cells",
    "sync(source.parent) in sync_move, called by give_up_segment",
    "sync(source.parent) in sync_move, called by set_aside",
    "sync(target.parent) in sync_move, called by give_up_segment",
    "sync(target.parent) in sync_move, called by set_aside",
    "sync(temporary) in publish_file, called by merge_segments",
    "sync(temporary) in publish_file, called by seal_tail",
    "sync(temporary) in publish_file, called by set_aside",
    "sync(temporary) in publish_file, called by write_cells",
}


def simulated(*arguments: str) -> dict:
    command = [sys.executable, "-m", "tests.crash.simulated", "--json", *arguments]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


@pytest.mark.timeout(900)
def test_a_power_cut_at_any_step_loses_no_acknowledged_event_counts_none_twice_and_forgets_no_file():
    found = simulated("--seeds", str(SEEDS))
    assert found["failed"] == {}
    assert found["seeds"] == SEEDS
    assert found["power_cuts"] > SEEDS
    assert found["kills"] > SEEDS / 10
    assert set(found["places"]) == SYNCS


@pytest.mark.timeout(900)
def test_without_any_one_of_its_syncs_the_protocol_breaks_its_promise():
    first_failures = simulated("--without-syncs", "--seeds", str(SEEDS_WITHOUT_A_SYNC))
    assert set(first_failures) == SYNCS
    assert [place for place, (seed, _) in first_failures.items() if seed is None] == []


def test_what_changes_files_goes_through_the_one_throat():
    around = [
        f"{path.name}: {ast.unparse(node)}"
        for path in sorted((PROJECT / "store").glob("*.py"))
        if path.name != "files.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _changes_a_file(node, node.func.attr)
    ]
    assert around == []


def _changes_a_file(call: ast.Call, name: str) -> bool:
    """By its name: `path.unlink()`, `os.fsync(…)`. To replace something in a text takes two arguments."""
    return name in CHANGES or (name == "replace" and len(call.args) == 1)
