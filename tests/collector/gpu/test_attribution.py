"""Whose a process is: read from folders that stand for /proc, with what containers, Slurm and rude processes put there."""

import os
import tempfile
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.gpu import attribution
from collector.gpu.attribution import COMMAND_CHARACTERS_MAX, Attributor, redacted

PAGE_BYTES, TICKS_PER_SECOND = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
BOOT_S = 1_795_000_000
DOCKER, NESTED = "0123456789abcdef" * 4, "fedcba9876543210" * 4
POD = "12345678-1234-1234-1234-123456789abc"
POD_IN_SLICE = POD.replace("-", "_")
STATIC_POD = "4a1cfe2b" * 4


class Machine:
    """A folder that stands for /proc."""

    def __init__(self, proc: Path) -> None:
        self.proc = proc
        (proc / "stat").write_text(f"cpu  1 2 3\nintr {'0 ' * 20_000}\nctxt 9\nbtime {BOOT_S}\nprocesses 7\n")

    def process(
        self,
        pid,
        argv=("python3", "train.py"),
        *,
        comm=b"python3",
        start_s=100,
        cpu_s=(3, 1),
        pages=25_000,
        uid="0",
        cgroup="0::/user.slice/user-1000.slice/session-2.scope\n",
    ):
        folder = self.proc / str(pid)
        folder.mkdir(exist_ok=True)
        user, system = (seconds * TICKS_PER_SECOND for seconds in cpu_s)
        numbers = f"1 1 1 0 -1 4194304 9 0 0 0 {user} {system} 0 0 20 0 8 0 {start_s * TICKS_PER_SECOND} 99 {pages} 18446744073"
        (folder / "stat").write_bytes(b"%d (%b) S %b\n" % (pid, comm, numbers.encode()))
        (folder / "cmdline").write_bytes(b"".join(os.fsencode(word) + b"\0" for word in argv))
        (folder / "status").write_text(f"Name:\tpython3\nUmask:\t0022\nUid:\t{uid}\t0\t0\t0\nGid:\t0\t0\t0\t0\n")
        (folder / "cgroup").write_text(cgroup)
        return folder

    def start_us(self, start_s):
        return (BOOT_S + start_s) * 1_000_000


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


@pytest.fixture
def attributor(tmp_path):
    return Attributor(tmp_path)


PLAIN = {
    "process_visible": True,
    "name": "python3",
    "command": "python3 train.py",
    "user": "root",
    "started_at": (BOOT_S + 100) * 1_000_000,
    "host_memory_bytes": 25_000 * PAGE_BYTES,
    "cpu_seconds": 4.0,
}


# --- what is known of a process


def test_a_process_is_described_with_its_name_command_owner_start_and_use(machine, attributor):
    machine.process(4711)
    assert attributor.describe(4711) == PLAIN


def test_this_very_process_is_described_as_the_kernel_shows_it():
    told = Attributor(Path("/proc")).describe(os.getpid())
    assert told["process_visible"] is True
    assert told["name"] == Path("/proc/self/comm").read_text().rstrip("\n")
    assert told["cpu_seconds"] == pytest.approx(sum(os.times()[:2]), abs=0.5)
    assert told["host_memory_bytes"] > 1_000_000


def test_a_process_that_cannot_be_seen_is_kept_as_not_visible(attributor, machine):
    assert attributor.describe(4711) == {"process_visible": False}


def test_a_process_that_ends_is_no_longer_visible_and_is_read_anew_when_its_pid_returns(machine, attributor):
    folder = machine.process(4711)
    attributor.describe(4711)
    (folder / "stat").unlink()
    assert attributor.describe(4711) == {"process_visible": False}
    machine.process(4711, ["other"])
    assert attributor.describe(4711) == PLAIN | {"command": "other"}


@pytest.mark.parametrize(
    ("file", "columns"),
    [
        ("cmdline", {"command"}),
        ("status", {"user"}),
        ("cgroup", {"container_id"}),
    ],
)
def test_a_file_that_cannot_be_read_leaves_out_its_own_columns_and_no_others(machine, attributor, file, columns):
    folder = machine.process(4711, cgroup=f"0::/system.slice/docker-{DOCKER}.scope\n")
    (folder / file).unlink()
    (folder / file).mkdir()  # opening it fails, for root too
    whole = PLAIN | {"container_id": DOCKER}
    assert attributor.describe(4711) == {name: value for name, value in whole.items() if name not in columns}


