"""A disk that keeps what was synced, and of the rest whatever a seed says.

The harshest reading of POSIX that a disk which does not lie allows:

- of a file that was not synced, a power cut leaves nothing, what was synced before, a part, blocks of zeros or all;
- of a folder's entries that were not synced (made, renamed, removed), any subset is there; a rename is two entries, of
  which either may be there alone;
- a folder whose own entry is not there takes with it all that is in it, synced or not.

The files also stand in a real folder (on tmpfs), for SQLite and Arrow, which know nothing of this. SQLite's files are
not simulated: a power cut leaves what was committed.
"""

import linecache
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from store.files import Disk
from store.head import HEAD_NAME

BLOCK_BYTES = 512
HEAD_FILES = (HEAD_NAME, f"{HEAD_NAME}-wal")

Tree = dict[str, "bytes | Tree"]


class CrashError(BaseException):
    """The power fails, or the process is killed; no BaseException of Python's, which code may rightly handle."""


@dataclass(eq=False)
class Node:
    """A file or a folder, and what of it is synced.

    Args:
        content: Of a file; None of a folder.
        synced: The content that a power cut leaves for certain.
        entries: Of a folder, as a process sees them.
        kept: Those that a power cut leaves for certain.
        pending: What changed since, in order: a name, and what bears it now.
    """

    content: bytes | None = None
    synced: bytes = b""
    entries: "dict[str, Node]" = field(default_factory=dict)
    kept: "dict[str, Node]" = field(default_factory=dict)
    pending: "list[tuple[str, Node | None]]" = field(default_factory=list)

    def set(self, name: str, node: "Node | None") -> None:
        if node is None:
            self.entries.pop(name, None)
        else:
            self.entries[name] = node
        self.pending.append((name, node))

    def sync(self) -> None:
        self.synced = self.content or b""
        self.kept = dict(self.entries)
        self.pending = []


@dataclass(frozen=True)
class State:
    """A disk at one moment, with the head as it was committed then."""

    root: Node
    head: dict[str, bytes]


class SimulatedDisk(Disk):
    """The disk of one ledger.

    Args:
        folder: A real, empty folder; the ledger is `ledger` in it.
        tree: What is on it, all of it synced.
        head: The head's files by name.
        step: Is called after every change and every commit; may raise `CrashError`.
        skipped: The place whose syncs do nothing.
    """

    def __init__(
        self,
        folder: Path,
        tree: Tree | None = None,
        head: dict[str, bytes] | None = None,
        *,
        step: Callable[[], None] = lambda: None,
        skipped: str = "",
    ) -> None:
        self.folder = folder
        self.ledger = folder / "ledger"
        self.on_step = step
        self.skipped = skipped
        self.places: set[str] = set()
        self.steps_since_skipped = 1_000_000
        self.is_off = False
        self.at_crash: State | None = None
        self.root = Node()
        _fill(self.root, folder, tree or {})
        if self.ledger.exists():
            for name, content in (head or {}).items():
                (self.ledger / name).write_bytes(content)

    def step(self) -> None:
        self._refuse_when_off()
        self.steps_since_skipped += 1
        try:
            self.on_step()
        except CrashError:
            self.at_crash = self.state()
            self.is_off = True
            raise

    def state(self) -> State:
        return State(deepcopy(self.root), self.head_files())

    def head_files(self) -> dict[str, bytes]:
        paths = (self.ledger / name for name in HEAD_FILES)
        return {path.name: path.read_bytes() for path in paths if path.exists()}

    # What `store.files` calls ---------------------------------------------------------------------------------

    def write(self, path: Path, write: Callable[[Path], None]) -> None:
        self._refuse_when_off()
        write(path)
        parent = self._node(path.parent)
        node = parent.entries.get(path.name)
        if node is None:
            node = Node(b"")
            parent.set(path.name, node)
        node.content = path.read_bytes()
        self.step()

    def make_folder(self, folder: Path) -> None:
        self._refuse_when_off()
        if not folder.exists():
            folder.mkdir()
            self._node(folder.parent).set(folder.name, Node())
            self.step()

    def rename(self, source: Path, target: Path) -> None:
        self._refuse_when_off()
        source.replace(target)
        node = self._node(source)
        self._node(target.parent).set(target.name, node)
        self._node(source.parent).set(source.name, None)
        self.step()

    def unlink(self, path: Path) -> None:
        self._refuse_when_off()
        if path.exists():
            path.unlink()
            parent = self._node(path.parent)
            if path.name in parent.entries:  # SQLite's own are not
                parent.set(path.name, None)
            self.step()

    def remove_folder(self, folder: Path) -> None:
        self._refuse_when_off()
        folder.rmdir()
        self._node(folder.parent).set(folder.name, None)
        self.step()

    def sync(self, path: Path) -> None:
        self._refuse_when_off()
        node = self._node(path)
        place = _place(sys._getframe(1))
        self.places.add(place)
        if place == self.skipped:
            self.steps_since_skipped = 0
            return
        node.sync()
        self.step()

    # ----------------------------------------------------------------------------------------------------------

    def damage(self, path: Path, content: bytes) -> None:
        """Let a file have other bytes from now on, whatever was synced."""
        path.write_bytes(content)
        node = self._node(path)
        node.content = node.synced = content

    def _refuse_when_off(self) -> None:
        if self.is_off:
            raise CrashError

    def _node(self, path: Path) -> Node:
        node = self.root
        for part in path.relative_to(self.folder).parts:
            if part not in node.entries:
                raise FileNotFoundError(2, "No such file or directory", str(path))
            node = node.entries[part]
        return node


