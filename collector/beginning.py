"""How a recording begins, whatever the ledger is like: the collector always starts.

Only what a person must decide keeps it from starting: a folder that is not a ledger's, a network file system, no
permission, a ledger of a newer release, or one that another collector holds.
"""

import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import apsw

from store.errors import LedgerFullError
from store.events import Event
from store.files import make_folder
from store.head import check_folder_is_ours, not_writable, refuse_newer
from store.ledger import CollectorLock, Ledger
from store.repair.quarantine import Repairer
from store.repair.recovery import Recovery, repair
from store.space import check_file_system, full_disk, is_full

logger = logging.getLogger(__name__)


class PatientLedger:
    """A ledger that is opened as soon as its disk has room; until then it takes nothing.

    Args:
        open_ledger: Opens it, or raises LedgerFullError.
    """

    def __init__(self, open_ledger: Callable[[], Ledger]) -> None:
        self._open_ledger = open_ledger
        self._ledger: Ledger | None = None

    def append(self, events: Sequence[Event]) -> range:
        """As `Ledger.append`.

        Raises:
            LedgerUnusableError: The disk is full or failing.
        """
        return self.opened().append(events)

    def opened(self) -> Ledger:
        if self._ledger is None:
            self._ledger = self._open_ledger()
        return self._ledger

    def close(self) -> None:
        if self._ledger:
            self._ledger.close()


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a recording begins with.

    Args:
        lock: The right to be the one collector.
        ledger: Where events go.
        has_strays: Whether files under events/ wait to be judged by `store.repair.adoption`.
    """

    lock: CollectorLock
    ledger: PatientLedger
    has_strays: bool


def begin_recording(folder: Path, by: Repairer) -> Beginning:
    """Take the ledger, put it right and open it; a full disk is waited for.

    Raises:
        NotALedgerError, NetworkFolderError, LedgerHeldError, LedgerUnusableError: It cannot be recorded into.
    """
    check_folder_is_ours(folder)
    check_file_system(folder)
    refuse_newer(folder)
    lock = _take(folder)
    try:
        found = _put_right(folder, by)
        for sentence in found.sentences():
            logger.warning("%s", sentence)
        ledger = PatientLedger(lambda: Ledger(folder))
        try:
            ledger.opened()
        except LedgerFullError as error:
            logger.error("%s", error)  # noqa: TRY400 - the sentence says it
    except BaseException:
        lock.close()
        raise
    return Beginning(lock, ledger, bool(found.uncatalogued))


def _take(folder: Path) -> CollectorLock:
    try:
        make_folder(folder)
        return CollectorLock(folder)
    except OSError as error:
        if is_full(folder):
            raise full_disk(folder) from error
        raise not_writable(folder, error) from error


def _put_right(folder: Path, by: Repairer) -> Recovery:
    """Repair what can be; what cannot for want of space or by a failing disk is left for the next start."""
    try:
        return repair(folder, by)
    except (LedgerFullError, OSError, apsw.FullError, apsw.IOError) as error:
        logger.error("the ledger could not be looked through (%s); that is done at the next start", error)  # noqa: TRY400
        return Recovery("sound")


def adoption_command(folder: Path) -> list[str]:
    """The command that judges files which the catalogue does not name."""
    return [sys.executable, "-P", "-m", "store.repair.adoption", str(folder)]
