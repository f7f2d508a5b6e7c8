"""Whether a diagnosis names what was planted, and nothing else: precision and recall per cause.

    python benchmarks/diagnosis.py                      # 10 held-out seeds of every plant: some minutes
    python benchmarks/diagnosis.py --seeds 3 --verbose  # what was missed and what was blamed
    python benchmarks/diagnosis.py --training           # the seeds that thresholds may be tuned on

Each story of `benchmarks/scenarios.py` is recorded into a ledger and asked about three times: the slow request, the
window around it, and the same window of a machine that tells of no requests. A cause that was planted and is named is
right, one that is named and was not planted is blamed, one that was planted and is not named is missed. Of a gap, right
is to say that it cannot be known. The tests use seeds below 100; those of training begin at 100, held-out ones at 2000;
none of these was looked at while thresholds were chosen.
"""

import argparse
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from scenarios import LENGTH_S, PLANTS, Story, at, record, story

from query.reading.local_source import LocalSource
from query.requests.diagnosis import diagnose, diagnose_window
from query.windows import Window

MARK = 0.9
TRAINING, HELD_OUT = 100, 2000
SEEN_IN_REQUESTS = ("queueing", "kv_pressure", "prefill", "decode", "client", "long_answer")
"""What only requests show, or what only they have as a figure of its own: a machine without any is not asked for it."""


@dataclass(slots=True)
class Tally:
    """How often each cause was right, blamed and missed."""

    right: Counter[str] = field(default_factory=Counter)
    blamed: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)

    def count(self, expected: str | None, named: set[str]) -> None:
        for name in named:
            (self.right if name == expected else self.blamed)[name] += 1
        if expected and expected not in named:
            self.missed[expected] += 1

    def figures(self, name: str | None = None) -> tuple[int, float, float]:
        """How often planted, precision and recall; of all causes without a name."""
        right, blamed, missed = (
            one.total() if name is None else one[name] for one in (self.right, self.blamed, self.missed)
        )
        precision = right / (right + blamed) if right + blamed else 1.0
        return right + missed, precision, right / (right + missed) if right + missed else 1.0

    def causes(self) -> list[str]:
        return sorted({*self.right, *self.blamed, *self.missed})


def named_of_request(source: LocalSource) -> set[str]:
    """The causes that are named; `gap` where it says that it cannot know."""
    found = diagnose(source, "asked", now=at(LENGTH_S))
    is_unknown = any("cannot be known" in words for words in found.limits)
    return {one.name for one in found.causes} | ({"gap"} if is_unknown else set())


def named_of_window(source: LocalSource, told: Story) -> set[str]:
    first, last = (datetime.fromtimestamp(edge / 1e6, UTC) for edge in told.window_us)
    found = diagnose_window(source, Window(first, last, "UTC", "the planted time"), now=at(LENGTH_S))
    is_unknown = any("cannot be known" in words for words in found.limits)
    return {one.name for one in found.causes} | ({"gap"} if is_unknown else set())


def asked(folder: Path, plant: str, seed: int) -> Iterator[tuple[str, set[str]]]:
    """What is named for one story, by how it was asked."""
    source = LocalSource(folder / "with")
    told = story(plant, seed)
    record(source.folder, told)
    yield "request", named_of_request(source)
    yield "window", named_of_window(source, told)
    source.close()
    if plant not in SEEN_IN_REQUESTS:
        source = LocalSource(folder / "without")
        told = story(plant, seed, with_requests=False)
        record(source.folder, told)
        yield "machine", named_of_window(source, told)
        source.close()


def expected_of(plant: str) -> str | None:
    return "gap" if plant == "gap" else PLANTS[plant]


def measure(seeds: range, plants: list[str], *, verbose: bool) -> dict[str, Tally]:
    tallies = {way: Tally() for way in ("request", "window", "machine")}
    for plant in plants:
        for seed in seeds:
            with tempfile.TemporaryDirectory() as name:
                for way, named in asked(Path(name), plant, seed):
                    tallies[way].count(expected_of(plant), named)
                    if verbose and named != ({expected_of(plant)} - {None}):
                        print(f"{plant} {seed}, {way}: {', '.join(sorted(named)) or 'nothing'}", flush=True)
    return tallies


def show(way: str, tally: Tally) -> None:
    print(f"\n{way:24}{'planted':>10}{'precision':>12}{'recall':>10}   mark: {MARK} each")
    for name in [*tally.causes(), None]:
        planted, precision, recall = tally.figures(name)
        verdict = "met" if min(precision, recall) >= MARK else "MISSED"
        print(f"{name or 'in all':24}{planted:10}{precision:12.3f}{recall:10.3f}   {verdict}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--training", action="store_true")
    parser.add_argument("--plants", nargs="+", choices=list(PLANTS), default=list(PLANTS), metavar="PLANT")
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    first = TRAINING if arguments.training else HELD_OUT
    tallies = measure(range(first, first + arguments.seeds), arguments.plants, verbose=arguments.verbose)
    for way, tally in tallies.items():
        show(way, tally)


if __name__ == "__main__":
    main()
