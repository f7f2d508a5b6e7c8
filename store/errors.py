"""What can go wrong, as small records that end as one sentence on a terminal or in an MCP answer.

```
GpuledgerError                 exit 1   any problem found
├── UsageError                 exit 2   a command, a setting or a path that cannot be used as given
│   ├── NotALedgerError                 the folder holds something else
│   ├── NetworkFolderError              the folder lies on a network file system
│   └── (query) WindowError, UnknownMetricError, UnknownGpuError, SqlRefusedError …
├── NoDataError                exit 3   the question is fine, nothing was recorded
│   └── NoLedgerError                   nothing was ever recorded there
├── LedgerHeldError            exit 4   another collector writes this ledger
└── LedgerUnusableError        exit 1   read-only, damaged, or written by a newer gpuledger
    └── LedgerFullError                 its disk is full: it comes back by itself
```
"""

from collections.abc import Iterable
from difflib import SequenceMatcher
from typing import ClassVar


class GpuledgerError(Exception):
    """What is wrong, on what, and what to do about it.

    Args:
        problem: What is wrong and on what, as the beginning of a sentence, without a full stop.
        hint: What to do, best a command to run.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, problem: str, hint: str = "") -> None:
        self.problem = problem
        self.hint = hint
        super().__init__(f"{problem}: {hint}" if hint else problem)


class UsageError(GpuledgerError):
    exit_code = 2


class NotALedgerError(UsageError):
    pass


class NetworkFolderError(UsageError):
    pass


class NoDataError(GpuledgerError):
    exit_code = 3


class NoLedgerError(NoDataError):
    pass


class LedgerHeldError(GpuledgerError):
    exit_code = 4


class LedgerUnusableError(GpuledgerError):
    pass


class LedgerFullError(LedgerUnusableError):
    pass


def nearest(wanted: str, known: Iterable[str]) -> str | None:
    """The known name that `wanted` most likely meant, whole or as a beginning; None where nothing is near."""

    def likeness(name: str) -> float:
        whole = SequenceMatcher(None, wanted, name).ratio()
        beginning = SequenceMatcher(None, wanted, name[: len(wanted)]).ratio()
        return max(whole, 0.95 * beginning)

    best = max(known, key=likeness, default=None)
    return best if wanted and best is not None and likeness(best) >= 0.6 else None


def did_you_mean(wanted: str, known: Iterable[str], otherwise: str) -> str:
    """`did you mean 'x'?` where something is near, else `otherwise`."""
    near = nearest(wanted, known)
    return f"did you mean {near!r}?" if near else otherwise
