"""The reference page of what is recorded on which hardware, ours beside the peers'."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from gpuledger.peers import METRICS, OPTIONAL, PEERS, READ_ON, YES, Metric
from store.events import GPU_SAMPLE, KINDS, Field, Kind


class Seen(StrEnum):
    """How it is known that recording works somewhere."""

    HARDWARE = "verified on hardware"
    STAND_IN = "verified against the stand-in"
    UNVERIFIED = "unverified on hardware"


@dataclass(frozen=True, slots=True)
class Machine:
    """A kind of machine, and what to expect there.

    Args:
        name: What it is.
        expected: What is recorded, and what is absent by nature.
        seen: How that is known.
        shown_by: The tests that show it.
    """

    name: str
    expected: str
    seen: Seen
    shown_by: tuple[str, ...] = ()


MACHINES = (
    Machine(
        "data centre, Hopper and Blackwell (H100, H200, B200)",
        "everything in the table, GPM and NVLink included, without DCGM; `clock_video_hertz`, fan and display as the board has them",
        Seen.STAND_IN,
        ("tests/collector/gpu/test_gpu_tiers.py", "tests/collector/gpu/test_gpu_activity.py", "tests/collector/gpu/test_gpu_links.py"),
    ),
    Machine(
        "data centre before Hopper (V100, A100, L40S)",
        "all but what the multiprocessors did: GPM is not supported there, and those columns say so; `utilization_percent` stands",
        Seen.STAND_IN,
        ("tests/collector/gpu/test_gpu_activity.py",),
    ),
    Machine(
        "workstation and consumer (RTX, GeForce)",
        "no ECC, remapped rows or NVLink, mostly no memory temperature; power and energy from Volta on; fan and display instead",
        Seen.STAND_IN,
        ("tests/collector/gpu/test_gpu.py", "tests/collector/gpu/test_gpu_tiers.py"),
    ),
    Machine(
        "laptop",
        "as a consumer GPU; one that sleeps is not woken and its rows say `suspended`; power limits are often not told",
        Seen.STAND_IN,
        ("tests/collector/gpu/test_runtime_power.py",),
    ),
    Machine(
        "unified memory (DGX Spark GB10)",
        "`memory_kind` is unified: total and available are the host's, used is the sum over the GPU's processes; what holds the clocks down is known to be told incompletely",
        Seen.STAND_IN,
        ("tests/collector/gpu/test_gpu.py",),
    ),
    Machine(
        "MIG (A100, H100, H200, B200)",
        "a row for the GPU and one for each MIG device, which has memory, BAR1 and, from Hopper on, activity of its own; power, temperature and clocks are the GPU's",
        Seen.STAND_IN,
        ("tests/collector/gpu/test_gpu_mig.py",),
    ),
    Machine(
        "Grace Hopper, Grace Blackwell (GH200, GB200)",
        "as the data centre; with the CPU in the same module, power of the module and the C2C links come on top",
        Seen.UNVERIFIED,
    ),
    Machine(
        "Jetson (Orin, Thor)",
        "what its partial NVML answers, and memory as unified; early in a boot a zero that cannot be true says `suspect`, and what was refused is asked again within 10 minutes",
        Seen.UNVERIFIED,
    ),
    Machine(
        "virtual machine with a vGPU",
        "memory, utilization and processes of the guest; no power, temperature or fan",
        Seen.UNVERIFIED,
    ),
    Machine(
        "WSL 2",
        "memory, temperature, clocks and power; utilization and processes may be missing; the library is in `/usr/lib/wsl/lib`",
        Seen.UNVERIFIED,
    ),
    Machine(
        "driver before 510",
        "no reserved memory, and older calls where the newer are missing",
        Seen.STAND_IN,
        ("tests/collector/gpu/test_gpu.py",),
    ),
    Machine(
        "no NVIDIA GPU",
        "the host, requests and the MCP server's own calls; the driver is looked for every minute",
        Seen.STAND_IN,
        ("tests/collector/test_service.py",),
    ),
)  # fmt: skip

_NVML_SOURCES = ("nvml", "field ")


def hardware_page() -> str:
    """`docs/reference/hardware.md`."""
    return "\n".join([*_introduction(), *_machines(), *_peers(), *_features(), *_alone(), ""])


def _introduction() -> Iterator[str]:
    yield "# Hardware"
    yield ""
    yield "Generated from `gpuledger/hardware.py`, `gpuledger/peers.py` and `store/events.py` by `gpuledger docs`; do not edit."
    yield ""
    yield "What a reading cannot be is NULL with its [reason](../concepts/absence.md). `gpuledger doctor` says what this"
    yield "machine's driver answers and what it refuses."


def _machines() -> Iterator[str]:
    yield from ("", "## What to expect where", "")
    yield f"{_seen_sentence()} The stand-in is the library in C that the tests run against in the driver's place."
    yield ""
    yield "| machine | what is recorded | how that is known |"
    yield "|---|---|---|"
    for machine in MACHINES:
        shown = ", ".join(f"[{path.rpartition('/')[2]}](../../{path})" for path in machine.shown_by)
        yield f"| {machine.name} | {machine.expected} | {machine.seen}{': ' if shown else ''}{shown} |"


def _seen_sentence() -> str:
    seen = [machine.name for machine in MACHINES if machine.seen is Seen.HARDWARE]
    return f"Seen on real hardware: {', '.join(seen)}." if seen else "None of this was seen on real hardware yet."


def _peers() -> Iterator[str]:
    yield from ("", "## Metric by metric, beside other recorders", "")
    yield f"Read in their sources on {READ_ON}. {YES} recorded; {OPTIONAL} only in part or on request, as this table says."
    yield ""
    yield f"| | version | what was read | {OPTIONAL} |"
    yield "|---|---|---|---|"
    for peer in PEERS:
        yield f"| {peer.name} | {peer.version} | {peer.read} | {peer.optional} |"


def _features() -> Iterator[str]:
    for group, metrics in METRICS.items():
        yield from ("", f"### {group}", "")
        yield f"| | gpuledger | every | read from | DCGM | {' | '.join(peer.name for peer in PEERS)} |"
        yield f"|---|---|---|---|---|{':-:|' * len(PEERS)}"
        for metric in metrics:
            marks = (metric.marks.get(peer.key, "") for peer in PEERS)
            yield f"| {' | '.join([metric.what, *_our_cells(metric), *marks])} |"


def _our_cells(metric: Metric) -> list[str]:
    ours = our_columns(metric)
    if not ours:
        return [f"no: {metric.why_not}" if metric.why_not else "not yet", "", "", ""]
    return [
        _listed([*(_named(kind, column) for kind, column in ours if column.name != "attributes"), *_keys(metric)]),
        _listed(_cadence(kind, column) for kind, column in ours),
        _listed(column.source for _, column in ours),
        _listed(f"`{column.dcgm}`" for _, column in ours if column.dcgm),
    ]


def our_columns(metric: Metric) -> list[tuple[Kind, Field]]:
    """The columns that a row's patterns name, in the order of the patterns."""
    found = {(kind.name, column.name): (kind, column) for one in metric.ours.split() for kind, column in _matching(one)}
    return list(found.values())


