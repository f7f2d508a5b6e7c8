"""Writes the dashboards beside it: python deploy/grafana/make.py. A test compares them.

A panel is a title, its unit as Grafana names it, and its queries, each with its legend. GPU and overview panels ask for
what both a Prometheus and the ledger's own API answer.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
SOURCE = {"type": "prometheus", "uid": "${source}"}
GPU = '{instance=~"$instance",gpu=~"$gpu"}'
HOST = '{instance=~"$instance"}'
BY_GPU = "{{instance}} GPU {{gpu}}"


@dataclass(frozen=True)
class Panel:
    title: str
    unit: str
    queries: Sequence[tuple[str, str]]
    kind: str = "timeseries"


def gpu(family: str, more: str = "") -> str:
    return family + GPU.replace("}", f",{more}}}" if more else "}")


def host(family: str, more: str = "") -> str:
    return family + HOST.replace("}", f",{more}}}" if more else "}")


def rate(selector: str) -> str:
    return f"rate({selector}[$__rate_interval])"


OVERVIEW = [
    Panel("GPUs that answer", "none", [(f"sum(dgx_gpu_up{HOST})", "answer"), (f"count(dgx_gpu_up{HOST})", "all")], "stat"),
    Panel("Power of all GPUs", "watt", [(f"sum(dgx_gpu_power_usage_watts{HOST})", "power")], "stat"),
    Panel("Hottest GPU", "celsius", [(f"max(dgx_gpu_temperature_celsius{HOST})", "temperature")], "stat"),
    Panel(
        "Memory in use", "percentunit",
        [(f"sum(dgx_gpu_memory_used_bytes{HOST}) / sum(dgx_gpu_memory_total_bytes{HOST})", "memory")], "stat",
    ),
    Panel("Utilization", "percent", [(f"avg by (instance, gpu) (dgx_gpu_utilization_percent{HOST})", BY_GPU)]),
    Panel("Power", "watt", [(f"sum by (instance) (dgx_gpu_power_usage_watts{HOST})", "{{instance}}")]),
    Panel("Temperature", "celsius", [(f"max by (instance, gpu) (dgx_gpu_temperature_celsius{HOST})", BY_GPU)]),
    Panel(
        "Clocks held down", "percentunit",
        [(f"sum by (reason) ({rate(host('dgx_gpu_throttle_seconds_total'))})", "{{reason}}")],
    ),
    Panel("CPU", "percent", [(f"dgx_cpu_utilization_percent{HOST}", "{{instance}}")]),
    Panel("Memory of the host", "bytes", [(f"dgx_memory_used_bytes{HOST}", "{{instance}}")]),
    Panel(
        "Stalled for want of", "percentunit",
        [(rate(host("dgx_pressure_seconds_total", 'share="some"')), "{{instance}} {{resource}}")],
    ),
    Panel(
        "Network", "Bps",
        [
            (rate(f"dgx_network_received_bytes_total{HOST}"), "{{instance}} received"),
            (rate(f"dgx_network_sent_bytes_total{HOST}"), "{{instance}} sent"),
        ],
    ),
]  # fmt: skip
GPU_DETAIL = [
    Panel("What it is", "none", [(gpu("dgx_gpu_info"), "{{name}}, driver {{driver_version}}")], "stat"),
    Panel("Energy of the last hour", "joule", [(f"increase({gpu('dgx_gpu_energy_joules_total')}[1h])", BY_GPU)], "stat"),
    Panel("Utilization", "percent", [(gpu("dgx_gpu_utilization_percent"), BY_GPU)]),
    Panel(
        "Parts at work", "percentunit",
        [
            (gpu("dgx_gpu_sm_active_ratio"), "multiprocessors, GPU {{gpu}}"),
            (gpu("dgx_gpu_tensor_active_ratio"), "tensor, GPU {{gpu}}"),
            (gpu("dgx_gpu_dram_active_ratio"), "memory bandwidth, GPU {{gpu}}"),
        ],
    ),
    Panel(
        "Memory", "bytes",
        [(gpu("dgx_gpu_memory_used_bytes"), "used, GPU {{gpu}}"), (gpu("dgx_gpu_memory_total_bytes"), "all, GPU {{gpu}}")],
    ),
    Panel(
        "Power", "watt",
        [(gpu("dgx_gpu_power_usage_watts"), "power, GPU {{gpu}}"), (gpu("dgx_gpu_power_limit_watts"), "limit, GPU {{gpu}}")],
    ),
    Panel(
        "Temperature", "celsius",
        [(gpu("dgx_gpu_temperature_celsius"), "GPU {{gpu}}"), (gpu("dgx_gpu_memory_temperature_celsius"), "its memory, GPU {{gpu}}")],
    ),
    Panel("Until slowdown", "celsius", [(gpu("dgx_gpu_thermal_margin_celsius"), BY_GPU)]),
    Panel("Clocks", "hertz", [(gpu("dgx_gpu_clock_hertz"), "{{domain}}, GPU {{gpu}}")]),
    Panel("What holds the clocks", "none", [(f"{gpu('dgx_gpu_throttle_active')} == 1", "{{reason}}, GPU {{gpu}}")]),
    Panel("PCIe", "Bps", [(gpu("dgx_gpu_pcie_bytes_per_second"), "{{direction}}, GPU {{gpu}}")]),
    Panel("NVLink", "Bps", [(rate(gpu("dgx_gpu_nvlink_bytes_total")), "{{direction}}, GPU {{gpu}}")]),
    Panel("ECC errors", "none", [(f"increase({gpu('dgx_gpu_ecc_errors_total')}[1h])", "{{type}} {{scope}}, GPU {{gpu}}")]),
]  # fmt: skip
REQUESTS = [
    Panel(
        "Requests of inference servers", "none",
        [
            ("dgx_server_requests_running", "running, {{server}} {{model}}"),
            ("dgx_server_requests_waiting", "waiting, {{server}} {{model}}"),
        ],
    ),
    Panel("KV cache in use", "percentunit", [("dgx_server_kv_cache_used_ratio", "{{server}} {{model}}")]),
    Panel(
        "Tokens a second", "none",
        [
            (rate("dgx_server_prompt_tokens_total"), "prompt, {{server}} {{model}}"),
            (rate("dgx_server_generation_tokens_total"), "generated, {{server}} {{model}}"),
        ],
    ),
    Panel("Events sent to the recorder", "none", [(rate("dgx_ingest_events_total"), "{{path}} {{outcome}}")]),
    Panel("Calls a second", "reqps", [(f"sum by (method, status) ({rate('dgx_mcp_requests_total')})", "{{method}} {{status}}")]),
    Panel("Calls that failed", "none", [("sum by (type) (increase(dgx_mcp_errors_total[1h]))", "{{type}}")]),
    Panel(
        "How long calls take", "s",
        [
            (f"histogram_quantile({share}, sum by (le) ({rate('dgx_mcp_request_duration_seconds_bucket')}))", f"p{100 * share:g}")
            for share in (0.5, 0.95)
        ],
    ),
    Panel(
        "Mean time of a tool", "s",
        [
            (
                f"sum by (tool) ({rate('dgx_mcp_tool_duration_seconds_sum')})"
                f" / sum by (tool) ({rate('dgx_mcp_tool_duration_seconds_count')})",
                "{{tool}}",
            )
        ],
    ),
    Panel("Calls of tools", "none", [("sum by (tool) (increase(dgx_mcp_tool_executions_total[1h]))", "{{tool}}")]),
    Panel("Resources read", "none", [("sum by (type) (increase(dgx_mcp_resource_reads_total[1h]))", "{{type}}")]),
    Panel("MCP servers", "none", [("dgx_mcp_build_info", "{{instance}} {{version}}")], "stat"),
    Panel("They have run", "s", [("dgx_mcp_uptime_seconds", "{{instance}}")], "stat"),
]  # fmt: skip
RECORDER = [
    Panel("Newest sample is", "s", [(f"time() - dgx_collector_last_sample_timestamp_seconds{HOST}", "{{instance}}")], "stat"),
    Panel("Version", "none", [(f"dgx_collector_build_info{HOST}", "{{instance}} {{version}}")], "stat"),
    Panel(
        "Ticks a second", "none",
        [
            (rate(f"dgx_collector_ticks_total{HOST}"), "taken, {{instance}}"),
            (rate(f"dgx_collector_missed_ticks_total{HOST}"), "missed, {{instance}}"),
        ],
    ),
    Panel(
        "Time of a tick", "s",
        [
            (f"{rate(f'dgx_collector_{part}_seconds_total{HOST}')} / {rate(f'dgx_collector_ticks_total{HOST}')}", f"{part}, {{{{instance}}}}")
            for part in ("reading", "append")
        ],
    ),
    Panel("Late by", "s", [(f"dgx_collector_lag_seconds{HOST}", "{{instance}}")]),
    Panel(
        "Events not written", "none",
        [
            (f"increase(dgx_collector_append_failures_total{HOST}[1h])", "appends that failed, {{instance}}"),
            (f"increase(dgx_collector_dropped_events_total{HOST}[1h])", "events dropped, {{instance}}"),
        ],
    ),
    Panel("Probes", "none", [(f"dgx_collector_probe_up{HOST}", "{{probe}}, {{instance}}")]),
    Panel("Size of the ledger", "bytes", [(f"dgx_ledger_size_bytes{HOST}", "{{instance}}")]),
    Panel("Left on its disk", "bytes", [(f"dgx_ledger_free_bytes{HOST}", "{{instance}}")]),
    Panel("Sealings in an hour", "none", [(f"increase(dgx_ledger_upkeep_{one}_total{HOST}[1h])", f"{one}, {{{{instance}}}}") for one in ("runs", "failures")]),
    Panel("Set aside", "none", [(f"dgx_ledger_quarantined_files{HOST}", "{{instance}}")], "stat"),
]  # fmt: skip
DASHBOARDS = {
    "overview": ("GPU machines", OVERVIEW, {"instance": "dgx_gpu_up"}),
    "gpu": ("GPU in detail", GPU_DETAIL, {"instance": "dgx_gpu_up", "gpu": 'dgx_gpu_up{instance=~"$instance"}'}),
    "requests": ("Requests", REQUESTS, {}),
    "recorder": ("The recorder", RECORDER, {"instance": "dgx_collector_build_info"}),
}


def variable(name: str, selector: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": f"label_values({selector}, {name})", "refId": name},
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def panel(number: int, told: Panel, place: dict[str, int]) -> dict[str, Any]:
    return {
        "id": number,
        "title": told.title,
        "type": told.kind,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": told.unit}, "overrides": []},
        "targets": [
            {"refId": chr(65 + at), "datasource": SOURCE, "expr": expression, "legendFormat": legend}
            for at, (expression, legend) in enumerate(told.queries)
        ],
    }


def placed(panels: Sequence[Panel]) -> list[dict[str, Any]]:
    """Figures first, four in a row; then curves, two in a row."""
    figures = [one for one in panels if one.kind == "stat"]
    curves = [one for one in panels if one.kind != "stat"]
    top = 4 * -(-len(figures) // 4)
    places = [{"x": 6 * (at % 4), "y": 4 * (at // 4), "w": 6, "h": 4} for at in range(len(figures))]
    places += [{"x": 12 * (at % 2), "y": top + 8 * (at // 2), "w": 12, "h": 8} for at in range(len(curves))]
    return [panel(at, *one) for at, one in enumerate(zip([*figures, *curves], places, strict=True), start=1)]


def dashboard(name: str) -> dict[str, Any]:
    title, panels, variables = DASHBOARDS[name]
    source = {"name": "source", "label": "Source", "type": "datasource", "query": "prometheus"}
    return {
        "uid": f"gpuledger-{name}",
        "title": f"gpuledger: {title}",
        "tags": ["gpuledger"],
        "schemaVersion": 38,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [source, *(variable(*one) for one in variables.items())]},
        "panels": placed(panels),
    }


def text(name: str) -> str:
    return json.dumps(dashboard(name), indent=1) + "\n"


if __name__ == "__main__":
    for each in DASHBOARDS:
        (FOLDER / f"{each}.json").write_text(text(each))
