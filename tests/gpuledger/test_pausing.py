"""`gpuledger pause` and `resume`, with a collector of the stand-in driver."""

import re
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from gpuledger.pausing import pause_length_s
from store.errors import NoLedgerError, UsageError
from store.snapshot import LedgerReader


def eventually(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)
    return found


@contextmanager
def recording(gpuledger, **variables):
    """`gpuledger collect` on a free port, with its ledger begun; gives the process."""
    gpuledger.environment |= {
        "GPULEDGER_COLLECTOR__PORT": "0",
        "GPULEDGER_COLLECTOR__SAMPLE_INTERVAL_S": "0.2",
        "GPULEDGER_COLLECTOR__SEAL_INTERVAL_S": "3600",
        **variables,
    }
    with subprocess.Popen(gpuledger.command("collect"), env=gpuledger.variables, stderr=subprocess.DEVNULL) as process:
        try:
            eventually(lambda: is_begun(gpuledger.data) and gpuledger_events(gpuledger, "probe_status"))
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0


def is_begun(folder):
    try:
        LedgerReader(folder).close()
    except NoLedgerError:
        return False
    return True


def rows_of(gpuledger, kind):
    """All rows of a kind; none of them is sealed while a test runs."""
    with LedgerReader(gpuledger.data) as reader:
        return reader.snapshot([kind])[kind].tail.to_pylist()


def gpuledger_events(gpuledger, *names):
    events = [row for row in rows_of(gpuledger, "ledger_event") if row["event"] in names and row["probe"] == "gpu"]
    return [{name: row[name] for name in ("event", "message")} for row in events]


def driver_of(process):
    """What a process has mapped of the driver's library."""
    return {line.split()[-1] for line in Path(f"/proc/{process.pid}/maps").read_text().splitlines() if "nvidia" in line}


def gpu_rows(gpuledger):
    return len(rows_of(gpuledger, "gpu_sample"))


@pytest.fixture
def machine(fake_nvml):
    fake_nvml.write("gpu 0 uuid=GPU-a\n")
    return {name: fake_nvml.environment[name] for name in ("LD_LIBRARY_PATH", "FAKE_NVML_SCENARIO")}


def test_paused_the_collector_holds_nothing_of_the_driver_until_it_is_told_to_go_on(gpuledger, machine):
    with recording(gpuledger, **machine) as process:
        eventually(lambda: gpu_rows(gpuledger) > 3)
        assert driver_of(process)
        said = gpuledger("pause", "--for", "10m", "--why", "reset GPU 0").stdout
        assert re.fullmatch(
            r"paused until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC: the driver is let go, GPUs can be reset; "
            r"the host is still recorded. It goes on by itself, or with 'gpuledger resume'\n",
            said,
        )
        assert driver_of(process) == set()
        rows = gpu_rows(gpuledger)
        status = gpuledger("status").stdout
        assert "recording by pid" in status
        assert re.search(r"probe    gpu: paused until .* UTC by \w+: reset GPU 0", status)
        assert gpu_rows(gpuledger) == rows

        assert gpuledger("resume").stdout == "the GPUs are recorded again\n"
        eventually(lambda: gpu_rows(gpuledger) > rows)
        assert gpuledger("resume").stdout == "it is not paused\n"
    events = gpuledger_events(gpuledger, "paused", "resumed")
    assert [event["event"] for event in events] == ["paused", "resumed"]
    assert len({(row["counter_epoch"], row["up"]) for row in rows_of(gpuledger, "gpu_sample")}) == 1
    assert rows_of(gpuledger, "gpu_event") == []


def test_a_pause_outlives_the_collector(gpuledger, machine):
    with recording(gpuledger, **machine):
        gpuledger("pause", "--for", "10m")
        rows = gpu_rows(gpuledger)
    with recording(gpuledger, **machine) as process:
        eventually(lambda: len(gpuledger_events(gpuledger, "paused")) == 2)
        assert (driver_of(process), gpu_rows(gpuledger)) == (set(), rows)
        gpuledger("resume")
        eventually(lambda: gpu_rows(gpuledger) > rows)