def test_without_the_time_of_boot_only_the_start_is_left_out(machine, attributor):
    machine.process(4711)
    (machine.proc / "stat").write_text("cpu  1 2 3\n")
    assert attributor.describe(4711) == {name: value for name, value in PLAIN.items() if name != "started_at"}


def test_a_stat_of_another_layout_leaves_out_what_it_would_have_told(machine, attributor):
    folder = machine.process(4711)
    (folder / "stat").write_text("4711 (python3) S 1\n")
    assert attributor.describe(4711) == {
        "process_visible": True,
        "command": "python3 train.py",
        "user": "root",
    }


def test_a_name_may_look_like_the_rest_of_the_line(machine, attributor):
    machine.process(4711, comm=b") R 1 (\n evil")
    assert attributor.describe(4711) == PLAIN | {"name": ") R 1 ( evil"}


def test_a_kernel_thread_has_no_command(machine, attributor):
    machine.process(4711, argv=[])
    assert "command" not in attributor.describe(4711)


@pytest.mark.parametrize("uid", ["4294967294", "99999999999999999999"])
def test_a_user_without_a_name_is_called_by_number(machine, attributor, uid):
    machine.process(4711, uid=uid)
    assert attributor.describe(4711) == PLAIN | {"user": uid}


# --- what is remembered


def test_what_changes_is_read_each_time_and_what_lasts_is_read_once(machine, attributor):
    folder = machine.process(4711)
    assert attributor.describe(4711) == PLAIN
    machine.process(4711, ["never", "read"], cpu_s=(60, 5), pages=30_000)
    (folder / "cgroup").unlink()
    assert attributor.describe(4711) == PLAIN | {"cpu_seconds": 65.0, "host_memory_bytes": 30_000 * PAGE_BYTES}


def test_a_pid_given_to_another_process_is_described_anew(machine, attributor):
    machine.process(4711)
    attributor.describe(4711)
    machine.process(4711, ["python3", "serve.py"], start_s=900)
    assert attributor.describe(4711) == PLAIN | {
        "command": "python3 serve.py",
        "started_at": machine.start_us(900),
    }


def test_a_process_that_sets_its_title_is_described_anew_and_keeps_its_start_though_the_clock_was_set(
    machine, attributor
):
    machine.process(4711)
    attributor.describe(4711)
    (machine.proc / "stat").write_text(f"btime {BOOT_S + 3600}\n")
    machine.process(4711, ["ray::Trainer.step"], comm=b"ray::Trainer")
    assert attributor.describe(4711) == PLAIN | {"name": "ray::Trainer", "command": "ray::Trainer.step"}


def test_only_so_many_processes_are_remembered_and_the_one_not_asked_for_the_longest_goes(
    machine, attributor, monkeypatch
):
    monkeypatch.setattr(attribution, "KNOWN_PROCESSES_MAX", 2)
    for pid in (1, 2, 1, 3):
        machine.process(pid)
        attributor.describe(pid)
    for pid in (1, 2, 3):
        machine.process(pid, ["changed"])
    commands = {pid: attributor.describe(pid)["command"] for pid in (1, 3, 2)}
    assert commands == {1: "python3 train.py", 3: "python3 train.py", 2: "changed"}


# --- containers, pods and jobs


