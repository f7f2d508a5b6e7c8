"""What every probe has in common."""

from collections.abc import Sequence
from typing import Protocol

from collector.clock import Now
from store.events import Event


class Probe(Protocol):
    """Something that can be looked at.

    `read` gives the events that describe it now. What a probe cannot know it leaves out and says why in the
    row's `absence`; it raises only on what it did not expect, which costs its own events of that tick and no
    other probe's.
    """

    name: str

    def read(self, now: Now) -> Sequence[Event]: ...

    def status(self) -> str:
        """What it is watching, or why it sees nothing, as a phrase for a person."""

    def close(self) -> None: ...
