"""A flight recorder for GPU machines.

For a notebook:

    import gpuledger

    ledger = gpuledger.open()
    ledger.trend("gpu.utilization_percent", "last hour")
    ledger.events("gpu_sample", "yesterday 9-17")  # an Arrow table
    ledger.sql("select gpu_index, max(temperature_celsius) from gpu_sample group by 1")
    ledger.slow("last hour"), ledger.diagnose(1234567)
    gpuledger.table(ledger.anomalies("gpu.power_watts"))  # an answer as an Arrow table

Inside an application that answers requests:

    with gpuledger.request("generate", model="llama-3-8b") as r:
        r.tokens(input=812, output=96)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpuledger.measuring import flush, request, request_counts, send_to
    from gpuledger.notebook import OpenLedger, open_ledger, table

    open = open_ledger  # noqa: A001 - read as gpuledger.open

__version__ = "0.1.0"
__all__ = ["OpenLedger", "__version__", "flush", "open", "request", "request_counts", "send_to", "table"]

_OF_MEASURING = frozenset({"flush", "request", "request_counts", "send_to"})

_OF_NOTEBOOK = {"open": "open_ledger", "OpenLedger": "OpenLedger", "table": "table"}


def __getattr__(name: str) -> Any:
    # Loaded when asked for: `gpuledger --help` needs neither DuckDB nor Arrow, nor does an application's own record.
    if name in _OF_NOTEBOOK:
        from gpuledger import notebook

        return getattr(notebook, _OF_NOTEBOOK[name])
    if name in _OF_MEASURING:
        from gpuledger import measuring

        return getattr(measuring, name)
    raise AttributeError(f"module 'gpuledger' has no attribute {name!r}")
