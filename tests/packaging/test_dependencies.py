"""What the packages import is what the wheel asks for, no more and no less."""

import ast
import re
import sys
from importlib.metadata import distributions, packages_distributions, requires
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("collector", "gpuledger", "mcp_server", "query", "store")
SHARED = {"google", "opentelemetry"}  # packages that many distributions put modules into
READ_AS_DATA = {"tzdata"}  # by zoneinfo, where the system has none


def imported_modules() -> set[str]:
    """The top-level modules that any file of the rooms imports, anywhere in it; of shared ones what is in them."""
    modules = set()
    for path in (file for room in ROOMS for file in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules |= {named(alias.name) for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                modules.add(named(node.module))
    return modules - {*ROOMS, "migrations"} - sys.stdlib_module_names


def named(module: str) -> str:
    words = module.split(".")
    return ".".join(words[:2]) if words[0] in SHARED else words[0]


def distributions_of(module: str) -> list[str]:
    if "." not in module:
        return packages_distributions()[module]
    folder = module.replace(".", "/") + "/"
    return [one.name for one in distributions() if any(str(path).startswith(folder) for path in one.files or ())]


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_import_is_a_dependency_and_every_dependency_is_imported():
    declared = {normalized(re.match(r"[\w.-]+", line)[0]) for line in requires("gpuledger") if "extra ==" not in line}
    imported = {normalized(name) for module in imported_modules() for name in distributions_of(module)}
    assert imported | READ_AS_DATA == declared
