"""What each process may carry: `--help` answers in a blink, and the collector stays small for months."""

import re
import subprocess
import sys

import pytest

HEAVY = {"duckdb", "mcp", "pandas", "polars", "pyarrow", "pydantic"}
COMMAND_LINE = {"pydantic_settings", "rich", "typer"}


def imported_by(*arguments: str) -> set[str]:
    """The top-level modules that a new Python imports."""
    done = subprocess.run(
        [sys.executable, "-P", "-X", "importtime", *arguments], capture_output=True, text=True, check=True
    )
    modules = re.findall(r"^import time:\s+\d+ \|\s+\d+ \|\s+([\w.]+)$", done.stderr, re.MULTILINE)
    return {module.partition(".")[0] for module in modules}


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
    assert imported & (HEAVY | COMMAND_LINE) == set()
