"""install.sh, update.sh, rollback.sh and uninstall.sh, run for real.

Every release is installed by pip from a wheel into an environment of its own, and its services run by their units' own
command lines.
"""

import json
import re
import subprocess
import time
import urllib.request
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(900)


def test_the_shells_linter_finds_nothing_in_what_runs_as_root():
    scripts = [
        *sorted((ROOT / "deploy").glob("*.sh")),
        *(ROOT / "deploy/deb" / name for name in ("build.sh", "postinst", "prerm")),
    ]
    done = subprocess.run(["shellcheck", *scripts], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def samples(place, after_seq: int = 0) -> list[dict]:
    """The host's samples after one, from the ledger."""
    text = f"select seq, epoch(observed_at) as at from system_sample where seq > {after_seq} order by seq"
    return json.loads(place.gpuledger("sql", text, "--json"))


def metrics(place) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{place.collector_port}/metrics", timeout=10) as answer:
        return answer.read().decode()


def breaks_the_collector(tree: Path) -> None:
    with (tree / "collector/service.py").open("a") as source:
        source.write("\n\ndef run(settings):\n    raise SystemExit('this release was broken on purpose')\n")


def changes_the_shape(tree: Path) -> None:
    (tree / "migrations/head/0099_more.sql").write_text("CREATE TABLE more (number INTEGER PRIMARY KEY) STRICT;\n")


def running(place) -> list[str]:
    lines = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in lines if str(place.root) in line]


def test_a_machines_life_from_installation_to_the_end_with_its_ledger_whole(place, prometheus, make_wheel, capsys):
    done = place.run("install.sh", "--wheel", str(make_wheel("1.0.0")))
    assert done.returncode == 0, done.stdout
    assert records_with(place, "1.0.0")
    assert_scraped(prometheus, "1.0.0")

    done = place.run("update.sh", "--wheel", str(make_wheel("1.1.0")))
    assert done.returncode == 0, done.stdout
    assert records_with(place, "1.1.0")
    assert_scraped(prometheus, "1.1.0")
    with capsys.disabled():
        print(f"\nthe collector's gap during the update: {told_gap_s(place, done.stdout)} s")  # noqa: T201 - for who reads the run

    before = samples(place)
    done = place.run("update.sh", "--wheel", str(make_wheel("1.2.0", breaks_the_collector)))
    assert done.returncode == 1
    assert "release 1.2.0 was not well: 1.1.0 records again" in done.stdout, done.stdout
    assert "broken on purpose" in (place.root / "var/log/gpuledger/gpuledger-collector.log").read_text()
    assert records_with(place, "1.1.0")
    assert samples(place)[: len(before)] == before
    assert_scraped(prometheus, "1.1.0")
    assert "there is no working release 1.2.0" in place.run("rollback.sh", "1.2.0").stdout

    done = place.run("rollback.sh")
    assert done.returncode == 0, done.stdout
    assert records_with(place, "1.0.0")

    done = place.run("update.sh", "--wheel", str(make_wheel("2.0.0", changes_the_shape)))
    assert done.returncode == 0, done.stdout
    assert_rollback_is_refused_and_changes_nothing(place)
    assert_newest_backup_serves(place, "1.0.0")

    assert place.gpuledger("verify")
    done = place.run("uninstall.sh")
    assert done.returncode == 0, done.stdout
    assert not (place.root / "opt/gpuledger").exists()
    assert (place.ledger / "head.sqlite").exists()
    assert (place.root / "etc/gpuledger/config.toml").exists()
    assert running(place) == []


def records_with(place, version: str) -> bool:
    """Whether that release is the current one, answers, and adds to a ledger without a fault."""
    newest = samples(place)[-1]["seq"]
    return place.current == version and f'version="{version}"' in metrics(place) and bool(samples(place, newest))


def assert_scraped(prometheus, version: str) -> None:
    """Wait until Prometheus has seen both services, each once, as this release; its own scrapes are all there is to wait for."""
    wanted = {"gpuledger", "gpuledger-mcp"}
    for _ in range(300):
        seen = {
            row["metric"]["job"] for row in asked(prometheus, f'{{__name__=~"dgx_.*_build_info",version="{version}"}}')
        }
        up = {row["metric"]["job"] for row in asked(prometheus, "up == 1")}
        if seen >= wanted and up == wanted:
            break
        time.sleep(0.1)
    assert (seen, up) == (wanted, wanted)
    assert asked(prometheus, "dgx_gpu_temperature_celsius > 0"), "the GPUs of the demo machine"


def asked(prometheus, query: str) -> list[dict]:
    status, answer = prometheus.get("query", query=query)
    assert status == 200, answer
    return answer["data"]["result"]


def told_gap_s(place, output: str) -> float:
    """What the script said, which is what the ledger has."""
    told_s = float(re.search(r"first after lie ([\d.]+) s", output)[1])
    at = [row["at"] for row in samples(place)]
    assert told_s == pytest.approx(max(after - before for before, after in pairwise(at)), abs=0.01)
    return told_s


def assert_rollback_is_refused_and_changes_nothing(place):
    newest = samples(place)[-1]["seq"]
    pid_file = place.root / "run/gpuledger/gpuledger-collector.pid"
    pid = pid_file.read_text()
    done = place.run("rollback.sh")
    assert done.returncode == 1
    assert "release 1.0.0 cannot read the ledger as it is now; nothing was changed" in done.stdout
    assert (place.current, pid_file.read_text()) == ("2.0.0", pid)
    assert samples(place, newest), "the new release goes on recording"


def assert_newest_backup_serves(place, version: str):
    newest = max((place.root / "var/lib/gpuledger-backups").iterdir())
    folder = place.root / "restored"
    command = [str(place.root / f"opt/gpuledger/releases/{version}/bin/gpuledger")]
    for arguments in (["restore", str(newest), "--data", str(folder)], ["verify", "--data", str(folder)]):
        done = subprocess.run(command + arguments, env=place.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_dry_run_says_each_step_and_changes_nothing(place, tmp_path):
    wheel = tmp_path / "gpuledger-1.0.0-py3-none-any.whl"
    wheel.touch()
    before = place.files()
    done = place.run("install.sh", "--wheel", str(wheel), "--dry-run")
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("gpuledger: would ") == 5
    assert place.files() == before


@pytest.mark.parametrize(
    ("script", "arguments", "code", "sentence"),
    [
        ("install.sh", ["--wheel", "nothing.whl"], 2, "there is no wheel nothing.whl"),
        ("install.sh", [], 2, "say what to install: --wheel FILE, or --version VERSION from the package index"),
        ("install.sh", ["--version", "../etc"], 2, "'../etc' is no version"),
        ("update.sh", ["--versoin", "1"], 2, "there is no option --versoin; --help shows those there are"),
        (
            "update.sh",
            ["--version", "1.0.0"],
            1,
            "gpuledger is not installed in {root}/opt/gpuledger: run install.sh first",
        ),
        ("rollback.sh", ["1.0.0", "1.1.0"], 2, "what is '1.1.0'? --help shows how it is called"),
        ("uninstall.sh", [], 1, "gpuledger is not installed in {root}/opt/gpuledger: run install.sh first"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(place, script, arguments, code, sentence):
    done = place.run(script, *arguments)
    assert (done.returncode, done.stdout) == (code, f"gpuledger: {sentence.format(root=place.root)}\n")
