"""The Dockerfile carried out without a Docker engine, instruction by instruction, each stage in a root of its own.

This machine's python stands for the base image's. The last stage is then run as a container is: as its user, read-only but
for its volume and /tmp, under its init, until its own health check passes.
"""

import json
import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

RUN_IT = """
mount -o remount,ro $root
mount -t tmpfs -o uid={uid},gid={gid},mode=750 tmpfs $root{volume}
inside() {{ exec chroot --userspec={user} --groups= $root /usr/bin/env {environment} "$@"; }}
inside {start} & started=$!
for try in $(seq 120); do
    (inside {check} 2>/dev/null) && break
    [ -d /proc/$started ] || break
    sleep 0.5
done
(inside {check})
(inside gpuledger status --json)
echo "as $(inside id -u)"
(inside touch /usr/written) && exit 1
kill -TERM $started
wait $started
"""


def instructions() -> list[tuple[str, str]]:
    """Each instruction with what follows it, continued lines joined."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", "")
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in text.splitlines() if line]


class Carrier:
    """Writes the script that carries the instructions out."""

    def __init__(self, new_root: Callable[[str], str], path: str) -> None:
        self.new_root, self.path = new_root, path
        self.lines: list[str] = []
        self.stages: list[str] = []
        self.environment: dict[str, str] = {}
        self.folder = "/"
        self.said: dict[str, str] = {}

    def carry_out(self, name: str, rest: str) -> None:
        getattr(self, f"_{name.lower()}", lambda rest: self.said.update({name: rest}))(rest)

    def _from(self, rest: str) -> None:
        self.stages.append(rest.rsplit(" AS ", maxsplit=1)[-1])
        number = len(self.stages)
        self.lines.append(self.new_root(f"/mnt/stage{number}"))
        self.environment = {"PATH": self.path}
        self.folder = "/"

    def _workdir(self, rest: str) -> None:
        self.folder = rest
        self.lines.append(f"mkdir -p $root{rest}")

    def _copy(self, rest: str) -> None:
        *sources, target = [word for word in rest.split() if not word.startswith("--from=")]
        stage = re.match(r"--from=(\w+) ", rest)
        place = f"/mnt/stage{self.stages.index(stage[1]) + 1}" if stage else ROOT
        target = os.path.join(self.folder, target)  # noqa: PTH118 - an absolute target stands
        if target.endswith("./"):
            copied = [f"cp -R {place}/{source} $root{target}" for source in sources]
        else:
            copied = [f"mkdir -p $root{target}", f"cp -R {place}/{sources[0]}/. $root{target}"]
        self.lines += [line.replace(f"{place}//", f"{place}/") for line in copied]

    def _env(self, rest: str) -> None:
        for name, value in re.findall(r"(\w+)=(\S+)", rest):
            self.environment[name] = value.replace("$PATH", self.environment["PATH"])

    def _run(self, rest: str) -> None:
        command = f"cd {self.folder} && {rest}"
        self.lines.append(f"chroot $root /usr/bin/env -i {self.variables()} /bin/sh -euc {shlex.quote(command)}")

    def variables(self, **more: str) -> str:
        return " ".join(shlex.quote(f"{name}={value}") for name, value in (self.environment | more).items())

    def run_it(self, port: int) -> None:
        """As a container of the image is run, but with GPUs made up and a free port."""
        check = json.loads(self.said["HEALTHCHECK"].partition("CMD ")[2])
        start = json.loads(self.said["ENTRYPOINT"]) + json.loads(self.said["CMD"])
        uid, gid = self.said["USER"].split(":")
        environment = self.variables(
            GPULEDGER_COLLECTOR__SOURCE="demo", GPULEDGER_COLLECTOR__PORT=str(port), GPULEDGER_MCP__PORT="0"
        )
        self.lines.append(
            RUN_IT.format(
                uid=uid,
                gid=gid,
                user=self.said["USER"],
                volume=self.said["VOLUME"],
                environment=f"-i {environment}",
                start=shlex.join(start),
                check=shlex.join(word.replace(":9465/", f":{port}/") for word in check),
            )
        )


@pytest.mark.timeout(900)
def test_every_instruction_works_and_what_they_make_becomes_healthy_and_ends_when_told(free_port, roots):
    carrier = Carrier(roots.new_root, roots.path)
    for name, rest in instructions():
        carrier.carry_out(name, rest)
    carrier.run_it(free_port())
    output = roots.run("\n".join(carrier.lines))
    assert '"gpu_sample"' in output
    assert "as 10001" in output
    assert "Read-only file system" in output
