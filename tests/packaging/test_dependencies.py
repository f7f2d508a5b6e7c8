"""What the packages import is what the wheel asks for, no more and no less."""

import ast
import re
import sys
from importlib.metadata import packages_distributions, requires
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("collector", "gpuledger", "mcp_server", "query", "store")
READ_AS_DATA = {"tzdata"}  # by zoneinfo, where the system has none


def imported_modules() -> set[str]:
    """The top-level modules that any file of the rooms imports, anywhere in it."""
    modules = set()
    for path in (file for room in ROOMS for file in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                modules.add(node.module.partition(".")[0])
    return modules - {*ROOMS, "migrations"} - sys.stdlib_module_names


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_import_is_a_dependency_and_every_dependency_is_imported():
    declared = {normalized(re.match(r"[\w.-]+", line)[0]) for line in requires("gpuledger") if "extra ==" not in line}
    distributions = packages_distributions()
    imported = {normalized(name) for module in imported_modules() for name in distributions[module]}
    assert imported | READ_AS_DATA == declared