def _keys(metric: Metric) -> Iterator[str]:
    """What stands under a key of `attributes`, as a query asks for it."""
    for pattern in metric.ours.split():
        column, has_key, key = pattern.partition(":")
        if has_key:
            yield f"`{column} ->> '{key}'`"


def _matching(pattern: str) -> Iterator[tuple[Kind, Field]]:
    name, _, column_pattern = pattern.partition(":")[0].rpartition(".")
    kinds = [KINDS[name]] if name in KINDS else [] if name else [GPU_SAMPLE]
    return ((kind, column) for kind in kinds for column in kind.fields if fnmatchcase(column.name, column_pattern))


def _alone() -> Iterator[str]:
    """What is read from NVML here and is in no row: no peer records it."""
    yield from ("", "### Recorded by gpuledger alone", "")
    yield "| | gpuledger | every | read from |"
    yield "|---|---|---|---|"
    for kind, column in columns_alone():
        yield f"| {column.meaning} | {_named(kind, column)} | {_cadence(kind, column)} | {column.source} |"


def columns_alone() -> list[tuple[Kind, Field]]:
    """What is measured or a state, is read from NVML, and that no row names."""
    named = {column for metrics in METRICS.values() for metric in metrics for _, column in our_columns(metric)}
    candidates = ((kind, column) for kind in KINDS.values() for column in kind.fields)
    return [(kind, column) for kind, column in candidates if _is_from_nvml(column) and column not in named]


def _is_from_nvml(column: Field) -> bool:
    return column.instrument != "label" and column.source.startswith(_NVML_SOURCES)


def _named(kind: Kind, column: Field) -> str:
    return f"`{column.name}`" if kind is GPU_SAMPLE else f"`{kind.name}.{column.name}`"


def _cadence(kind: Kind, column: Field) -> str:
    every_s = column.every_seconds or kind.expected_every_seconds
    return f"{every_s:g} s" if every_s else kind.cadence


def _listed(words: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(word for word in words if word))
