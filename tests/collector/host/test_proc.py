"""What is read of the kernel's files, and why something is not."""

import errno

import pytest

from collector import proc


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PermissionError(errno.EACCES, "refused"), "no_permission"),
        (FileNotFoundError(errno.ENOENT, "no such file"), "not_supported"),
        (OSError(errno.EOPNOTSUPP, "pressure is switched off"), "not_supported"),
        (OSError(errno.EINVAL, "the speed of a link that is down"), "no_data"),
        (OSError(errno.EAGAIN, "a sensor that sleeps"), "no_data"),
        (OSError(errno.ENODATA, "a sensor that sleeps"), "no_data"),
        (KeyError("a word that this kernel does not write"), "not_supported"),
        (ValueError("no number"), "not_supported"),
    ],
)
def test_what_cannot_be_read_has_the_reason_that_the_kernel_gives(error, reason):
    def read():
        raise error

    assert proc.value_or_reason(read) == reason


def test_the_reason_of_a_whole_file_is_that_of_each_of_its_columns():
    reason = proc.absence_reason(PermissionError())
    assert proc.answers({"one": int, "other": int}, reason) == {"one": "no_permission", "other": "no_permission"}


def test_a_small_file_is_a_word_without_white_space(tmp_path):
    (tmp_path / "speed").write_text(" 400000\n")
    assert proc.word(f"{tmp_path}/speed") == "400000"
    assert proc.number(f"{tmp_path}/speed") == 400000


def test_memory_of_a_numa_node_has_the_names_of_the_hosts(tmp_path):
    (tmp_path / "meminfo").write_text(
        "Node 1 MemTotal:   16 kB\nNode 1 Active(anon):  2 kB\nNode 1 HugePages_Free: 3\n"
    )
    assert proc.meminfo_bytes(tmp_path) == {"MemTotal": 16384, "Active(anon)": 2048}
