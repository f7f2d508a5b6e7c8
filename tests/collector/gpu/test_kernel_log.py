"""Xids in the kernel's log: the driver's lines of many versions, the log as device and as file, and who told first."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.gpu import kernel_log
from collector.gpu.kernel_log import KernelLog, KernelXid, XidLog, XidMessage, parse_xid

BUS = "00000000:1B:00.0"

# --- the driver's lines


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "NVRM: Xid (PCI:0000:1b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
            XidMessage(BUS, 79, None, None, "GPU has fallen off the bus."),
        ),
        ("NVRM: Xid (PCI:0000:1b:00): 79, GPU has fallen off the bus.", XidMessage(BUS, 79, None, None, "GPU has fallen off the bus.")),
        (
            "NVRM: Xid (PCI:0000:1b:00): 31, pid=1234, name=python3, Ch 00000008, intr 00000000. MMU Fault: ENGINE GRAPHICS GPC2",
            XidMessage(BUS, 31, 1234, "python3", "Ch 00000008, intr 00000000. MMU Fault: ENGINE GRAPHICS GPC2"),
        ),
        (
            "NVRM: Xid (PCI:0009:01:00): 119, pid=2280636, name=ray::Worker, Timeout waiting for RPC from GSP0! Expected function 76",
            XidMessage("00000009:01:00.0", 119, 2280636, "ray::Worker", "Timeout waiting for RPC from GSP0! Expected function 76"),
        ),
        (
            "NVRM: Xid (PCI:0000:10:1c): 63, pid=1896, Row Remapper: New row marked for remapping, reset gpu to activate.",
            XidMessage("00000000:10:1C.0", 63, 1896, None, "Row Remapper: New row marked for remapping, reset gpu to activate."),
        ),
        (
            "NVRM: Xid (PCI:0008:01:00): 154, GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)",
            XidMessage("00000008:01:00.0", 154, None, None, "GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)"),
        ),
        (
            "NVRM: Xid (PCI:0018:01:00): 149, NETIR_LINK_EVT  Fatal   XC0 i0 Link 07 (0x004505c6 0x00000000)",
            XidMessage("00000018:01:00.0", 149, None, None, "NETIR_LINK_EVT  Fatal   XC0 i0 Link 07 (0x004505c6 0x00000000)"),
        ),
        # with MIG
        (
            "NVRM: Xid (PCI:0000:1b:00 GPU-I:05): 94, pid=7194, Contained: CE User Channel (0x9). RST: No, D-RST: No",
            XidMessage(BUS, 94, 7194, None, "Contained: CE User Channel (0x9). RST: No, D-RST: No", 5),
        ),
        ("NVRM: Xid (PCI:0000:1b:00 GPU-I:05 GPU-CI:01): 43, pid=7, name=a b, Ch 1", XidMessage(BUS, 43, 7, "a b", "Ch 1", 5, 1)),
        ("NVRM: Xid (PCI:0000:1b:00 GPU-Q:1): 43, Ch 1", XidMessage(BUS, 43, None, None, "Ch 1")),
        # older, longer and lesser forms
        ("NVRM: Xid (0000:05:00): 13, 0005 00000000 0000502d", XidMessage("00000000:05:00.0", 13, None, None, "0005 00000000 0000502d")),
        ("NVRM: Xid (PCI:00000000:1B:00.0): 45, pid=1, name=x, ", XidMessage(BUS, 45, 1, "x", "")),
        ("NVRM: Xid (PCI:0000:1b:00): 61", XidMessage(BUS, 61, None, None, "")),
        ("NVRM: Xid (PCI:0000:1b:00): 62, pid=<unknown>, name=<unknown>, 0 0", XidMessage(BUS, 62, None, None, "0 0")),
        ("NVRM: Xid (PCI:0000:1b:00): 43, pid=4294967295, name=x, Ch 1", XidMessage(BUS, 43, None, "x", "Ch 1")),
        ("NVRM: Xid (PCI:0000:1b:00): 43, pid=7, name=, Ch 1", XidMessage(BUS, 43, 7, None, "Ch 1")),
        ("NVRM: Xid (PCI:0000:1b:00): 999999, " + "x" * 2000, XidMessage(BUS, 999999, None, None, "x" * 1024)),
    ],
)  # fmt: skip
def test_a_line_of_the_driver_is_taken_apart(line, expected):
    assert parse_xid(line) == expected


@pytest.mark.parametrize(
    "line",
    [
        "NVRM: GPU at PCI:0000:1b:00: GPU-b850f46d-d5ea-c752-ddf3-c4453e44d3f7",
        "NVRM: GPU 0000:1b:00.0: GPU has fallen off the bus.",
        "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 28006, Non-fatal, Link 46 MC TS crumbstore MCTO",
        "audit: comm=NVRM: Xid (PCI:0000:1b:00): 79, GPU has fallen off the bus.",
        "NVRM: Xid (PCI:0000:1b:00): abc, pid=2280636",
        "NVRM: Xid (PCI:0000:1b): 79, GPU has fallen off the bus.",
        "NVRM: Xid (PCI:0000:1b:00): 12345678, no such code",
        "",
    ],
)
def test_a_line_about_something_else_is_no_xid(line):
    assert parse_xid(line) is None


@given(st.text(), st.text(st.sampled_from("(PCI:0123456789abcdef. GPU-)=,'<unknown>pidname ")))
def test_any_text_is_an_xid_or_is_none(text, tail):
    for line in (text, f"NVRM: Xid (PCI:{tail}", f"NVRM: Xid (PCI:0000:1b:00): 79{tail}{text}"):
        found = parse_xid(line)
        assert found is None or (len(found.pci_bus_id) == 16 and len(found.message) <= 1024)


# --- the log


def record(time_us, text, priority=4):
    return f"{priority},{time_us},{time_us},-;{text}\n SUBSYSTEM=pci\n DEVICE=+pci:0000:1b:00.0\n"


def xid_record(time_us, code=79, **options):
    return record(time_us, f"NVRM: Xid (PCI:0000:1b:00): {code}, pid=7, name=python3, told", **options)


def told(time_us, code=79):
    return KernelXid(time_us, XidMessage(BUS, code, 7, "python3", "told"))


@pytest.fixture
def kmsg(tmp_path):
    path = tmp_path / "kmsg"
    path.write_text(xid_record(100) + record(200, "usb 1-1: new device"))
    return path


@pytest.fixture
def make_log():
    logs = []

    def make(path, **options):
        logs.append(KernelLog(path, **options))
        return logs[-1]

    yield make
    for log in logs:
        log.close()


def append(path, text):
    with path.open("a") as file:
        file.write(text)


def test_what_was_there_before_is_skipped_and_each_new_xid_is_told_once(make_log, kmsg):
    log = make_log(kmsg)
    assert log.read_new() == []
    append(kmsg, xid_record(300, 31) + record(301, "NVRM: GPU 0000:1b:00.0: lost") + xid_record(302, 79))
    assert log.read_new() == [told(300, 31), told(302, 79)]
    assert log.read_new() == []
    append(kmsg, xid_record(400, 79))
    assert log.read_new() == [told(400, 79)]
    assert log.status() == f"reading {kmsg}"


def test_what_was_there_before_is_told_when_asked_for(make_log, kmsg):
    log = make_log(kmsg, back_fill=True)
    assert log.read_new() == [told(100)]
    assert log.read_new() == []


def test_a_record_that_is_still_being_written_is_told_when_it_is_whole(make_log, kmsg):
    log = make_log(kmsg)
    whole = xid_record(300)
    append(kmsg, whole[:40])
    assert log.read_new() == []
    append(kmsg, whole[40:])
    assert log.read_new() == [told(300)]


def test_only_the_kernels_own_records_are_taken(make_log, kmsg):
    log = make_log(kmsg)
    forged = (xid_record(300, priority=12), xid_record(301, priority=30), " 4,302,302,-;" + xid_record(1).split(";")[1])
    append(kmsg, "".join(forged) + xid_record(303, priority=0))
    assert log.read_new() == [told(303)]


def test_records_of_another_layout_are_passed_over(make_log, kmsg):
    log = make_log(kmsg)
    line = "NVRM: Xid (PCI:0000:1b:00): 79, pid=7, name=python3, told\n"
    append(
        kmsg,
        f"{line};{line}4;{line}4,1;{line}4,1,x,-;{line}4,1,{'9' * 5000},-;{line}\udcff;".encode(
            errors="ignore"
        ).decode(),
    )
    append(kmsg, "\n4,9,9,-,caller=T7;" + line)
    assert log.read_new() == [told(9)]


class Device:
    """Answers reads as /dev/kmsg does: one record each, then that it would block."""

    def __init__(self, monkeypatch, *answers):
        self.answers = list(answers)
        monkeypatch.setattr(kernel_log.os, "read", self.read)

    def read(self, _file, _bytes_max):
        answer = self.answers.pop(0) if self.answers else BlockingIOError(errno.EAGAIN, "would block")
        if isinstance(answer, OSError):
            raise answer
        return answer.encode()


def test_the_device_gives_a_record_a_read_until_it_would_block(make_log, kmsg, monkeypatch):
    log = make_log(kmsg)
    device = Device(monkeypatch, xid_record(300), record(301, "other"), xid_record(302, 31))
    assert log.read_new() == [told(300), told(302, 31)]
    device.answers = [xid_record(400)]
    assert log.read_new() == [told(400)]


def test_records_that_were_overwritten_are_counted_and_the_others_told(make_log, kmsg, monkeypatch):
    log = make_log(kmsg)
    overtaken = BrokenPipeError(errno.EPIPE, "Broken pipe")
    Device(monkeypatch, xid_record(300), overtaken, overtaken, xid_record(900, 31))
    assert log.read_new() == [told(300), told(900, 31)]
    assert (log.overwritten_count, log.status()) == (2, f"reading {kmsg}")


def test_a_log_written_faster_than_it_is_read_does_not_hold_the_reader(make_log, kmsg, monkeypatch):
    monkeypatch.setattr(kernel_log, "_READS_MAX", 2)
    log = make_log(kmsg)
    Device(monkeypatch, *(xid_record(time_us) for time_us in range(5)))
    assert [[xid.boottime_us for xid in log.read_new()] for _ in range(4)] == [[0, 1], [2, 3], [4], []]


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES])
def test_a_log_that_may_not_be_read_is_said_to_be_so_and_read_once_it_may(make_log, kmsg, monkeypatch, number):
    opened = os.open
    monkeypatch.setattr(kernel_log.os, "open", raising(OSError(number, os.strerror(number))))
    log = make_log(kmsg, back_fill=True)
    assert log.read_new() == []
    assert (
        log.status() == f"may not read {kmsg} (needs CAP_SYSLOG, or kernel.dmesg_restrict=0): Xids come from NVML alone"
    )
    monkeypatch.setattr(kernel_log.os, "open", opened)
    assert log.read_new() == [told(100)]
    assert log.status() == f"reading {kmsg}"


def raising(error):
    def raise_it(*_arguments):
        raise error

    return raise_it


def test_a_log_that_does_not_exist_is_said_to_be_so_and_is_read_once_it_does(make_log, tmp_path):
    path = tmp_path / "kmsg"
    log = make_log(path)
    assert log.read_new() == []
    assert log.status() == f"there is no {path} here: Xids come from NVML alone"
    path.write_text(xid_record(100))
    assert log.read_new() == []
    append(path, xid_record(200))
    assert log.read_new() == [told(200)]


def test_a_log_that_fails_is_given_up_with_what_it_still_said_and_read_anew_from_then_on(make_log, kmsg, monkeypatch):
    log = make_log(kmsg, back_fill=True)
    with monkeypatch.context() as patched:
        Device(patched, xid_record(300), xid_record(301)[:40], OSError(errno.EIO, "Input/output error"))
        assert log.read_new() == [told(300)]
    assert log.status() == f"cannot read {kmsg} (Input/output error): Xids come from NVML alone"
    assert log.read_new() == []
    assert log.status() == f"reading {kmsg}"
    append(kmsg, xid_record(400))
    assert log.read_new() == [told(400)]


def test_a_folder_in_the_logs_place_is_no_exception(make_log, tmp_path):
    log = make_log(tmp_path)
    assert log.read_new() == []
    assert log.status().startswith(f"cannot read {tmp_path} (")  # the reason is the file system's


def test_this_machines_own_log_is_read_or_it_is_said_why_not(make_log):
    log = make_log(Path("/dev/kmsg"), back_fill=True)
    assert all(isinstance(xid, KernelXid) for xid in log.read_new())
    assert log.status().startswith(("reading /dev/kmsg", "may not read /dev/kmsg", "there is no /dev/kmsg"))


# --- who told first

SECOND_US = 1_000_000


@pytest.mark.parametrize(
    ("reports", "news"),
    [
        ([("nvml", 0.0), ("kmsg", 0.1)], [True, False]),
        ([("kmsg", 0.0), ("nvml", 5.0)], [True, False]),
        ([("kmsg", 0.1), ("nvml", 0.0)], [True, False]),
        ([("nvml", 0.0), ("kmsg", 5.1)], [True, True]),
        ([("nvml", 0.0), ("nvml", 0.1)], [True, True]),
        ([("nvml", 0.0), ("nvml", 0.1), ("kmsg", 0.2), ("kmsg", 0.3), ("kmsg", 0.4)], [True, True, False, False, True]),
        ([("nvml", 0.0), ("kmsg", 0.1), ("nvml", 1.0), ("kmsg", 1.1)], [True, False, True, False]),
        ([("nvml", 100.0), ("kmsg", 0.0), ("nvml", 1.0)], [True, True, False]),
    ],
)
def test_one_xid_told_by_two_sources_is_one_and_told_twice_by_one_is_two(reports, news):
    log = XidLog()
    assert [log.is_new(source, BUS, 79, round(at_s * SECOND_US)) for source, at_s in reports] == news


def test_another_code_or_another_gpu_is_another_xid():
    log = XidLog()
    assert log.is_new("nvml", BUS, 79, 0)
    assert log.is_new("kmsg", BUS, 31, 0)
    assert log.is_new("kmsg", "00000000:2B:00.0", 79, 0)
    assert not log.is_new("kmsg", BUS.lower(), 79, 0)


def test_the_window_can_be_set():
    log = XidLog(window_us=10)
    assert [log.is_new("nvml", BUS, 79, 0), log.is_new("kmsg", BUS, 79, 11), log.is_new("other", BUS, 79, 10)] == [
        True,
        True,
        False,
    ]


@given(st.lists(st.sampled_from(["nvml", "kmsg", "journal"]), max_size=100))
def test_however_reports_come_in_there_are_as_many_as_the_source_that_told_most(sources):
    log = XidLog()
    news = sum(log.is_new(source, BUS, 79, at * 1000) for at, source in enumerate(sources))
    assert news == max((sources.count(source) for source in sources), default=0)


def test_a_storm_of_one_code_takes_a_bounded_amount_of_memory():
    log = XidLog()
    assert all(log.is_new("nvml", BUS, 13, at) for at in range(5_000))
    assert sum(map(len, log._reported.values())) == kernel_log._REPORTS_MAX