def test_a_pause_ends_by_itself(gpuledger, machine):
    with recording(gpuledger, **machine):
        gpuledger("pause", "--for", "2s")
        (resumed,) = eventually(lambda: gpuledger_events(gpuledger, "resumed"))
        assert resumed["message"] == "the gpu probe goes on: its time was over"
        rows = gpu_rows(gpuledger)
        eventually(lambda: gpu_rows(gpuledger) > rows)


def test_made_up_gpus_are_paused_too(gpuledger):
    with recording(gpuledger, GPULEDGER_COLLECTOR__SOURCE="demo"):
        assert gpuledger("pause").stdout.startswith("paused until ")
        assert gpuledger("resume").stdout == "the GPUs are recorded again\n"


def test_without_a_collector_nothing_is_held_and_that_is_said(gpuledger, recorded):
    said = gpuledger("pause", "--for", "1h30m").stdout
    assert re.fullmatch(
        rf"no collector records to {re.escape(str(gpuledger.data))}, so gpuledger holds nothing of the driver; "
        r"one that is started before .* UTC begins paused\n",
        said,
    )
    assert gpuledger("resume").stdout == f"the pause is taken back; no collector records to {gpuledger.data}\n"


def test_a_collector_that_does_not_let_go_is_one_sentence_that_says_what_holds_it(gpuledger, fake_nvml, machine):
    with recording(gpuledger, **machine) as process:
        eventually(lambda: gpu_rows(gpuledger) > 0)
        fake_nvml.write("gpu 0 uuid=GPU-a\nhang nvmlDeviceGetUtilizationRates 600000\n")
        sentence = gpuledger.error("pause", code=1)
        assert re.fullmatch(
            rf"The collector, pid {process.pid}, has not let go of the driver in time "
            r"\(gpu: stalled since .* UTC in nvmlDeviceGetUtilizationRates\): it is asked for all the same; "
            r"see 'gpuledger status', and if need be stop the collector",
            sentence,
        )
        fake_nvml.write("gpu 0 uuid=GPU-a\n")
        eventually(lambda: gpuledger_events(gpuledger, "paused"))
        assert driver_of(process) == set()


def test_no_ledger_cannot_be_paused(gpuledger):
    assert gpuledger.error("pause", code=3).startswith("There is no ledger in ")
    assert gpuledger.error("resume", code=3).startswith("There is no ledger in ")


def test_a_ledger_that_this_user_may_not_write_is_one_sentence(gpuledger, recorded):
    gpuledger.obeys_permissions = True
    gpuledger.data.chmod(0o555)
    try:
        assert gpuledger.error("pause", code=1) == (
            f"The ledger's folder {gpuledger.data} cannot be written (permission denied): "
            "run as the user who records into it"
        )
    finally:
        gpuledger.data.chmod(0o755)


@pytest.mark.parametrize(
    ("text", "length_s"), [("90s", 90), ("15m", 900), ("1h30m", 5400), ("0.5h", 1800), ("24h", 86_400)]
)
def test_a_length_is_written_as_people_say_it(text, length_s):
    assert pause_length_s(text) == length_s


@pytest.mark.parametrize("text", ["", "15", "m", "15 m", "-5m", "0s", "1d", "5M", "10mx", "inf"])
def test_what_is_no_length_is_a_usage_error(text):
    with pytest.raises(UsageError, match=re.escape(f"{text!r} is no length of a pause: write it as 90s, 15m or 1h30m")):
        pause_length_s(text)


def test_a_pause_longer_than_a_day_is_refused(gpuledger):
    assert gpuledger.error("pause", "--for", "24h1s", code=2) == (
        "A pause of 24h1s is too long: it may last 24h; ask again when that is over"
    )
