"""What the tests of the stand-in share: a process that asks it through the real nvidia-ml-py."""

import json
import subprocess
import sys

import pytest

# Runs and evaluates what the test sends, one line of JSON each way. `gpu(i)` is the handle by index; an error
# of pynvml comes back as the name of its class, a structure as its fields, a handle as its UUID.
WORKER = """
import ctypes, json, sys, threading
import pynvml
from pynvml import *

UNION = ["dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal"]

def plain(value):
    if isinstance(value, c_nvmlFieldValue_t):
        read = getattr(value.value, UNION[value.valueType])
        return [value.fieldId, value.scopeId, value.nvmlReturn, value.valueType, read]
    if isinstance(value, ctypes.Structure):
        return {name: plain(getattr(value, name)) for name, *_ in value._fields_}
    if isinstance(value, ctypes._Pointer):
        return nvmlDeviceGetUUID(value)
    if isinstance(value, nvmlFriendlyObject):
        return vars(value)
    if isinstance(value, (ctypes.Array, list, tuple)):
        return [plain(item) for item in value]
    return value.decode() if isinstance(value, bytes) else value

def gpu(index):
    return nvmlDeviceGetHandleByIndex(index)

def call(symbol, *arguments):
    return getattr(pynvml.nvmlLib, symbol)(*arguments)

for line in sys.stdin:
    request = json.loads(line)
    try:
        exec(request["run"])
        answer = plain(eval(request["ask"]))
    except (NVMLError, NVMLLibraryMismatchError) as error:
        answer = type(error).__name__
    print(json.dumps(answer), flush=True)
"""


class Nvml:
    """A process with pynvml loaded, which stays between questions so that the machine can change under it."""

    def __init__(self, environment):
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ask(self, expression, run=""):
        self._process.stdin.write(json.dumps({"run": run, "ask": expression}) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, self._process.stderr.read()
        return json.loads(answer)

    def run(self, statements):
        assert self.ask("None", run=statements) is None

    def close(self):
        return self._process.communicate(timeout=60)[1]


@pytest.fixture
def started():
    """Start a client in an environment; all of them end with the test."""
    clients = []

    def start(environment):
        clients.append(Nvml(environment))
        return clients[-1]

    yield start
    for client in clients:
        client.close()


@pytest.fixture
def nvml(fake_nvml, started):
    client = started(fake_nvml.environment)
    client.run("nvmlInit()")
    return client
