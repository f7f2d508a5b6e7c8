"""Requests out of files: each stored once, those that are none refused with their place."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpuledger import importing
from query.reading.local_source import LocalSource

HEADER = "started_at,duration_seconds,operation,input_tokens,output_tokens,status\n"
GOOD = "2026-11-23T12:00:00Z,1.5,chat,10,20,ok\n"


def stored(gpuledger, columns="*"):
    done = gpuledger("sql", f"select {columns} from request order by started_at, seq", "--json", "--tz", "UTC")
    return json.loads(done.stdout)


def rows(answer):
    return answer["rows"] if isinstance(answer, dict) else answer


@pytest.fixture
def file(recorded):
    def write(name, text):
        path = recorded.home / name
        path.write_text(text)
        return str(path)

    return write


def test_a_file_given_twice_is_stored_once_also_after_it_was_sealed(recorded, file):
    path = file("r.csv", HEADER + GOOD * 3)
    assert (
        recorded("import", path, "--dry-run").stdout
        == f"{path}: 3 requests would be stored, 0 there already, 0 refused\n"
    )
    assert (
        recorded("import", path, "--service", "chat").stdout
        == f"{path}: 3 requests stored, 0 there already, 0 refused\n"
    )
    recorded("seal")
    assert recorded("import", path).stdout == f"{path}: 0 requests stored, 3 there already, 0 refused\n"
    columns = "source, service, operation, duration_seconds, input_tokens, status"
    assert (
        rows(stored(recorded, columns))
        == [
            {
                "source": "file",
                "service": "chat",
                "operation": "chat",
                "duration_seconds": 1.5,
                "input_tokens": 10,
                "status": "ok",
            }
        ]
        * 3
    )


def test_a_row_that_is_no_request_is_refused_with_its_place_and_the_others_are_kept(recorded, file):
    bad = "2026-11-23T12:00:00Z,1.5,chat,many,20,ok\n,1.5,chat,1,1,ok\n2026-11-23T12:00:00Z,-1,chat,1,1,ok\n"
    path = file("r.csv", HEADER + GOOD + bad + "2026-11-23T12:00:00Z,1,chat,1,1,fine\n")
    done = recorded("import", path, code=1)
    assert done.stdout == f"{path}: 1 requests stored, 0 there already, 4 refused\n"
    assert done.stderr.splitlines() == [
        f"gpuledger: {path} row 2: input_tokens cannot be 'many'",
        f"gpuledger: {path} row 3: it does not say when: give two of started_at, ended_at and duration_seconds",
        f"gpuledger: {path} row 4: duration_seconds cannot be '-1'",
        f"gpuledger: {path} row 5: status cannot be 'fine'",
    ]


def test_a_row_that_says_only_when_it_was_noted_is_told_what_is_missing(recorded, file):
    path = file("r.csv", "observed_at,operation\n2026-11-23T12:00:00Z,chat\n")
    done = recorded("import", path, code=1)
    assert done.stderr == (
        f"gpuledger: {path} row 1: observed_at says when it was noted, not when it ran: "
        "add two of started_at, ended_at and duration_seconds\n"
    )


def test_what_another_import_of_the_file_stored_meanwhile_is_not_stored_again(recorded, file, monkeypatch):
    """Both looked before either wrote: the ledger itself knows the rows by their source and identity."""
    path = Path(file("r.csv", HEADER + GOOD * 3))
    monkeypatch.setattr(importing, "_known_ids", lambda *_: set())
    source = LocalSource(recorded.data)
    counts = []
    for _ in range(2):
        done = importing.import_file(source, path, time_zone="UTC", service=None, dry_run=False)
        counts.append((done.stored, done.known))
    assert counts == [(3, 0), (0, 3)]
    assert len(rows(stored(recorded))) == 3


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("r.txt", "", "is no file of requests: give one that ends in .json, .csv or .parquet"),
        ("r.csv", "started_at,xyzzy\n", "has a column 'xyzzy' that requests do not have: rename it to a column of request, or leave it out"),
        ("r.csv", "start_at\n", "has a column 'start_at' that requests do not have: did you mean 'started_at'?"),
        ("r.json", "{}", "is no detailed result of 'vllm bench serve' (KeyError: 'input_lens'): make one with --save-result --save-detailed, of a vLLM that saves start_times"),
    ],
)  # fmt: skip
def test_what_is_no_file_of_requests_is_one_sentence(recorded, file, name, text, sentence):
    path = file(name, text)
    assert recorded.error("import", path, code=2) == f"{path} {sentence}"


def test_a_file_that_is_not_there_is_one_sentence(recorded):
    path = str(recorded.home / "none.csv")
    assert recorded.error("import", path, code=2).startswith(f"{path} cannot be read (no such file")


def test_a_damaged_parquet_file_is_one_sentence(recorded, file):
    path = file("r.parquet", "nonsense")
    assert recorded.error("import", path, code=2).startswith(f"{path} cannot be read (")


def test_a_table_in_parquet_keeps_its_types(recorded):
    path = recorded.home / "r.parquet"
    ended = datetime(2026, 11, 23, 12, 0, 1, tzinfo=UTC)
    pq.write_table(pa.table({"ended_at": [ended], "duration_seconds": [0.25], "stream": [True]}), path)
    recorded("import", str(path))
    (row,) = rows(stored(recorded, "epoch_us(started_at) as started_us, duration_seconds, stream"))
    assert row == {"started_us": round(ended.timestamp() * 1e6) - 250_000, "duration_seconds": 0.25, "stream": True}


def test_a_vllm_benchmark_is_its_requests_without_their_texts(recorded, file):
    saved = {
        "date": "20261123-130010",
        "backend": "vllm",
        "model_id": "llama",
        "duration": 10.0,
        "input_lens": [100, 50],
        "output_lens": [3, 0],
        "ttfts": [0.5, 0.0],
        "itls": [[0.25, 0.25], []],
        "start_times": [5000.0, 5002.5],
        "errors": ["", "Traceback my prompt"],
        "generated_texts": ["an answer", ""],
    }
    path = file("bench.json", json.dumps(saved))
    recorded("import", path, "--tz", "Europe/Berlin")
    columns = "epoch_us(started_at) as us, response_model, duration_seconds, time_to_first_token_seconds, time_per_output_token_seconds, status"
    first_us = round(datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC).timestamp() * 1e6)
    assert [list(row.values()) for row in rows(stored(recorded, columns))] == [
        [first_us, "llama", 1.0, 0.5, 0.25, "ok"],
        [first_us + 2_500_000, "llama", 0.0, None, None, "error"],
    ]
    assert "my prompt" not in str(stored(recorded))
