"""Real power cuts: `sudo python -m tests.crash.power_cut --cycles 100`, on ext4 and on XFS.

A file system on a loop device is shut down (EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN, without writing its log) while one
process appends and another seals, merges and removes without a pause. It is mounted anew, which replays its journal,
and the ledger is asked for what was acknowledged. What was not synced is gone, as with a power cut; a disk that loses
what it said it had is not tried.

It needs root, loop devices and mkfs. Everything happens in a mount namespace of its own.
"""

import argparse
import fcntl
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from random import Random

SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32), the same for both
WITHOUT_LOG = 2  # EXT4_GOING_FLAGS_NOLOGFLUSH, XFS_FSOP_GOING_FLAGS_NOLOGFLUSH
SIZE_BYTES = 400_000_000  # XFS takes no less than 300 MB
STEP_US = 7_000_000  # between two batches: the ledger's hours pass in seconds
INSIDE = "GPULEDGER_POWER_CUT_INSIDE"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash.power_cut", description=__doc__)
    parser.add_argument("--cycles", type=int, default=100, help="power cuts on each file system")
    parser.add_argument("--file-system", choices=["ext4", "xfs"], action="append", help="both where left out")
    parser.add_argument("--seed", type=int, default=1, help="of the moments")
    parser.add_argument("--work", choices=["append", "upkeep"], help=argparse.SUPPRESS)
    parser.add_argument("--ledger", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        return _append(given.ledger, given.seed) if given.work == "append" else _keep_up(given.ledger)
    if os.geteuid() or not shutil.which("unshare"):
        print("No power was cut: this needs root (run it with sudo) and unshare.", file=sys.stderr)
        return 2
    if INSIDE not in os.environ:
        os.environ[INSIDE] = "1"
        arguments = ["unshare", "--mount", sys.executable, "-m", "tests.crash.power_cut", *sys.argv[1:]]
        os.execvp("unshare", arguments)
    codes = [_on(kind, given.cycles, given.seed) for kind in given.file_system or ["ext4", "xfs"]]
    return max(codes)


def _on(kind: str, cycles: int, seed: int) -> int:
    with tempfile.TemporaryDirectory(prefix="gpuledger-power-") as name:
        image, mounted = Path(name) / "disk", Path(name) / "mounted"
        mounted.mkdir()
        image.touch()
        os.truncate(image, SIZE_BYTES)
        try:
            subprocess.run([f"mkfs.{kind}", "-q", str(image)], check=True, capture_output=True, text=True)
            _mount(kind, image, mounted)
        except (OSError, subprocess.CalledProcessError) as error:
            why = (getattr(error, "stderr", None) or str(error)).strip()
            print(f"No power was cut on {kind}: it cannot be made and mounted here ({why}).", file=sys.stderr)
            return 2
        try:
            return _cycles(kind, cycles, Random(seed), image, mounted)
        finally:
            subprocess.run(["umount", str(mounted)], check=False, capture_output=True)


def _mount(kind: str, image: Path, mounted: Path) -> None:
    command = ["mount", "-t", kind, "-o", "loop", str(image), str(mounted)]
    subprocess.run(command, check=True, capture_output=True, text=True)


def _cycles(kind: str, cycles: int, chance: Random, image: Path, mounted: Path) -> int:
    from .simulated.invariants import BrokenError
    from .simulated.protocol import Truth

    truth, ledger = Truth(), mounted / "ledger"
    began_s = time.monotonic()
    sealed = merged = removed = late_count = gone_count = 0
    for cycle in range(1, cycles + 1):
        log, late = _work_until_the_power_fails(mounted, ledger, cycle, chance, truth)
        subprocess.run(["umount", str(mounted)], check=True)
        _mount(kind, image, mounted)
        try:
            _check(ledger, truth, is_kept_up=cycle % 10 == 0)
        except BrokenError as error:
            kept = shutil.copytree(ledger, tempfile.mkdtemp(prefix=f"gpuledger-broken-{kind}-"), dirs_exist_ok=True)
            print(f"{kind}, power cut {cycle}: {error}\nThe ledger as it is now: {kept}")
            return 1
        sealed, merged, removed = (a + b for a, b in zip((sealed, merged, removed), log, strict=True))
        late_count += len(late)
        gone_count += len(late.difference(truth.acknowledged))
    print(
        f"{kind}: {cycles} power cuts, {len(truth.acknowledged):,} acknowledged events, none lost and none twice; "
        f"{sealed:,} files sealed, {merged:,} merges, {removed:,} files retained; of {late_count} events whose append "
        f"returned during a shutdown {gone_count} are gone; {time.monotonic() - began_s:.0f} s"
    )
    return 0


def _check(ledger: Path, truth, *, is_kept_up: bool) -> None:
    from .simulated.invariants import BrokenError, check_after_upkeep, check_before_recovery
    from .simulated.protocol import GRACE_US, keep_up, start

    check_before_recovery(ledger, truth)
    done = start(ledger, truth.now_us)
    if done.set_aside or done.lost:
        raise BrokenError(f"a start had to give up {done.set_aside} {done.lost}")
    if is_kept_up:
        keep_up(ledger, truth, truth.now_us + GRACE_US)
        check_after_upkeep(ledger, truth)


def _work_until_the_power_fails(
    mounted: Path, ledger: Path, cycle: int, chance: Random, truth
) -> tuple[tuple[int, ...], set[int]]:
    """What was acknowledged goes into `truth`.

    Returns files sealed, merges and files retained; and the seqs of which the append returned after the cut had begun: a
    sync that is under way may say yes to a file system that is being shut down.
    """
    command = [sys.executable, "-m", "tests.crash.power_cut", "--ledger", str(ledger), "--seed", str(cycle), "--work"]
    with (
        subprocess.Popen([*command, "append"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as appender,
        subprocess.Popen([*command, "upkeep"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as keeper,
    ):
        first = [process.stdout.readline() for process in (appender, keeper)]  # both are at work
        time.sleep(chance.uniform(0.0, 1.0))  # the random moment, not a wait for anything
        ended = [process for process in (appender, keeper) if process.poll() is not None]
        descriptor = os.open(mounted, os.O_RDONLY)
        cut_at_ns = time.monotonic_ns()
        fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("I", WITHOUT_LOG))
        os.close(descriptor)
        for process in (appender, keeper):
            process.kill()
        told = [first + process.stdout.read() for first, process in zip(first, (appender, keeper), strict=True)]
        if ended:
            raise SystemExit("a worker ended by itself: " + "".join(process.stderr.read() for process in ended))
    late: set[int] = set()
    for at_ns, seqs in map(json.loads, _whole_lines(told[0])):
        if at_ns < cut_at_ns:
            truth.acknowledged += tuple(seq for seq, _, _ in seqs)
        else:
            late.update(seq for seq, _, _ in seqs)
        truth.written.update({seq: (kind, time_us) for seq, kind, time_us in seqs})
        truth.now_us = max(truth.now_us, *(time_us for _, _, time_us in seqs))
    lines = [json.loads(line) for line in _whole_lines(told[1])]
    return tuple(sum(column) for column in zip(*lines, strict=True)), late


def _whole_lines(text: str) -> list[str]:
    return text[: text.rfind("\n") + 1].splitlines()


# The workers ------------------------------------------------------------------------------------------------------


def _append(ledger: Path, seed: int) -> int:
    """Append without a pause; tell of each batch once its append has returned."""
    from store.ledger import Ledger

    from .simulated.protocol import KINDS_ROLLED, batch

    chance = Random(seed)
    with Ledger(ledger) as opened:
        time_us = _newest_us(ledger)
        while True:
            time_us += STEP_US
            events = batch(time_us, chance, KINDS_ROLLED)
            seqs = opened.append(events)
            returned_at_ns = time.monotonic_ns()
            told = [(seq, one.kind, one.observed_at_us) for seq, one in zip(seqs, events, strict=True)]
            print(json.dumps([returned_at_ns, told]), flush=True)


def _keep_up(ledger: Path) -> int:
    """Upkeep without a pause, at the time of the newest event."""
    from .simulated.protocol import Truth, keep_up

    truth = Truth()
    while True:
        done = keep_up(ledger, truth, _newest_us(ledger))
        print(json.dumps([len(done.sealed.segments), len(done.merged), len(done.removed)]), flush=True)


def _newest_us(ledger: Path) -> int:
    from store.head import open_head

    from .simulated.protocol import START_US

    with closing(open_head(ledger)) as head:
        sql = "select max(at) from (select max(last_observed_at_us) at from frame union all select max(last_observed_at_us) from segment)"
        return head.execute(sql).get or START_US


if __name__ == "__main__":
    sys.exit(main())
