"""Files that appear whole or not at all, and the one throat through which this room changes what is on a disk.

SQLite changes its own files by itself, and the two lock files hold nothing that must last. All the rest goes through
`Disk`, so that a test can put another in its place and cut the power at any call of it (`tests/crash/simulated`).
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class Disk:
    """The calls that change a disk."""

    def write(self, path: Path, write: Callable[[Path], None]) -> None:
        write(path)

    def make_folder(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)

    def rename(self, source: Path, target: Path) -> None:
        source.replace(target)

    def unlink(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def remove_folder(self, folder: Path) -> None:
        folder.rmdir()

    def sync(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


_disk = Disk()


@contextmanager
def on_disk(disk: Disk) -> Iterator[None]:
    """Let all changes go through another disk, for the tests."""
    global _disk  # noqa: PLW0603 - a parameter would run through every function of this room, for the tests alone
    before, _disk = _disk, disk
    try:
        yield
    finally:
        _disk = before


def publish_file(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, then make it `path`, durably.

    After it returns, the file and every folder made for it survive a power cut. If the process or the machine
    dies before, either the whole file is there or none; a leftover `.<name>.tmp` is overwritten by the next
    attempt. Two writers of the same path at once are not protected from each other.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        _disk.write(temporary, write)
        sync(temporary)
        _disk.rename(temporary, path)
    except BaseException:
        unlink(temporary)
        raise
    sync(path.parent)


def make_folder(folder: Path, *, found_too: bool = False) -> None:
    """Make `folder` and its missing parents, each made durable in its own parent.

    With `found_too` also one that is there: who made it may have been killed before it was synced.
    """
    missing = [part for part in (folder, *folder.parents) if not part.exists()]
    for part in reversed(missing):
        _disk.make_folder(part)
    for part in reversed(missing) if missing else [folder] * found_too:
        sync(part.parent)


def move_file(source: Path, target: Path) -> None:
    """Rename `source` to `target` on the same file system, durably."""
    make_folder(target.parent)
    _disk.rename(source, target)
    sync_move(source, target)


def sync_move(source: Path, target: Path) -> None:
    """Make it durable that `target` is there and `source` is not, whoever renamed it.

    The new name first: a power cut in between may leave the file under both, and never under none.
    """
    sync(target.parent)
    with suppress(FileNotFoundError):  # the last file that stood there may have taken its folder with it
        sync(source.parent)


def unlink(path: Path) -> None:
    """Remove a file, if it is there. It may be back after a power cut until its folder is synced."""
    _disk.unlink(path)


def remove_empty_folder(folder: Path) -> None:
    """Remove a folder if it is empty. It may be back, empty, after a power cut, which does no harm."""
    with suppress(OSError):
        _disk.remove_folder(folder)


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`, or a copy of it where file systems allow no link; durably.

    Only for files that never change: what is linked has one content under two names.
    """

    def write(temporary: Path) -> None:
        temporary.unlink(missing_ok=True)
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)

    publish_file(target, write)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal. With the processor's own instructions 1.7 GB/s."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Make a file's content, or a folder's entries, durable."""
    _disk.sync(path)
