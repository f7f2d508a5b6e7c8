"""A flight recorder for GPU machines.

For a notebook:

    import gpuledger

    ledger = gpuledger.open()
    ledger.trend("gpu.utilization_percent", "last hour")
    ledger.events("gpu_sample", "yesterday 9-17")  # an Arrow table
    ledger.sql("select gpu_index, max(temperature_celsius) from gpu_sample group by 1")
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpuledger.notebook import OpenLedger, open_ledger

    open = open_ledger  # noqa: A001 - read as gpuledger.open

__version__ = "0.1.0"
__all__ = ["OpenLedger", "__version__", "open"]


def __getattr__(name: str) -> Any:
    # Loaded when asked for: `gpuledger --help` needs neither DuckDB nor Arrow.
    if name in ("open", "OpenLedger"):
        from gpuledger import notebook

        return notebook.open_ledger if name == "open" else notebook.OpenLedger
    raise AttributeError(f"module 'gpuledger' has no attribute {name!r}")
