"""/metrics, parsed back: what a scraper gets of the newest tick."""

from dataclasses import replace

import prometheus_client.openmetrics.parser
import prometheus_client.parser
import pytest

from collector.clock import Now
from collector.demo import DemoProbe
from collector.exposition import LedgerFigures, LiveCollector, Received, UpkeepFigures, expose
from collector.ingest.tally import NewestServers, Tally
from collector.probe import Condition
from collector.sampler import Latest, XidCount
from store.derivations import prometheus_families
from store.events import DEVICE_SAMPLE, GPU_SAMPLE, SYSTEM_SAMPLE, Event

NOW = Now(monotonic_s=10.0, boottime_s=20.0, wall_us=1_795_435_200_250_000)
TEXT = "text/plain;version=0.0.4"
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
PARSERS = {
    TEXT: prometheus_client.parser.text_string_to_metric_families,
    OPENMETRICS: prometheus_client.openmetrics.parser.text_string_to_metric_families,
}

GPU_ROW = {
    "gpu_uuid": "GPU-a",
    "gpu_index": 0,
    "interval_seconds": 1.0,
    "counter_epoch": 1,
    "up": True,
    "driver_sampled_at": NOW.wall_us,
    "utilization_percent": 0,
    "memory_kind": "dedicated",
    "memory_used_bytes": 40_000_000_000,
    "power_watts": 612.345,
    "energy_joules": 5000.123,
    "clock_sm_hertz": 1_980_000_000,
    "clock_memory_hertz": 3_201_000_000,
    "clock_event_reasons_bitmask": 0x24,
    "throttle_sw_power_cap_seconds": 1.5,
    "ecc_corrected_volatile_count": 3,
    "ecc_uncorrected_aggregate_count": 4,
    "remapped_rows_corrected_count": 5,
    "row_remap_pending": False,
    "pcie_tx_bytes": 111,
    "nvlink_rx_bytes": 222,
    "absence": {"fan_speed_percent": "not_supported"},
}
LOST_ROW = {"gpu_uuid": "GPU-b", "gpu_index": 1, "counter_epoch": 1, "up": False, "absence": {"*": "lost"}}
HOST_ROW = {"cpu_utilization_percent": 12.5, "context_switches_count": 9, "pressure_io_some_seconds": 0.25}
INVENTORY = {
    "": {"subject": "host", "name": "box"},
    "GPU-a": {
        "gpu_index": 0,
        "name": 'the "big"\\one\nof two',
        "source": "nvml",
        "driver_version": "580.95.05",
        "memory_kind": "dedicated",
    },
    "GPU-b": {"gpu_index": 1, "name": "NVIDIA H200", "source": "nvml"},
}
A, B = (("gpu", "0"), ("uuid", "GPU-a")), (("gpu", "1"), ("uuid", "GPU-b"))
DISK_ROW = {"device_type": "disk", "device": "nvme0n1", "read_bytes": 4096, "in_flight_count": 0}
CARD_ROW = {"device_type": "network", "device": "eth0", "received_bytes": 7, "link_up": False}
PORT_ROW = {
    "device_type": "infiniband",
    "device": "mlx5_0/1",
    "received_bytes": 8,
    "absence": {"sent_bytes": "no_data"},
}
DISK, CARD, PORT = ((("type", row["device_type"]), ("device", row["device"])) for row in (DISK_ROW, CARD_ROW, PORT_ROW))
LATEST = Latest(
    now=NOW,
    devices=[Event("device_sample", NOW.wall_us - 4_000_000, row) for row in (DISK_ROW, CARD_ROW, PORT_ROW)],
    events=[
        Event("system_sample", NOW.wall_us, HOST_ROW),
        Event("gpu_sample", NOW.wall_us, GPU_ROW),
        Event("gpu_sample", NOW.wall_us, LOST_ROW),
        Event("ledger_event", NOW.wall_us, {"event": "probe_status"}),
    ],
    inventory=INVENTORY,
    ticks=7,
    missed_ticks=2,
    append_failures=1,
    dropped_events=3,
    late_s=0.125,
    xids={("1", "GPU-b", "79"): XidCount(2, NOW.wall_us)},
    reading_s=0.75,
    append_s=0.5,
)

