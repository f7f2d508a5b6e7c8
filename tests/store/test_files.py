"""Files that appear whole or not at all."""

import pytest

from store.files import make_folder, publish_file


def test_a_published_file_holds_what_was_written_and_leaves_no_temporary_file(tmp_path):
    path = tmp_path / "a/b/file.txt"
    publish_file(path, lambda temporary: temporary.write_text("whole"))
    assert path.read_text() == "whole"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]


def test_a_writer_that_fails_leaves_the_old_file_and_no_temporary_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fail(temporary):
        temporary.write_text("half")
        raise RuntimeError("power")

    with pytest.raises(RuntimeError, match="power"):
        publish_file(path, fail)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.txt"]


def test_a_temporary_file_left_by_a_crash_is_written_over(tmp_path):
    (tmp_path / ".file.txt.tmp").write_text("left over")
    publish_file(tmp_path / "file.txt", lambda temporary: temporary.write_text("new"))
    assert (tmp_path / "file.txt").read_text() == "new"


def test_making_a_folder_that_is_there_does_nothing(tmp_path):
    make_folder(tmp_path / "x/y")
    make_folder(tmp_path / "x/y")
    assert (tmp_path / "x/y").is_dir()