@pytest.mark.parametrize(
    ("cgroup", "expected"),
    [
        # Docker
        (f"0::/system.slice/docker-{DOCKER}.scope", {"container_id": DOCKER}),
        (f"12:pids:/docker/{DOCKER}\n11:memory:/docker/{DOCKER}\n0::/system.slice/containerd.service", {"container_id": DOCKER}),
        (f"0::/docker/{DOCKER}/docker/{NESTED}", {"container_id": NESTED}),
        ("0::/docker/0123456789ab", {"container_id": "0123456789ab"}),
        # Kubernetes with containerd and with CRI-O, by systemd and by path
        (
            f"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{POD_IN_SLICE}.slice/cri-containerd-{DOCKER}.scope",
            {"container_id": DOCKER, "pod_uid": POD},
        ),
        (f"4:memory:/kubepods/burstable/pod{POD}/{DOCKER}", {"container_id": DOCKER, "pod_uid": POD}),
        (
            f"0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{POD_IN_SLICE}.slice/crio-{DOCKER}.scope/container",
            {"container_id": DOCKER, "pod_uid": POD},
        ),
        (
            f"1:name=systemd:/system.slice/containerd.service/kubepods-besteffort-pod{POD_IN_SLICE}.slice:cri-containerd:{DOCKER}",
            {"container_id": DOCKER, "pod_uid": POD},
        ),
        (f"0::/kubepods.slice/kubepods-pod{STATIC_POD}.slice/cri-containerd-{DOCKER}.scope", {"container_id": DOCKER, "pod_uid": STATIC_POD}),
        (
            f"0::/docker/{DOCKER}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{POD_IN_SLICE}.slice/cri-containerd-{NESTED}.scope",
            {"container_id": NESTED, "pod_uid": POD},
        ),
        (f"0::/../../kubepods-besteffort-pod{POD_IN_SLICE}.slice/cri-containerd-{DOCKER}.scope", {"container_id": DOCKER, "pod_uid": POD}),
        # Podman
        (f"0::/machine.slice/libpod-{DOCKER}.scope/container", {"container_id": DOCKER}),
        (f"0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{DOCKER}.scope", {"container_id": DOCKER}),
        (f"9:cpu:/libpod_parent/libpod-{DOCKER}", {"container_id": DOCKER}),
        ("9:cpu:/libpod_parent/0123456789abcdef", {"container_id": "0123456789abcdef"}),
        (f"0::/machine.slice/libpod-conmon-{DOCKER}.scope", {}),
        # Slurm
        ("9:cpuset:/slurm/uid_1000/job_1234/step_0\n1:name=systemd:/system.slice/slurmd.service", {"slurm_job_id": "1234"}),
        ("9:memory:/slurm_node17/uid_1000/job_1234/step_batch/task_0", {"slurm_job_id": "1234"}),
        ("0::/slurmstepd.scope/job_1234/step_batch", {"slurm_job_id": "1234"}),
        ("0::/system.slice/node17_slurmstepd.scope/job_1234/step_extern/user/task_special", {"slurm_job_id": "1234"}),
        (
            f"0::/system.slice/slurmstepd.scope/job_1234/step_0/user/task_0/docker-{DOCKER}.scope",
            {"container_id": DOCKER, "slurm_job_id": "1234"},
        ),
        # Nothing of the kind
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/app-podman.scope", {}),
        ("0::/system.slice/system-systemd\\x2dnspawn.slice/systemd-nspawn@web.service/payload", {}),
        ("0::/lxc.payload.web/system.slice/job_77", {}),
        (f"0::/system.slice/docker-{DOCKER[1:]}g.scope", {}),
        ("0::/", {}),
        ("", {}),
    ],
)  # fmt: skip
def test_the_control_group_names_the_container_the_pod_and_the_job(machine, attributor, cgroup, expected):
    machine.process(4711, cgroup=cgroup + "\n")
    assert attributor.describe(4711) == PLAIN | expected


# --- the command line


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["serve", "--token=abc", "--port", "80"], "serve --token=*** --port 80"),
        (["serve", "--api-key", "abc", "--port", "80"], "serve --api-key *** --port 80"),
        (["serve", "--password", "my long secret", "x"], "serve --password *** x"),
        (["serve", "--password=my long secret", "x"], "serve --password=*** x"),
        (["serve", "-token", "abc"], "serve -token ***"),
        (["serve", "--hf-token", "-abc"], "serve --hf-token ***"),
        (["serve", "--apiKey", "abc"], "serve --apiKey ***"),
        (["serve", "--secret-key", "abc"], "serve --secret-key ***"),
        (["serve", "--use-auth-token", "--model", "m"], "serve --use-auth-token --model m"),
        (["serve", "--auth", "--api-key", "abc"], "serve --auth --api-key ***"),
        (["serve", "--auth", "--API-KEY", "abc"], "serve --auth *** ***"),
        (["env", "HF_TOKEN=abc", "AWS_SECRET_ACCESS_KEY=abc", "A=b", "serve"], "env HF_TOKEN=*** AWS_SECRET_ACCESS_KEY=*** A=b serve"),
        (["env", "PGPASSWORD=abc", "MYSQL_PWD=abc", "OPENAI_APIKEY=abc"], "env PGPASSWORD=*** MYSQL_PWD=*** OPENAI_APIKEY=***"),
        (["java", "-Ddb.password=abc"], "java -Ddb.password=***"),
        (["train.py", "trainer.wandb.api_key=abc", "trainer.lr=1"], "train.py trainer.wandb.api_key=*** trainer.lr=1"),
        (["bash", "-c", "cd /w && TOKEN=abc python train.py"], "bash -c cd /w && TOKEN=***"),
        (["bash", "-c", "python serve.py --api-key abc --port 80"], "bash -c python serve.py --api-key ***"),
        (["bash", "-c", "set -e\nexport\tTOKEN=abc"], "bash -c set -e export TOKEN=***"),
        (["serve", '--config={"api_key": "abc", "model": "m"}'], 'serve --config={"api_key":***'),
        (["curl", "-H", "Authorization: Basic YWJj", "http://h"], "curl -H Authorization:*** http://h"),
        (["curl", "-H", "Authorization:", "Bearer", "abc", "http://h"], "curl -H Authorization: *** *** http://h"),
        (["curl", "--auth=Bearer", "abc", "x"], "curl --auth=*** *** x"),
        (["curl", "-H", "X-Auth: Bearer abc"], "curl -H X-Auth:***"),
        (["echo", "Bearer abc"], "echo Bearer ***"),
        (["echo", "Bearer", "abc"], "echo Bearer ***"),
        (["psql", "postgres://me:abc@host/db"], "psql postgres://me:***@host/db"),
        (["redis", "redis://:a@bc@host:6379"], "redis redis://:***@host:6379"),
        (["get", "https://h/x?a=1&api_key=abc&b=2"], "get https://h/x?a=1&api_key=***"),
        (["login", "hf_abcdefghijklmnopqrstuvwxyz012345"], "login ***"),
        (["login", "sk-proj-abc_def-0123456789"], "login ***"),
        (["login", "ghp_0123456789abcdefghij", "nvapi-0123456789abcdefghij"], "login *** ***"),
        (["login", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln"], "login ***"),
        (["serve", "--token"], "serve --token"),
        (["serve", "--token", "", "x"], "serve --token *** x"),
    ],
)  # fmt: skip
def test_a_command_is_shown_without_its_secrets(machine, attributor, argv, expected):
    machine.process(4711, argv)
    assert attributor.describe(4711)["command"] == expected


