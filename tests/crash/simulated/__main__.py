"""`python -m tests.crash.simulated --seeds 100000`: crashes by the thousand; `--without-syncs`: each must matter."""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from .workers import try_part, try_without

MEMORY = Path("/dev/shm")
A_FEW_OF_EACH_COURSE = (range(40), range(250, 290))  # enough to come by every sync


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash.simulated", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000, help="how many crashes")
    parser.add_argument("--first-seed", type=int, default=0, help="the first of them: to see one again")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at a time")
    parser.add_argument("--without-syncs", action="store_true", help="leave out each sync in turn: some seed must fail")
    parser.add_argument("--json", action="store_true", help="print the figures as one line of JSON")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None, prefix="gpuledger-crash-") as scratch:
        if given.without_syncs:
            return _without_syncs(given.seeds, given.jobs, Path(scratch), as_json=given.json)
        return _seeds(range(given.first_seed, given.first_seed + given.seeds), given.jobs, Path(scratch), given.json)


def _seeds(seeds: range, jobs: int, scratch: Path, as_json: bool) -> int:
    from .trials import Tally

    began_s = time.monotonic()
    tally = Tally()
    for part in _run(partial(try_part, scratch=scratch), _parts(seeds), jobs):
        tally.add(part)
    took_s = time.monotonic() - began_s
    if as_json:
        print(json.dumps({**vars(tally), "took_s": took_s}))
    else:
        print(
            f"{tally.seeds:,} seeds: {tally.power_cuts:,} power cuts and {tally.kills:,} kills at {tally.steps:,} steps "
            f"of {tally.recordings:,} recordings and their recoveries; {len(tally.failed)} failed; {took_s:.0f} s"
        )
        for seed, why in sorted(tally.failed.items())[:20]:
            print(f"seed {seed}: {why}")
    return 1 if tally.failed else 0


def _without_syncs(seeds: int, jobs: int, scratch: Path, *, as_json: bool) -> int:
    parts = _run(partial(try_part, scratch=scratch), A_FEW_OF_EACH_COURSE, jobs)
    places = sorted({place for part in parts for place in part.places})
    found = dict(_run(partial(try_without, seeds=seeds, scratch=scratch), places, jobs))
    if as_json:
        print(json.dumps(found))
    else:
        for place, (seed, why) in found.items():
            print(f"{place}: " + ("NO SEED FAILS" if seed is None else f"seed {seed}: {why}"))
    return 1 if any(seed is None for seed, _ in found.values()) else 0


def _parts(seeds: range) -> list[range]:
    from .trials import SEEDS_PER_RECORDING

    cuts = [
        seeds.start,
        *range((seeds.start // SEEDS_PER_RECORDING + 1) * SEEDS_PER_RECORDING, seeds.stop, SEEDS_PER_RECORDING),
    ]
    return [range(first, last) for first, last in zip(cuts, [*cuts[1:], seeds.stop], strict=True)]


def _run(task, parts, jobs):
    """Each part's result, as it is done. Spawned: a process that has threads of Arrow must not be forked."""
    with multiprocessing.get_context("spawn").Pool(min(jobs, len(parts))) as pool:
        yield from pool.imap_unordered(task, parts)


if __name__ == "__main__":
    sys.exit(main())