def _fill(node: Node, folder: Path, tree: Tree) -> None:
    for name, inner in tree.items():
        path = folder / name
        if isinstance(inner, bytes):
            path.write_bytes(inner)
            node.set(name, Node(inner, inner))
        else:
            path.mkdir()
            child = Node()
            node.set(name, child)
            _fill(child, path, inner)
    node.sync()


def after_power_cut(state: State, chance: Random) -> Tree:
    """What a power cut leaves of a disk."""
    return dict(_left(state.root, chance, survival=chance.choice((0.0, 0.5, 0.9, 1.0)), files={}))


def _left(
    folder: Node, chance: Random, *, survival: float, files: dict[int, bytes]
) -> "Iterator[tuple[str, bytes | Tree]]":
    entries = dict(folder.kept)
    for name, node in folder.pending:
        if chance.random() >= survival:
            continue
        if node is None:
            entries.pop(name, None)
        else:
            entries[name] = node
    for name, node in entries.items():
        if node.content is None:
            yield name, dict(_left(node, chance, survival=survival, files=files))
        else:
            yield name, files.setdefault(id(node), _torn(node.content, node.synced, chance))


def _torn(content: bytes, synced: bytes, chance: Random) -> bytes:
    if content == synced:
        return content
    blocks = [content[at : at + BLOCK_BYTES] for at in range(0, len(content), BLOCK_BYTES)]
    ways = (
        lambda: synced,
        lambda: content[: chance.randrange(len(content))],
        lambda: bytes(len(content)),
        lambda: b"".join(block if chance.random() < 0.7 else bytes(len(block)) for block in blocks),
        lambda: content,
    )
    return chance.choice(ways)()


def _place(frame: "sys.FrameType | None") -> str:  # type: ignore[name-defined]
    """Where a sync stands in the code: its line, its function, and the function of ours for which that works."""
    while frame.f_code.co_name == "sync":
        frame = frame.f_back
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
    own, outer = frame.f_code.co_name, frame
    while outer.f_globals["__name__"] == "store.files":
        outer = outer.f_back
    caller = outer.f_code.co_name
    return f"{line} in {own}" + (f", called by {caller}" if caller != own else "")