@pytest.mark.parametrize(
    "command",
    [
        "vllm serve meta-llama/Llama-3-8B --max-num-batched-tokens 8192 --max-tokens 4096 --tokenizer m",
        "train.py --pad-token-id 0 --num-tokens=1000000 --token-budget 7 --authors me --monkey=banana",
        "serve --api-key-file /run/secrets/key --auth-type basic --ssl-keyfile=/etc/key.pem",
        "python -c import secrets, tokenize; print(1)",
        "serve http://localhost:8000/v1 --host 0.0.0.0:8000 --user me@host",
        "task-runner disk-usage sk-learn hf_hub",
    ],
)
def test_what_only_resembles_a_secret_is_shown(command):
    assert redacted(command.split()) == command


def test_a_long_command_is_cut_at_1024_characters(machine, attributor):
    machine.process(4711, ["x" * 2000])
    assert attributor.describe(4711)["command"] == "x" * 1024


def test_of_an_endless_command_the_word_in_which_reading_stopped_is_not_shown(machine, attributor):
    machine.process(4711, ["serve", f"--token={'t' * 16_000}", "https://me:" + "p" * 1000 + "@host"])
    assert attributor.describe(4711)["command"] == "serve --token=***"


def test_text_that_would_turn_or_control_a_terminal_is_shown_plain(machine, attributor):
    machine.process(4711, ["a\x1b[31mb", "c\u202ed\u2066", "e\r\nf", "\udcff", "ä€"], comm=b"\x1b[2Jx\xe2\x80\xaey\xff")
    assert attributor.describe(4711) == PLAIN | {"name": "[2Jx y\ufffd", "command": "a [31mb c d e f \ufffd ä€"}


# --- for anything at all

FILES = ("stat", "cmdline", "status", "cgroup")
ANY_BYTES = st.binary(max_size=300)
ODD_TEXT = st.text(st.one_of(st.characters(), st.sampled_from("\x1b\x00\n\t\u202e\u2066\u200f\u061c=:-\"' "))).map(
    lambda text: text.encode(errors="surrogatepass")
)


