"""What all tests share: fixtures that live beside what they stand for, one plugin file each.

Test folders are no packages (--import-mode=importlib), so a plugin is loaded by its path. A test that needs
more of one than its fixtures asks for it by name: `pytestconfig.pluginmanager.get_plugin("fakenvml")`.
"""

import importlib.util
import sys
from pathlib import Path

import pytest

PLUGINS = {
    "fakenvml": "fakenvml/plugin.py",
    "http_peers": "mcp_server/http_peers.py",
    "roots": "deploy/roots.py",
    "npm_tools": "mcp_server/npm_tools.py",
    "prometheus": "prometheus/plugin.py",
    "scenarios": "../benchmarks/scenarios.py",
}


def pytest_configure(config: pytest.Config) -> None:
    for name, path in PLUGINS.items():
        module_name = f"gpuledger_tests_{name}"
        spec = importlib.util.spec_from_file_location(module_name, Path(__file__).parent / path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module  # dataclasses look their module up here
        spec.loader.exec_module(module)
        config.pluginmanager.register(module, name)
