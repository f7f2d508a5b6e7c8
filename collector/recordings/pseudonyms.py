"""Other names for what identifies a machine, so that its recording can be shown to strangers.

One identity has one pseudonym in a recording and another in the next: they are made with a key that is thrown away, so
that nobody can try candidates. A text keeps its length, its punctuation and the prefix of a UUID, and nothing else.
"""

import hashlib
import re
import secrets

FIRST_PID = 5_000_000  # beyond any that Linux gives: a replay must not meet a process of the machine that replays
_ATTEMPTS_MAX = 64  # a text of one letter has few pseudonyms
_PREFIX = re.compile(r"(?:GPU-|MIG-)*")

_HARMLESS = re.compile(
    r"nvml(?:System(?:Get)(?:Driver|NVML|DriverBranch)\w*"
    r"|Device(?:Get)(?:Name|VbiosVersion|Inforom\w*|GspFirmwareVersion|BoardPartNumber|PciInfo\w*|PerformanceModes"
    r"|CurrentClockFreqs|NvLinkRemotePciInfo|HandleByPciBusId|GpuInstanceProfileInfo\w*)"
    r"|GpuInstanceGetComputeInstanceProfileInfo\w*)(?:_v\d+)?"
)
"""Functions whose texts say what a machine is and not which one. The texts of all others are replaced."""
_UNTOLD = re.compile(
    r"Accounting|Attestation|BoardId|ConfCompute|CPER|HandleBySerial|HandleByUUIDV|Hostname|License|Pdi|PlatformInfo"
    r"|ProcessName|VmId"
)
"""Functions that identify a machine or its users by numbers. Their answers are not written at all."""


class Pseudonyms:
    """Replaces identities, each by the same as before."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._texts: dict[str, str] = {"": ""}
        self._pids: dict[int, int] = {}

    @staticmethod
    def may_tell(function: str) -> bool:
        """Whether the answers of a function may be written."""
        return not _UNTOLD.search(function)

    def text(self, function: str, original: str) -> str:
        """What stands for a text that a function was given or gave."""
        if _HARMLESS.fullmatch(function):
            return original
        if original not in self._texts:
            taken = {original, *self._texts, *self._texts.values()}
            candidates = [self._candidate(original, attempt) for attempt in range(_ATTEMPTS_MAX)]
            self._texts[original] = next((one for one in candidates if one not in taken), candidates[0])
        return self._texts[original]

    def pid(self, original: int) -> int:
        return self._pids.setdefault(original, FIRST_PID + len(self._pids)) if original else 0

    def identity(self, original: bytes) -> bytes:
        """What stands for an identity in bytes; one of zeros is none."""
        return self._digest(original)[: len(original)] if any(original) else original

    def _candidate(self, original: str, attempt: int) -> str:
        prefix = _PREFIX.match(original)
        kept = prefix.group() if prefix else ""
        digest = self._digest(f"{attempt} {original}".encode()).hex()
        if original.isdecimal():
            digest = str(int(digest, 16))
        letters = iter(digest * (1 + len(original) // 64))
        return kept + "".join(next(letters) if char.isalnum() else char for char in original[len(kept) :])

    def _digest(self, original: bytes) -> bytes:
        return hashlib.blake2b(original, key=self._key, digest_size=64).digest()
