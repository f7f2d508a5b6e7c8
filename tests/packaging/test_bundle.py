"""What registries and hosts are given: server.json, and the bundle that is installed with a click."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import anyio
import jsonschema
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from gpuledger import __version__

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """The bundle of a wheel that was built of this source."""
    folder = tmp_path_factory.mktemp("bundle")
    build = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, capture_output=True, check=True)
    (wheel,) = folder.glob("*.whl")
    script = [sys.executable, str(ROOT / "deploy/mcpb/build.py"), str(wheel), str(folder)]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    return Path(done.stdout.strip())


def test_the_same_wheel_gives_the_same_bundle(bundle, tmp_path):
    spec = importlib.util.spec_from_file_location("mcpb_build", ROOT / "deploy/mcpb/build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (wheel,) = bundle.parent.glob("*.whl")
    assert module.build(wheel, tmp_path).read_bytes() == bundle.read_bytes()


def test_the_manifest_is_what_hosts_take(bundle, npm, tmp_path):
    """By the schema that the bundle's own makers publish."""
    manifest = json.loads(zipfile.ZipFile(bundle).read("manifest.json"))
    schema = json.loads((npm / "@anthropic-ai/mcpb/dist/mcpb-manifest-v0.4.schema.json").read_text())
    jsonschema.validate(manifest, schema)
    assert (manifest["version"], bundle.name) == (__version__, f"gpuledger-{__version__}.mcpb")


def test_the_bundle_unpacked_answers_as_a_host_starts_it(bundle, tmp_path):
    folder, data = tmp_path / "unpacked", tmp_path / "ledger"
    with zipfile.ZipFile(bundle) as file:
        file.extractall(folder)
    server = json.loads((folder / "manifest.json").read_text())["server"]["mcp_config"]

    def filled(text: str) -> str:
        return text.replace("${__dirname}", str(folder)).replace("${user_config.data}", str(data))

    parameters = StdioServerParameters(
        command=shutil.which(server["command"], path=f"{Path(sys.executable).parent}:{os.environ['PATH']}"),
        args=[filled(one) for one in server["args"]],
        env={**os.environ, "UV_PYTHON": sys.executable, **{k: filled(v) for k, v in server["env"].items()}},
    )

    async def converse():
        async with Client(stdio_client(parameters)) as client:
            return await client.list_tools(), await client.call_tool("live_state", {})

    tools, live = anyio.run(converse)
    assert "query_metrics" in [tool.name for tool in tools.tools]
    assert live.is_error
    assert live.content[0].text.startswith(f"There is no ledger in {data}")


def test_what_is_no_wheel_is_refused_in_one_sentence(tmp_path):
    script = [sys.executable, str(ROOT / "deploy/mcpb/build.py"), str(tmp_path)]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        f"{tmp_path} is no wheel: make one with 'python -m build --wheel'\n",
    )


def test_the_registry_entry_is_of_this_version_and_readme_says_whose_it_is():
    """The registry asks the package's description for the name, to know that both have one owner."""
    entry = json.loads((ROOT / "server.json").read_text())
    (package,) = entry["packages"]
    assert (entry["version"], package["version"]) == (__version__, __version__)
    assert package["identifier"] == "gpuledger"
    assert len(entry["description"]) <= 100
    assert f"<!-- mcp-name: {entry['name']} -->" in (ROOT / "README.md").read_text()


def test_what_the_registry_entry_starts_is_a_command_of_ours():
    (package,) = json.loads((ROOT / "server.json").read_text())["packages"]
    arguments = [one["value"] for one in package["packageArguments"]]
    command = [sys.executable, "-P", "-m", "gpuledger", *arguments, "--help"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
