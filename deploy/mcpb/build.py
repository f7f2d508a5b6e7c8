"""Make the bundle that MCP hosts install with a click: `python deploy/mcpb/build.py dist/gpuledger-*.whl [FOLDER]`.

The bundle holds the wheel; what that asks for, the host's uv fetches at the first start. The same wheel gives the
same bytes.
"""

import json
import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
# A wheel's name, without which uv does not take it, begins with its name and version.
PROJECT = """\
[project]
name = "gpuledger-bundle"
version = "{version}"
requires-python = ">=3.11"
dependencies = ["gpuledger"]

[tool.uv]
package = false

[tool.uv.sources]
gpuledger = {{ path = "{wheel}" }}
"""


def build(wheel: Path, folder: Path) -> Path:
    """The bundle of that wheel, in the folder."""
    version = wheel.name.split("-")[1]
    manifest = {**json.loads((HERE / "manifest.json").read_text()), "version": version}
    parts = {
        "manifest.json": json.dumps(manifest, indent=2).encode(),
        "pyproject.toml": PROJECT.format(version=version, wheel=wheel.name).encode(),
        "server.py": (HERE / "server.py").read_bytes(),
        wheel.name: wheel.read_bytes(),
    }
    bundle = folder / f"gpuledger-{version}.mcpb"
    with zipfile.ZipFile(bundle, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in parts.items():
            file.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)
    return bundle


def main() -> None:
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    wheel = Path(sys.argv[1])
    if not wheel.is_file() or wheel.suffix != ".whl":
        sys.exit(f"{wheel} is no wheel: make one with 'python -m build --wheel'")
    print(build(wheel, Path(sys.argv[2]) if len(sys.argv) == 3 else Path()))


if __name__ == "__main__":
    main()