OWN = {
    ("dgx_collector_build_info", (("version", "1.2.3"),)): 1.0,
    ("dgx_collector_ticks_total", ()): 7.0,
    ("dgx_collector_missed_ticks_total", ()): 2.0,
    ("dgx_collector_append_failures_total", ()): 1.0,
    ("dgx_collector_dropped_events_total", ()): 3.0,
    ("dgx_gpu_xid_errors_total", (("gpu", "1"), ("uuid", "GPU-b"), ("xid", "79"))): 2.0,
    ("dgx_gpu_xid_last_timestamp_seconds", (("gpu", "1"), ("uuid", "GPU-b"), ("xid", "79"))): 1_795_435_200.25,
    ("dgx_collector_reading_seconds_total", ()): 0.75,
    ("dgx_collector_append_seconds_total", ()): 0.5,
    ("dgx_collector_lag_seconds", ()): 0.125,
    ("dgx_collector_last_sample_timestamp_seconds", ()): 1_795_435_200.25,
}


def scrape(latest, accept=TEXT, *, is_fresh=True):
    body, content_type = expose(LiveCollector(lambda: latest, lambda: is_fresh, "1.2.3"), accept=accept)
    assert content_type.split(";")[0] == accept.split(";")[0]
    return list(PARSERS[accept](body.decode()))


def samples(families):
    found = [
        ((sample.name, tuple(sorted(sample.labels.items()))), sample.value)
        for family in families
        for sample in family.samples
    ]
    assert len(dict(found)) == len(found)
    return dict(found)


def labelled(name, gpu, /, **labels):
    return name, tuple(sorted((*gpu, *labels.items())))


@pytest.mark.parametrize("accept", PARSERS)
def test_a_scrape_is_the_newest_ticks_values_and_nothing_else(accept):
    active = {"sw_power_cap", "sw_thermal_slowdown"}
    reasons = GPU_SAMPLE.by_name["clock_event_reasons_bitmask"].bits.values()
    info = {"name": 'the "big"\\one\nof two', "source": "nvml", "driver_version": "580.95.05"}
    info_b = {"name": "NVIDIA H200", "source": "nvml", "driver_version": "", "memory_kind": ""}
    assert samples(scrape(LATEST, accept)) == {
        **OWN,
        labelled("dgx_gpu_info", A, memory_kind="dedicated", **info): 1.0,
        labelled("dgx_gpu_info", B, **info_b): 1.0,
        labelled("dgx_gpu_up", A): 1.0,
        labelled("dgx_gpu_up", B): 0.0,
        labelled("dgx_gpu_utilization_percent", A): 0.0,
        labelled("dgx_gpu_memory_used_bytes", A): 40_000_000_000.0,
        labelled("dgx_gpu_power_usage_watts", A): 612.345,
        labelled("dgx_gpu_energy_joules_total", A): 5000.123,
        labelled("dgx_gpu_clock_hertz", A, domain="sm"): 1_980_000_000.0,
        labelled("dgx_gpu_clock_hertz", A, domain="memory"): 3_201_000_000.0,
        **{labelled("dgx_gpu_throttle_active", A, reason=one): float(one in active) for one in reasons},
        labelled("dgx_gpu_throttle_seconds_total", A, reason="sw_power_cap"): 1.5,
        labelled("dgx_gpu_ecc_errors_total", A, type="corrected", scope="volatile"): 3.0,
        labelled("dgx_gpu_ecc_errors_total", A, type="uncorrected", scope="aggregate"): 4.0,
        labelled("dgx_gpu_remapped_rows_corrected", A): 5.0,
        labelled("dgx_gpu_row_remap_pending", A): 0.0,
        labelled("dgx_gpu_pcie_bytes_total", A, direction="tx"): 111.0,
        labelled("dgx_gpu_nvlink_bytes_total", A, direction="rx"): 222.0,
        labelled("dgx_device_read_bytes_total", DISK): 4096.0,
        labelled("dgx_device_in_flight", DISK): 0.0,
        labelled("dgx_device_received_bytes_total", CARD): 7.0,
        labelled("dgx_device_received_bytes_total", PORT): 8.0,
        labelled("dgx_device_link_up", CARD): 0.0,
        ("dgx_cpu_utilization_percent", ()): 12.5,
        ("dgx_context_switches_total", ()): 9.0,
        ("dgx_pressure_seconds_total", (("resource", "io"), ("share", "some"))): 0.25,
    }


