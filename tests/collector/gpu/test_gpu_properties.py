"""What holds whatever the driver does, tick after tick, on a machine of three GPUs."""

from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collector.gpu.readings import EPOCH_COUNTERS

GPUS = ("GPU-a", "GPU-b", "GPU-c")
FAILURES = (2, 3, 4, 6, 10, 13, 15, 16, 21, 28, 999)
CALLS = {
    "nvmlDeviceGetUtilizationRates": {"utilization_percent", "memory_utilization_percent"},
    "nvmlDeviceGetPerformanceState": {"performance_state"},
    "nvmlDeviceGetBAR1MemoryInfo": {"bar1_used_bytes", "bar1_total_bytes"},
    "nvmlDeviceGetEncoderUtilization": {"encoder_utilization_percent"},
}
FIELDS = {82: "memory_temperature_celsius", 83: "energy_joules", 186: "power_instant_watts", 94: "pcie_replay_count"}

call_failures = st.dictionaries(st.sampled_from(sorted(CALLS)), st.sampled_from(FAILURES))
field_failures = st.dictionaries(st.sampled_from(sorted(FIELDS)), st.sampled_from(FAILURES))
gpu_states = st.fixed_dictionaries(
    {
        "is_lost": st.booleans(),
        "calls": call_failures,
        "fields": field_failures,
        "energy_mj": st.integers(1, 10**12),
        "pcie_tx": st.integers(0, 2**33),
    }
)
machines = st.lists(st.tuples(*[gpu_states] * len(GPUS)), min_size=2, max_size=6)
ON_THE_STAND_IN = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def scenario(states):
    lines = []
    for index, (uuid, state) in enumerate(zip(GPUS, states, strict=True)):
        lines.append(
            f"gpu {index} uuid={uuid} util=5 pstate=3 energy_mj={state['energy_mj']} pcie_tx={state['pcie_tx']}"
        )
        lines.append(f"gpu {index} bar1_used=7 bar1_total=9 encoder_util=11 mem_temp=40 pcie_replay=1")
        lines += [f"gpu {index} lost_after=0"] * state["is_lost"]
        for name, code in state["calls"].items():
            lines.append(f"fail {name} {code} gpu={index}")
            if name == "nvmlDeviceGetPerformanceState":
                lines.append(f"fail nvmlDeviceGetPowerState {code} gpu={index}")
        lines += [f"field {field} {code} gpu={index}" for field, code in state["fields"].items()]
    return "\n".join(lines) + "\n"


def watched(gpu_machine, fake_nvml, ticks):
    """The rows by UUID at each tick; whole rows, each warm one among them."""
    fake_nvml.write(scenario(ticks[0]))
    probe = gpu_machine(fake_nvml)
    seen = []
    for states in ticks:
        probe.becomes(scenario(states))
        seen.append({row["gpu_uuid"]: row for row in probe.read(after_s=5).whole_rows})
    return seen


@given(machines)
@ON_THE_STAND_IN
def test_what_was_not_told_is_null_with_a_reason_and_never_a_number(gpu_machine, fake_nvml, ticks):
    for states, rows in zip(ticks, watched(gpu_machine, fake_nvml, ticks), strict=True):
        for uuid, state in zip(GPUS, states, strict=True):
            row = rows.get(uuid)
            if row is None or "*" in row.get("absence", {}):
                continue
            failed = {column for call in state["calls"] for column in CALLS[call]}
            failed |= {FIELDS[field] for field in state["fields"]}
            assert not failed & row.keys()
            assert failed <= row.get("absence", {}).keys()
            assert not row.keys() & row.get("absence", {}).keys()


@given(machines)
@ON_THE_STAND_IN
def test_a_gpu_that_is_lost_costs_no_other_its_row(gpu_machine, fake_nvml, ticks):
    first = {uuid for uuid, state in zip(GPUS, ticks[0], strict=True) if not state["is_lost"]}
    for states, rows in zip(ticks, watched(gpu_machine, fake_nvml, ticks), strict=True):
        for uuid, state in zip(GPUS, states, strict=True):
            if uuid in first and not state["is_lost"] and rows[uuid]["up"]:
                assert rows[uuid]["memory_kind"] == "dedicated"
            if uuid in first and state["is_lost"]:
                assert (rows[uuid]["up"], rows[uuid]["absence"]) == (False, {"*": "lost"})
        assert first <= rows.keys()


@given(machines)
@ON_THE_STAND_IN
def test_a_counter_never_goes_back_within_an_epoch(gpu_machine, fake_nvml, ticks):
    seen = watched(gpu_machine, fake_nvml, ticks)
    for uuid in GPUS:
        for column in EPOCH_COUNTERS:
            told = [(row[uuid]["counter_epoch"], row[uuid][column]) for row in seen if column in row.get(uuid, {})]
            for (epoch, value), (next_epoch, next_value) in pairwise(told):
                assert next_epoch >= epoch
                assert next_epoch > epoch or next_value >= value
