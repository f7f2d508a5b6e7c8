"""Other people's SQL against every layer that holds it, and against each layer alone.

`tests/fixtures/sql_attacks.tsv` has a statement a line: what becomes of it with all layers in place (`ended` is stopped
or out of memory, whichever comes first), its name, and its text. LEDGER, SEGMENT and OUTSIDE stand for the ledger's folder, one of its sealed files, and a folder beside it with
a secret in it.
"""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from query import ad_hoc
from query.ad_hoc import run_sql
from query.errors import SqlFailedError, SqlRefusedError
from query.reading.local_source import LocalSource
from query.sandbox import no_sockets
from query.sandbox import process as sql_process
from query.sandbox.confinement import landlock_version
from query.sandbox.guard import Judged
from query.sandbox.no_sockets import can_refuse_sockets
from query.sandbox.process import MEMORY_MAX_BYTES, WAITING_MAX, SqlProcess

ATTACKS = Path(__file__).parents[2] / "fixtures" / "sql_attacks.tsv"
SECRET = "swordfish-7731"
COUNT = "select count(*) as n from gpu_sample"
ENDLESS = "select sum(hash(i)) from range(1_000_000_000_000) r(i)"
UNSTOPPABLE = "select levenshtein(repeat('a', 200_000), repeat('b', 200_000))"

GENERATED = {
    "deep subqueries": "select * from (" * 3_000 + "select 1" + ")" * 3_000,
    "20k union": " union all ".join(["select 1"] * 20_000),
}


def attacks() -> list[tuple[str, str, str]]:
    rows = [line.split("\t") for line in ATTACKS.read_text().splitlines()]
    return [
        (expected, name, GENERATED.get(name, text.encode().decode("unicode_escape"))) for expected, name, text in rows
    ]


def everything(*folders: Path) -> dict[str, tuple[int, str]]:
    """Every file and folder, with size and content."""
    return {
        str(path): (path.stat().st_mode, hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "")
        for folder in folders
        for path in (folder, *sorted(folder.rglob("*")))
    }