@pytest.mark.parametrize("accept", PARSERS)
@pytest.mark.parametrize("kind", [GPU_SAMPLE, SYSTEM_SAMPLE, DEVICE_SAMPLE], ids=lambda kind: kind.name)
def test_every_declared_family_has_help_and_type_and_a_counter_ends_in_total_once(kind, accept):
    exposed = [column for family in prometheus_families(kind) for column, _ in family.members]
    labels = {"gpu_uuid": "GPU-a", "gpu_index": 0, "device_type": "disk", "device": "sda"}
    rows = [Event(kind.name, NOW.wall_us, labels | {column.name: n for n, column in enumerate(exposed, start=1000)})]
    latest = Latest(now=NOW, devices=rows) if kind is DEVICE_SAMPLE else Latest(now=NOW, events=rows)
    families = [family for family in scrape(latest, accept) if not family.name.startswith("dgx_collector_")]
    assert {family.name: (family.documentation, family.type) for family in families} == {
        family.name: (family.help, family.type) for family in prometheus_families(kind)
    }
    for family in families:
        ending = "_total" if family.type == "counter" else ""
        assert {sample.name for sample in family.samples} == {family.name + ending}
        assert not family.name.endswith("_total")
    values = [value for (name, _), value in samples(families).items() if name != "dgx_gpu_throttle_active"]
    bits = [n for n, column in enumerate(exposed, start=1000) if column.bits]
    assert sorted([*values, *bits]) == [float(n) for n in range(1000, 1000 + len(exposed))]


@pytest.mark.parametrize("accept", PARSERS)
def test_when_sampling_has_stopped_only_the_collectors_own_families_are_left(accept):
    assert samples(scrape(LATEST, accept, is_fresh=False)) == OWN


def test_each_probe_is_up_that_answers_or_was_told_not_to_and_no_other():
    conditions = {"host": Condition.ANSWERS, "gpu": Condition.STALLED, "a": Condition.FAILED, "b": Condition.PAUSED}
    found = samples(scrape(replace(LATEST, conditions=conditions), is_fresh=False))
    of_probes = {
        (name, dict(labels)["probe"]): value for (name, labels), value in found.items() if "collector_probe" in name
    }
    assert of_probes == {
        **{("dgx_collector_probe_up", probe): value for probe, value in (("host", 1), ("gpu", 0), ("a", 0), ("b", 1))},
        **{("dgx_collector_probe_paused", probe): float(probe == "b") for probe in conditions},
    }


def test_of_a_row_that_came_late_and_the_ticks_own_the_second_is_exposed():
    late = Event("gpu_sample", NOW.wall_us - 2_000_000, {**GPU_ROW, "utilization_percent": 99})
    found = samples(scrape(replace(LATEST, events=[late, *LATEST.events])))
    assert found == samples(scrape(LATEST))


@pytest.mark.parametrize("accept", PARSERS)
def test_before_the_first_tick_there_is_nothing_but_zeros_of_its_own(accept):
    counters = {name: 0.0 for name in OWN if name[0].endswith(("_total", "lag_seconds")) and not name[1]}
    build = ("dgx_collector_build_info", (("version", "1.2.3"),))
    assert samples(scrape(Latest(), accept)) == {build: 1.0, **counters}


def test_a_machine_without_a_gpu_has_no_gpu_family():
    families = scrape(replace(LATEST, events=LATEST.events[:1], inventory={"": {"subject": "host"}}, xids={}))
    assert [family.name for family in families if family.name.startswith("dgx_gpu")] == []
    assert "dgx_cpu_utilization_percent" in {family.name for family in families}


@pytest.mark.parametrize("accept", PARSERS)
def test_the_demo_is_exposed_as_any_machine_with_its_source_in_the_info(accept):
    events = DemoProbe(interval_s=1.0).read(NOW)
    inventory = {event.values["gpu_uuid"]: event.values for event in events if event.kind == "inventory"}
    found = samples(scrape(Latest(now=NOW, events=events, inventory=inventory), accept))
    sources = [dict(labels)["source"] for name, labels in found if name == "dgx_gpu_info"]
    assert sources == ["demo", "demo", "demo"]
    watts = [event.values["power_watts"] for event in events if event.kind == "gpu_sample"]
    assert [value for (name, _), value in found.items() if name == "dgx_gpu_power_usage_watts"] == watts


