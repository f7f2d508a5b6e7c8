"""What each process may carry: `--help` answers in a blink, and the collector stays small for months."""

import re
import subprocess
import sys
import time
from contextlib import closing

import pytest

from store.events import Event
from store.head import open_head
from store.ledger import Ledger
from store.rollups.due import note_rolled

HEAVY = {"duckdb", "mcp", "pandas", "polars", "pyarrow", "pydantic"}
COMMAND_LINE = {"pydantic_settings", "rich", "typer"}


def imported_by(*arguments: str) -> set[str]:
    """The top-level modules that a new Python imports."""
    return {module.partition(".")[0] for module in all_imported_by(*arguments)}


def all_imported_by(*arguments: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-P", "-X", "importtime", *arguments], capture_output=True, text=True, check=True
    )
    return set(re.findall(r"^import time:\s+\d+ \|\s+\d+ \|\s+([\w.]+)$", done.stderr, re.MULTILINE))


@pytest.mark.parametrize(
    ("option", "brought_by_typer"),
    [
        ("--help", set()),
        ("--version", {"pydantic"}),  # Typer 0.29 reads whatever was given through pydantic
    ],
)
def test_the_first_look_at_the_command_line_imports_nothing_heavy(option, brought_by_typer):
    imported = imported_by("-m", "gpuledger", option)
    assert "typer" in imported
    assert imported & (HEAVY - brought_by_typer) == set()


def test_the_collector_imports_neither_what_reads_a_ledger_nor_what_reads_a_command_line():
    imported = imported_by("-c", "import collector.__main__")
    assert {"apsw", "pynvml", "uvicorn"} <= imported
    assert imported & (HEAVY | COMMAND_LINE | {"google", "opentelemetry"}) == set()


def test_an_upkeep_that_seals_imports_neither_numpy_nor_the_functions_of_arrow(tmp_path):
    with Ledger(tmp_path / "ledger") as ledger:
        ledger.append([Event("gpu_sample", time.time_ns() // 1000, {"gpu_uuid": "GPU-1", "energy_joules": 1.5})])
    with closing(open_head(tmp_path / "ledger")) as head:
        note_rolled(head, now_us=time.time_ns() // 1000)
    imported = all_imported_by("-m", "store", str(tmp_path / "ledger"))
    assert len(list((tmp_path / "ledger").rglob("*.parquet"))) == 1
    assert "pyarrow.parquet" in imported
    assert imported & {"numpy", "pyarrow.compute", "store.upkeep.merging"} == set()