class Target:
    """A ledger with a secret beside it, whose SQL runs in a process that is held by some layers."""

    def __init__(self, folder: Path, outside: Path, landlock: int) -> None:
        self.source = LocalSource(folder)
        self.source._sql = SqlProcess(folder / "events", landlock=landlock)
        self._outside = outside
        self._segment = next(folder.glob("events/gpu_sample/**/*.parquet"))

    def outcome(self, text: str, *, time_limit_s: float = 60) -> tuple[str, str]:
        """What became of a statement, and all that it said."""
        in_place = text.replace("SEGMENT", str(self._segment)).replace("LEDGER", str(self.source.folder))
        sql = in_place.replace("OUTSIDE", str(self._outside))
        try:
            found = run_sql(self.source, sql, rows_max=1_000, time_limit_s=time_limit_s, bytes_max=1 << 24)
        except SqlRefusedError as error:
            return "refused", str(error)
        except SqlFailedError as error:
            is_bound = error.problem.startswith(("The query took longer than", "The query needs more than"))
            return "ended" if is_bound else "failed", str(error)
        return "answered", str(found.table.to_pylist())

    def answers_the_next(self) -> None:
        assert self.outcome(COUNT) == ("answered", "[{'n': 20}]")

    @property
    def peak_bytes(self) -> int:
        status = Path(f"/proc/{self.source._sql.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) << 10


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outside")
    (folder / "secret.txt").write_text(SECRET)
    (folder / "e.csv").write_text(f"a\n{SECRET}\n")
    (folder / "out").mkdir()
    return folder


@pytest.fixture(scope="module")
def target(request, machine, outside) -> Iterator[Target]:
    made = Target(machine.folder, outside, landlock_version() if request.param == "landlock" else 0)
    yield made
    made.source.close()


@pytest.fixture(scope="module")
def held(machine, outside) -> Iterator[Target]:
    made = Target(machine.folder, outside, landlock_version())
    yield made
    made.source.close()


@pytest.fixture
def nothing_changes(machine, outside, tmp_path, monkeypatch) -> Iterator[None]:
    monkeypatch.setattr(sql_process, "_GRACE_S", 0.2)
    monkeypatch.chdir(tmp_path)
    machine.source.reader().close()  # SQLite makes its files for readers now, if it has to
    before = everything(machine.folder, outside, tmp_path)
    yield
    assert everything(machine.folder, outside, tmp_path) == before


@pytest.mark.parametrize(("expected", "text"), [pytest.param(a, c, id=b) for a, b, c in attacks()])
def test_an_attack_comes_to_nothing_and_the_next_query_is_answered(held, nothing_changes, expected, text):
    became, said = held.outcome(text, time_limit_s=0.3 if expected == "ended" else 60)
    assert became == expected, said
    assert SECRET not in said
    held.answers_the_next()
    assert held.peak_bytes < MEMORY_MAX_BYTES


PAST_THE_GUARD = [
    pytest.param(way, text, id=f"{way}: {name}")
    for way in ("landlock", "no landlock")
    for expected, name, text in attacks()
    if name not in GENERATED and (way == "landlock" or expected != "ended")  # memory and time are bound alike
]


@pytest.mark.parametrize(("target", "text"), PAST_THE_GUARD, indirect=["target"])
def test_an_attack_that_got_past_the_guard_comes_to_nothing_either(target, nothing_changes, text, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(ad_hoc, "judged", lambda _: Judged(("gpu_sample",), None))
        _, said = target.outcome(text, time_limit_s=0.3)
    assert SECRET not in said
    target.answers_the_next()
    assert target.peak_bytes < MEMORY_MAX_BYTES


NAMES = st.sampled_from(
    ["gpu_sample", "request", "annotation", "x", "seq", "host", "'SEGMENT'", "'OUTSIDE/secret.txt'"]
)
PATHS = st.sampled_from(["SEGMENT", "LEDGER/events/x.csv", "OUTSIDE/out/x", "OUTSIDE/secret.txt", "LEDGER/head.sqlite"])
VALUES = st.one_of(
    NAMES,
    st.sampled_from(["1", "null", "'a'", "*", "[1]", "{'a': 1}", "#1", "$1", "range(3)", "count(*)", "now()"]),
    st.builds(
        "{}('{}')".format,
        st.sampled_from(["read_text", "read_blob", "glob", "getenv", "query", "upper", "error"]),
        PATHS,
    ),
)
SELECTS = st.recursive(
    st.builds("select {} from {}".format, VALUES, NAMES),
    lambda inner: st.one_of(
        st.builds("select {} from ({}) x".format, VALUES, inner),
        st.builds("{} {} {}".format, inner, st.sampled_from(["union all", "except", "intersect"]), inner),
        st.builds("with x as ({}) {}".format, inner, inner),
        st.builds("with x as materialized (copy ({}) to '{}') {}".format, inner, PATHS, inner),
        st.builds("select ({}), {} from {} where {} in ({})".format, inner, VALUES, NAMES, VALUES, inner),
        st.builds("from read_parquet('{}') select ({})".format, PATHS, inner),
    ),
    max_leaves=6,
)
STATEMENTS = st.one_of(
    SELECTS,
    st.builds("{}; {}".format, SELECTS, SELECTS),
    st.builds("copy ({}) to '{}'".format, SELECTS, PATHS),
    st.builds(
        "{} {}".format, st.sampled_from(["explain analyze", "describe", "prepare p as", "create table t as"]), SELECTS
    ),
    st.builds("attach '{}' as o".format, PATHS),
    st.builds("export database '{}'".format, PATHS),
    st.builds("insert into {} {}".format, NAMES, SELECTS),
    st.builds("create or replace macro upper(x) as ({})".format, SELECTS),
    st.builds("set {} = '{}'".format, st.sampled_from(["temp_directory", "log_query_path", "TimeZone"]), PATHS),
)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(text=STATEMENTS, is_guarded=st.booleans())
def test_whatever_a_grammar_makes_changes_nothing_and_tells_no_secret(held, nothing_changes, text, is_guarded):
    with pytest.MonkeyPatch.context() as patched:
        if not is_guarded:
            patched.setattr(ad_hoc, "judged", lambda _: Judged(("gpu_sample", "request", "annotation"), None))
        _, said = held.outcome(text, time_limit_s=2)
    assert SECRET not in said
    held.answers_the_next()


def in_background(target: Target, text: str, **asked) -> tuple[threading.Thread, list[str]]:
    """Asks in a thread, and gives it with what became of it."""
    said: list[str] = []

    def ask() -> None:
        try:
            said.append(str(run_sql(target.source, text, rows_max=9, time_limit_s=60, **asked).table.to_pylist()))
        except SqlFailedError as error:
            said.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    return thread, said


def until_it_runs(target: Target) -> None:
    while target.source._sql._child.is_idle:
        os.sched_yield()


def test_a_process_that_is_killed_costs_its_query_one_sentence_and_no_other(held):
    held.answers_the_next()
    thread, said = in_background(held, ENDLESS)
    until_it_runs(held)
    os.kill(held.source._sql.pid, signal.SIGKILL)
    thread.join()
    assert said == ["The query's process was ended by signal 9: narrow its time range, or aggregate more"]
    held.answers_the_next()


def test_a_process_that_is_killed_while_it_waits_costs_nothing(held):
    held.answers_the_next()
    os.kill(held.source._sql.pid, signal.SIGKILL)
    held.source._sql._child.process.wait()
    held.answers_the_next()


@pytest.mark.parametrize("text", [ENDLESS, UNSTOPPABLE])
def test_a_query_that_is_cancelled_is_stopped(held, text, monkeypatch):
    monkeypatch.setattr(sql_process, "_GRACE_S", 0.2)
    held.answers_the_next()
    cancelled = threading.Event()
    thread, said = in_background(held, text, cancelled=cancelled)
    until_it_runs(held)
    cancelled.set()
    thread.join()
    assert said == ["The query was cancelled and stopped: ask again to have its answer"]
    held.answers_the_next()


def test_so_many_may_wait_and_one_more_is_told_so(held):
    held.answers_the_next()
    cancelled = threading.Event()
    running = in_background(held, ENDLESS, cancelled=cancelled)
    until_it_runs(held)
    waiting = [in_background(held, COUNT) for _ in range(WAITING_MAX)]
    while held.source._sql._places._value:
        os.sched_yield()
    became, said = held.outcome(COUNT)
    cancelled.set()
    for thread, _ in (running, *waiting):
        thread.join()
    assert (became, said) == ("failed", "8 queries wait already: ask again when some are answered")
    assert [said for _, said in waiting] == [["[{'n': 20}]"]] * WAITING_MAX


def test_an_answer_is_cut_at_so_many_bytes(held):
    found = run_sql(
        held.source, "select i from range(1_000_000) r(i)", rows_max=10**7, time_limit_s=60, bytes_max=80_000
    )
    rows = found.table.num_rows
    assert (found.table["i"].to_pylist(), found.is_truncated) == (list(range(rows)), True)
    assert 70_000 < found.table.nbytes <= 80_000


def test_a_query_leaves_nothing_behind_for_the_next(held, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(ad_hoc, "judged", lambda _: Judged(("gpu_sample",), None))
        became = [
            held.outcome(text)[0]
            for text in (
                "create macro count(x) as 42",
                "create temp view request as select 42 as n",
                "create table annotation as select 42 as n",
                "set variable mine = 42",
                "commit",
            )
        ]
        assert held.outcome("select getvariable('mine')") == ("answered", "[{\"getvariable('mine')\": None}]")
        assert held.outcome("select * from request")[0] == "failed"
    assert became[0] == became[2] == "failed"
    held.answers_the_next()


def test_the_process_has_no_environment_and_ends_with_who_started_it(machine, monkeypatch):
    monkeypatch.setenv("GPULEDGER_SECRET", SECRET)
    source = LocalSource(machine.folder)
    process = source.sql_process()
    assert run_sql(source, "select 1 as one", rows_max=1, time_limit_s=60).table.num_rows == 1
    environment = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
    popen = process._child.process
    process._child._wire.close()
    names = [one.partition(b"=")[0] for one in environment]
    assert names == [b"OPENBLAS_NUM_THREADS", b"ARROW_DEFAULT_MEMORY_POOL", b"MALLOC_ARENA_MAX", b""]
    assert popen.wait(60) == 0
    source.close()


def test_a_ledger_whose_files_were_made_anew_is_read(book):
    book.append([book.gpu(1)])
    assert run_sql(book.source, COUNT, rows_max=1, time_limit_s=60).table["n"].to_pylist() == [1]
    book.seal()  # the folder of the sealed files begins to be
    assert run_sql(book.source, COUNT, rows_max=1, time_limit_s=60).table["n"].to_pylist() == [1]
    assert book.source.notes() == []


TRIES = """
import json, os, socket, subprocess, sys, threading
from query.sandbox.confinement import limit_resources, restrict_files
allowed, other, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
limit_resources(2 << 30)
version = restrict_files([allowed, *(path for path in sys.path if "python" in path)])
def tried(do):
    try:
        do()
    except (OSError, MemoryError) as error:
        return type(error).__name__
    return "done"
tries = {
    "read inside": lambda: open(allowed + "/a").read(),
    "list inside": lambda: os.listdir(allowed),
    "read outside": lambda: open(other + "/a").read(),
    "list outside": lambda: os.listdir(other),
    "write inside": lambda: open(allowed + "/a", "r+"),
    "make inside": lambda: open(allowed + "/new", "x"),
    "remove inside": lambda: os.unlink(allowed + "/a"),
    "cut inside": lambda: os.truncate(allowed + "/a", 0),
    "rename inside": lambda: os.rename(allowed + "/a", allowed + "/b"),
    "link inside": lambda: os.symlink("/", allowed + "/link"),
    "make outside": lambda: open(other + "/new", "x"),
    "environment of init": lambda: open("/proc/1/environ").read(),
    "run": lambda: subprocess.run(["/bin/true"]),
    "connect": lambda: socket.create_connection(("127.0.0.1", port)),
    "listen": lambda: socket.create_server(("127.0.0.1", 0)),
    "much memory": lambda: bytearray(4 << 30),
    "some memory": lambda: bytearray(1 << 20),
}
became = {name: tried(do) for name, do in tries.items()}
thread = threading.Thread(target=lambda: became.update({"read outside in a thread": tried(tries["read outside"])}))
thread.start(); thread.join()
print(json.dumps(became))
"""


def test_the_confinement_alone_leaves_nothing_but_reading_and_some_memory(tmp_path):
    for name in ("allowed", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text("content")
    before = everything(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        command = [sys.executable, "-c", TRIES, str(tmp_path / "allowed"), str(tmp_path / "other"), port]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    became = json.loads(done.stdout)
    left = [name for name, how in became.items() if how == "done"]
    assert left == ["read inside", "list inside", "some memory"]
    assert {became[name] for name in became if name not in left} == {"PermissionError", "MemoryError"}
    assert everything(tmp_path) == before


SOCKETS = """
import ctypes, json, os, socket, sys, threading
from query.sandbox.no_sockets import refuse_sockets
port, path, parent = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
libc = ctypes.CDLL(None, use_errno=True)
def sends():
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"secret", ("127.0.0.1", port))
def connects(kind, address):
    socket.socket(kind).connect(address)
def calls(*arguments):
    if libc.syscall(*arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")
numbers = {"x86_64": (425, 310), "aarch64": (425, 270)}[os.uname().machine]
class Span(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))
byte = ctypes.create_string_buffer(1)
span = Span(ctypes.addressof(byte), 1)
tries = {
    "udp": sends,
    "tcp": lambda: connects(socket.AF_INET, ("127.0.0.1", port)),
    "unix": lambda: connects(socket.AF_UNIX, path),
    "abstract": lambda: connects(socket.AF_UNIX, chr(0) + "nobody"),
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "pair": socket.socketpair,
    "ring": lambda: calls(numbers[0], 8, ctypes.create_string_buffer(120)),
    "memory": lambda: calls(numbers[1], parent, ctypes.byref(span), 1, ctypes.byref(span), 1, 0),
    "pipe": os.pipe,
    "file": lambda: open("/proc/self/status").read(),
}
def tried(do):
    try:
        do()
    except OSError as error:
        return type(error).__name__
    return "done"
assert refuse_sockets()
became = {name: tried(do) for name, do in tries.items()}
thread = threading.Thread(target=lambda: became.update({"udp in a thread": tried(sends)}))
thread.start(); thread.join()
print(json.dumps(became))
"""


def test_without_sockets_nobody_is_reached(tmp_path):
    path = str(tmp_path / "unix")
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        udp.bind(("127.0.0.1", 0))
        udp.setblocking(False)
        unix.bind(path)
        unix.listen()
        command = [sys.executable, "-c", SOCKETS, str(udp.getsockname()[1]), path, str(os.getpid())]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        with pytest.raises(BlockingIOError):
            udp.recv(100)
    became = json.loads(done.stdout)
    assert [name for name, how in became.items() if how == "done"] == ["pipe", "file"]
    assert {how for how in became.values() if how != "done"} == {"PermissionError"}


def test_every_thread_that_runs_sql_is_without_sockets(held):
    held.answers_the_next()
    statuses = [one.read_text() for one in Path(f"/proc/{held.source._sql.pid}/task").glob("*/status")]
    assert len(statuses) > 1
    assert all("\nSeccomp:\t2\n" in one and "\nNoNewPrivs:\t1\n" in one for one in statuses)


def outcome_of(program, number: int, machine: int) -> int:
    """What the kernel's interpreter makes of a call, for the four instructions that there are."""
    at, loaded = 0, 0
    while True:
        code, skip_if, skip_else, value = program[at]
        if code == 0x06:
            return value
        if code == 0x20:
            loaded, at = {0: number, 4: machine}[value], at + 1
        else:
            holds = loaded == value if code == 0x15 else loaded >= value
            at += 1 + (skip_if if holds else skip_else)


@pytest.mark.parametrize("processor", ["x86_64", "aarch64"])
def test_the_filter_of_each_processor_refuses_what_is_listed_and_nothing_else(processor):
    machine = no_sockets._MACHINES[processor]
    program = no_sockets._program(machine)
    refused = {number for number in range(600) if outcome_of(program, number, machine.name) != 0x7FFF_0000}
    assert refused == set(machine.refused.values())
    assert {outcome_of(program, number, machine.name) for number in refused} == {0x0005_0001}
    assert outcome_of(program, 0x4000_0000 | 1, machine.name) == 0x0005_0001
    assert outcome_of(program, 1, machine.name + 1) == 0x0005_0001


def test_where_calls_cannot_be_filtered_that_is_told_and_nothing_fails(monkeypatch):
    assert can_refuse_sockets()
    monkeypatch.setattr(no_sockets.platform, "machine", lambda: "riscv64")
    assert not can_refuse_sockets()
    assert not no_sockets.refuse_sockets()