@pytest.mark.parametrize("accept", PARSERS)
def test_what_the_ledgers_folder_is_like_is_exposed_and_what_cannot_be_had_is_absent(accept):
    def gone():
        raise OSError

    def found(ledger):
        body, _ = expose(LiveCollector(Latest, lambda: True, "1.2.3", ledger), accept=accept)
        names = samples(PARSERS[accept](body.decode()))
        return {name: value for (name, _), value in names.items() if name.startswith("dgx_ledger_")}

    def upkeep():
        return UpkeepFigures(runs=4, failures=1, seconds=2.5)

    figures = {
        "dgx_ledger_quarantined_files": 2.0,
        "dgx_ledger_upkeep_runs_total": 4.0,
        "dgx_ledger_upkeep_failures_total": 1.0,
        "dgx_ledger_upkeep_seconds_total": 2.5,
    }
    more = {"dgx_ledger_free_bytes": 5e9, "dgx_ledger_size_bytes": 7e9}
    assert found(LedgerFigures(lambda: 2, lambda: 5_000_000_000, lambda: 7_000_000_000, upkeep)) == figures | more
    assert found(LedgerFigures(lambda: 2, gone, gone, upkeep)) == figures


# --- what came over HTTP, and inference servers


def received(tally, rows, accept, now_us=NOW.wall_us):
    servers = NewestServers()
    servers.note(rows)
    live = LiveCollector(
        lambda: Latest(now=NOW), lambda: True, "1.2.3", None, Received(tally, lambda: servers.standing(now_us))
    )
    body, _ = expose(live, accept=accept)
    found = samples(PARSERS[accept](body.decode()))
    return {name: value for name, value in found.items() if not name[0].startswith("dgx_collector_")}


@pytest.mark.parametrize("accept", PARSERS)
def test_what_came_in_is_counted_by_path_and_what_became_of_it(accept):
    tally = Tally()
    assert received(tally, [], accept) == {}
    tally.events["/v1/traces", "accepted"] += 512
    tally.events["/v1/traces", "repeated"] += 1
    tally.body_bytes["/v1/traces"] += 4096
    tally.refusals["/ingest/events", "429"] += 2
    assert received(tally, [], accept) == {
        ("dgx_ingest_events_total", (("outcome", "accepted"), ("path", "/v1/traces"))): 512.0,
        ("dgx_ingest_events_total", (("outcome", "repeated"), ("path", "/v1/traces"))): 1.0,
        ("dgx_ingest_body_bytes_total", (("path", "/v1/traces"),)): 4096.0,
        ("dgx_ingest_refused_bodies_total", (("path", "/ingest/events"), ("status", "429"))): 2.0,
    }


@pytest.mark.parametrize("accept", PARSERS)
def test_the_newest_row_of_each_inference_server_is_exposed_until_it_is_stale(accept):
    of = {"server_address": "a:8000", "model": "llama", "interval_seconds": 5.0, "up": True}
    older = Event("server_sample", NOW.wall_us - 10_000_000, {**of, "requests_running_count": 9})
    newer = Event("server_sample", NOW.wall_us - 5_000_000, {**of, "requests_running_count": 3, "prompt_tokens": 70})
    another = Event("server_sample", NOW.wall_us - 30_000_000, {"server_address": "b", "kv_cache_used_ratio": 0.5})
    rows = [newer, older, another, Event("request", NOW.wall_us, {"service": "chat"})]
    labels = tuple(sorted({"server": "a:8000", "model": "llama", "engine": ""}.items()))
    of_a = {
        ("dgx_server_up", labels): 1.0,
        ("dgx_server_requests_running", labels): 3.0,
        ("dgx_server_prompt_tokens_total", labels): 70.0,
    }
    of_b = {("dgx_server_kv_cache_used_ratio", (("engine", ""), ("model", ""), ("server", "b"))): 0.5}
    assert received(Tally(), rows, accept) == of_a | of_b
    assert received(Tally(), rows, accept, NOW.wall_us + 11_000_000) == of_b
    assert received(Tally(), rows, accept, NOW.wall_us + 160_000_000) == {}


def test_servers_beyond_number_are_forgotten_the_longest_silent_first():
    servers = NewestServers()
    for number in range(300):
        servers.note([Event("server_sample", NOW.wall_us, {"server_address": str(number)})])
    assert [row.values["server_address"] for row in servers.standing(NOW.wall_us)] == [str(n) for n in range(44, 300)]
