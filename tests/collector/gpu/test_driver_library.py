"""The driver's library in a process: never unmapped under a call or another session, and what is held is told."""

import json
import subprocess
import sys

from collector.gpu import driver_library

SESSIONS = """
import json, threading
import pynvml
from collector.gpu.driver_library import LIBRARY, mapped_files
from collector.gpu.nvml import Nvml

def state():
    return [bool(mapped_files()), pynvml.nvmlLib is not None]

seen = {"before": state()}
first, second = Nvml(), Nvml()
seen["name"] = second.ask("nvmlDeviceGetName", second.ask("nvmlDeviceGetHandleByIndex", 0))
first.close()
seen["one left"] = state()
seen["and works"] = second.ask("nvmlDeviceGetCount")
LIBRARY.calls[4711] = print  # a thread that was left behind
second.close()
seen["a call hangs"] = state()
third = Nvml()
del LIBRARY.calls[4711]
third.close()
seen["after"] = state()
seen["calls"] = len(LIBRARY.calls)
print(json.dumps(seen))
"""


def test_the_last_session_unmaps_the_library_and_never_under_a_call(fake_nvml):
    fake_nvml.write("gpu 0 name=H200\n")
    done = subprocess.run(
        [sys.executable, "-P", "-c", SESSIONS], env=fake_nvml.environment, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == {
        "before": [False, False],
        "name": "H200",
        "one left": [True, True],
        "and works": 1,
        "a call hangs": [True, True],
        "after": [False, False],
        "calls": 0,
    }


MARKED = """
import json, threading, time
from collector.gpu.driver_library import LIBRARY
from collector.gpu.nvml import FieldBatch, Nvml

nvml = Nvml()
device = nvml.ask("nvmlDeviceGetHandleByIndex", 0)
seen = []
for call in (lambda: nvml.ask("nvmlDeviceGetUtilizationRates", device), FieldBatch(device, [(82, 0)]).read):
    thread = threading.Thread(target=call)
    thread.start()
    while (name := LIBRARY.call_of(thread.ident)) in (None, "_nvmlGetFunctionPointer"):
        time.sleep(0.001)
    seen.append(name)
    thread.join()
    seen.append(LIBRARY.call_of(thread.ident))
print(json.dumps(seen))
"""


def test_the_call_that_a_thread_hangs_in_is_known_by_its_name(fake_nvml):
    fake_nvml.write("gpu 0\nhang nvmlDeviceGetUtilizationRates 300\nhang nvmlDeviceGetFieldValues 300\n")
    done = subprocess.run(
        [sys.executable, "-P", "-c", MARKED], env=fake_nvml.environment, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == ["nvmlDeviceGetUtilizationRates", None, "nvmlDeviceGetFieldValues", None]


def test_what_is_held_is_the_library_that_is_mapped_and_the_devices_that_are_open(tmp_path):
    (tmp_path / "fd").mkdir()
    for number, target in enumerate(["/dev/null", "/dev/nvidiactl", "/dev/nvidia0", "/dev/nvidia0", "socket:[1]"]):
        (tmp_path / "fd" / str(number)).symlink_to(target)
    old = "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.570.12.34 (deleted)"
    lines = [f"7f00-7f0{n} r-xp 00000000 08:01 12{n}    {old}\n" for n in range(3)]
    (tmp_path / "maps").write_text(
        "".join(["55e0-55e1 r--p 00000000 08:01 99    /usr/bin/python3\n", *lines, "7fff-8000 rw-p 0 0 0\n"])
    )
    assert driver_library.held_files(tmp_path) == ["/dev/nvidia0", "/dev/nvidiactl", old]
    assert driver_library.mapped_files(tmp_path) == [old]


def test_a_process_that_never_saw_a_driver_holds_nothing():
    assert driver_library.held_files() == []