def controls(text):
    return [char for char in text if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"}]


@settings(deadline=None)  # on a busy disk a folder takes its time
@given(st.fixed_dictionaries(dict.fromkeys((*FILES, "boot"), st.one_of(ANY_BYTES, ODD_TEXT, st.none()))))
def test_whatever_is_in_the_files_a_description_comes_of_it(contents):
    with tempfile.TemporaryDirectory() as name:
        proc = Path(name)
        (proc / "7").mkdir()
        places = {file: proc / "7" / file for file in FILES} | {"boot": proc / "stat"}
        for file, raw in contents.items():
            if raw is not None:
                places[file].write_bytes(raw)
        attributor = Attributor(proc)
        told = attributor.describe(7)
        assert told["process_visible"] is (contents["stat"] is not None)
        assert attributor.describe(7) == told


@settings(deadline=None)  # on a busy disk a folder takes its time
@given(st.lists(st.integers(0, 10**400), min_size=22, max_size=22), ODD_TEXT)
def test_whatever_numbers_a_stat_has_a_description_comes_of_it(numbers, comm):
    with tempfile.TemporaryDirectory() as name:
        machine = Machine(Path(name))
        folder = machine.process(7)
        (folder / "stat").write_bytes(b"7 (%b) S %b" % (comm, " ".join(map(str, numbers)).encode()))
        told = Attributor(machine.proc).describe(7)
        assert told["process_visible"] is True
        assert controls(told.get("name", "")) == []


@given(st.one_of(ANY_BYTES, ODD_TEXT, st.lists(ODD_TEXT).map(b"\0".join), st.binary(min_size=16_384, max_size=17_000)))
def test_no_command_is_too_long_or_has_a_control_or_direction_character(raw):
    command = attribution._command(raw[: attribution._COMMAND_BYTES_MAX]) or ""
    assert len(command) <= COMMAND_CHARACTERS_MAX
    assert controls(command) == []


LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
SECRET = st.text(LETTERS, min_size=10, max_size=30).map(lambda text: f"Zq{text}7X")  # not to be met by chance
SECRET_WORD = st.sampled_from(["token", "secret", "password", "passwd", "api_key", "apikey", "credential", "auth"])
PREFIX = st.sampled_from(["", "hf-", "my_", "x.", "DB_", "wandb-"])
NAME = st.tuples(PREFIX, SECRET_WORD, st.sampled_from([str.lower, str.upper, str.title])).map(
    lambda parts: parts[2](parts[0] + parts[1])
)
FLAG = NAME.map(lambda name: f"--{name.replace('_', '-')}")
PREFIXES = st.sampled_from(["hf_", "ghp_", "github_pat_", "sk-", "sk-proj-", "nvapi-", "xoxb-", "--x=hf_"])


def planted(where, *parts):
    """A secret and the arguments that it is put into, by `where(*parts, secret)`."""
    return st.tuples(*parts, SECRET).map(lambda values: (values[-1], where(*values)))


PLANTED = st.one_of(
    planted(lambda flag, secret: [f"{flag}={secret}"], FLAG),
    planted(lambda flag, secret: [flag, secret], FLAG),
    planted(lambda flag, secret: [flag, f"two words {secret}"], FLAG),
    planted(lambda flag, secret: [f"srun bash {flag} {secret}"], FLAG),
    planted(lambda name, secret: [f"{name}={secret}"], NAME),
    planted(lambda name, secret: [f"cd x\n{name} = '{secret}'"], NAME),
    planted(lambda name, secret: [f'{{"a": 1, "{name}": "{secret}"}}'], NAME),
    planted(lambda name, secret: [f"X-{name}: {secret}"], NAME),
    planted(lambda secret: [f"Authorization: Bearer {secret}"]),
    planted(lambda secret: [f"echo Bearer {secret}"]),
    planted(lambda secret: ["bearer", secret]),
    planted(lambda secret: [f"postgresql://user:{secret}@host:5432/db"]),
    planted(lambda secret: [f"https://:x@{secret}@host"]),
    planted(lambda prefix, secret: [f"{prefix}{secret}"], PREFIXES),
)
ARGUMENTS = st.lists(
    st.one_of(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
        st.sampled_from(
            ["--token", "-auth", "--API-KEY", "Bearer", "Authorization:", "password=", "=", '"', "--", "://"]
        ),
    ),
    max_size=4,
)


def bytes_of(*arguments):
    return b"".join(argument.encode() + b"\0" for argument in arguments)


@given(ARGUMENTS, PLANTED, ARGUMENTS)
def test_a_planted_secret_never_survives_in_any_form_that_is_recognised(before, planted, after):
    secret, arguments = planted
    assert secret not in (attribution._command(bytes_of(*before, *arguments, *after)) or "")


@given(FLAG, SECRET, st.booleans())
def test_the_name_of_the_flag_stays_where_its_secret_is_hidden(flag, secret, is_one_argument):
    arguments = [f"{flag}={secret}"] if is_one_argument else [flag, secret]
    expected = f"run {flag}=*** x" if is_one_argument else f"run {flag} *** x"
    assert attribution._command(bytes_of("run", *arguments, "x")) == expected
