"""Events that a source may send again, of which each is stored once.

A sender that heard no answer sends again: the whole batch, under the key it had, or single events in another batch,
such as a span that an exporter could not get rid of. A batch is known by its key (`store.ledger`), an event by its
`source` and `source_event_id`, of which 64 bits of a hash are kept: among a million of them, one that is new is taken
for a known one once in 10^13 times. Keys stand in two generations; when the newer is full the older goes as a whole, so
at least the newest `KEYS_PER_GENERATION` events are known and at most twice as many. Random keys touch as many pages as
there are events, and a generation has 1,300: that bounds what one commit writes. A head that is built anew knows none.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import apsw
import msgspec

from store.events import Event

KEYS_PER_GENERATION = 250_000  # some 5 MB of the head

_ADD = """
insert into event_key
select :newer, value from json_each(:keys)
where not exists (select 1 from event_key where generation = :newer - 1 and key = value)
on conflict do nothing
returning key
"""


@dataclass(frozen=True, slots=True)
class SentBatch:
    """What a source sent at once.

    Args:
        events: Its events; those that bear `source` and `source_event_id` are stored once.
        key: A name that only this batch bears; a batch whose key is known is not stored again.
    """

    events: Sequence[Event]
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a batch: so many events were stored now, so many had been before."""

    stored: int
    repeated: int


def event_key(event: Event) -> int | None:
    """What an event is known by; None for one without an identity of its source."""
    own_id = event.values.get("source_event_id")
    if own_id is None:
        return None
    named = f"{event.values.get('source')}\0{own_id}".encode()
    return int.from_bytes(blake2b(named, digest_size=8).digest(), "little", signed=True)


def unknown_events(head: apsw.Connection, events: Sequence[Event]) -> list[Event]:
    """The events that were not stored before, each once, and their keys remembered: inside the caller's transaction."""
    keyed: dict[int, Event] = {}
    unknown = []
    for event in events:
        key = event_key(event)
        if key is None:
            unknown.append(event)
        else:
            keyed.setdefault(key, event)
    added = _remember(head, sorted(keyed)) if keyed else frozenset()
    return unknown + [event for key, event in keyed.items() if key in added]


def _remember(head: apsw.Connection, keys: Iterable[int]) -> frozenset[int]:
    """Those of the keys that are new; sorted, they go into the table from left to right."""
    newest = "select generation, key_count from event_key_generation order by generation desc limit 1"
    newer, count = head.execute(newest).fetchone() or (1, 0)
    if count >= KEYS_PER_GENERATION:
        head.execute("delete from event_key where generation < ?", (newer,))
        head.execute("delete from event_key_generation where generation < ?", (newer,))
        newer, count = newer + 1, 0
    rows: list[Any] = head.execute(_ADD, {"newer": newer, "keys": msgspec.json.encode(list(keys)).decode()}).fetchall()
    head.execute("insert or replace into event_key_generation values (?, ?)", (newer, count + len(rows)))
    return frozenset(row[0] for row in rows)
