"""How much room there is, and on what kind of file system."""

from pathlib import Path

import pytest

from store.errors import NetworkFolderError
from store.events import KINDS
from store.space import SHED_FIRST, SHED_NEXT, SpaceLevel, SpaceLimits, SpaceWatch, check_file_system, file_system_of

PLENTY, LOW, READ_ONLY = SpaceLevel

MOUNTS = """\
22 1 252:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
30 22 0:40 / /home rw - nfs4 server:/home rw
31 22 0:41 / {folder}/with\\040blank rw - cifs //server/share rw
32 22 0:42 / {folder}/local rw - nfs server:/x rw
33 32 8:1 / {folder}/local rw - xfs /dev/sda1 rw
"""


def test_a_step_of_shedding_is_taken_back_only_with_a_tenth_more_room():
    free = iter([1000, 499, 540, 551, 99, 109, 111, 90, 600])
    watch = SpaceWatch(SpaceLimits(low_bytes=500, read_only_bytes=100), lambda: next(free))
    assert [watch.look() for _ in range(9)] == [PLENTY, LOW, LOW, PLENTY, READ_ONLY, READ_ONLY, LOW, READ_ONLY, PLENTY]
    assert watch.free_bytes == 600


def test_a_step_of_zero_bytes_is_off():
    watch = SpaceWatch(SpaceLimits(low_bytes=0, read_only_bytes=0), lambda: 0)
    assert watch.look() == PLENTY


def test_what_is_sampled_is_shed_before_what_happened():
    sampled = {kind.name for kind in KINDS.values() if kind.expected_every_seconds is not None}
    assert sampled == SHED_FIRST | SHED_NEXT


def test_a_folder_that_cannot_be_asked_counts_as_it_did():
    answers = iter([50])
    watch = SpaceWatch(SpaceLimits(500, 100), lambda: next(answers, None) or (_ for _ in ()).throw(OSError()))
    assert [watch.look(), watch.look()] == [READ_ONLY, READ_ONLY]


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text(MOUNTS.format(folder=tmp_path))
    for name in ("with blank", "local"):
        (tmp_path / name).mkdir()
    return tmp_path / "proc"


@pytest.mark.parametrize(
    ("name", "kind"), [("ledger/in/a/new/folder", "ext4"), ("with blank/ledger", "cifs"), ("local/ledger", "xfs")]
)
def test_the_file_system_is_that_of_the_nearest_mount_and_of_several_there_the_last(tmp_path, proc, name, kind):
    assert file_system_of(tmp_path / name, proc) == kind


def test_a_link_leads_to_the_file_system_of_its_target(tmp_path, proc):
    (tmp_path / "link").symlink_to(tmp_path / "with blank")
    assert file_system_of(tmp_path / "link/ledger", proc) == "cifs"


def test_a_network_file_system_is_refused_in_one_sentence_and_a_local_one_is_not(tmp_path, proc):
    with pytest.raises(NetworkFolderError) as refusal:
        check_file_system(tmp_path / "with blank/ledger", proc)
    assert str(refusal.value) == (
        f"The ledger {tmp_path}/with blank/ledger would lie on a network file system (cifs), where SQLite's log is not "
        "safe: name a folder on a local disk with --data"
    )
    check_file_system(tmp_path / "local/ledger", proc)
    check_file_system(tmp_path, tmp_path / "no proc here")
    check_file_system(tmp_path)
