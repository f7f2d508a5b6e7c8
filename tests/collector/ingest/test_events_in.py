"""`/ingest/events` and what all ways in share: what is taken, what is refused, what is told of it."""

import gzip
import json

import pytest

from collector.ingest import face as face_module
from collector.ingest.face import is_here
from collector.ingest.reading import BODY_BYTES_MAX, EVENTS_MAX

PATH = "/ingest/events"


def test_a_request_is_stored_with_what_follows_from_it(face, now_us):
    sent = {
        "kind": "request",
        "observed_at": now_us,
        "source": "asgi",
        "source_event_id": "r-1",
        "service": "chat",
        "duration_seconds": 2.0,
        "time_to_first_token_seconds": 0.5,
        "output_tokens": 16,
        "http_status": 200,
    }
    assert face.send(PATH, sent) == (200, {"stored": 1, "repeated": 0, "rejected": 0, "errors": []})
    (row,) = face.rows()
    times = {name: row.pop(name).timestamp() for name in ("started_at", "ended_at", "observed_at")}
    assert times["ended_at"] == times["observed_at"] == now_us / 1e6
    assert times["ended_at"] - times["started_at"] == pytest.approx(2.0, abs=1e-5)
    assert row.pop("event_id")[14] == "7"
    assert row.pop("boot_id")
    expected = {**sent, "seq": 1, "host": "spark-1", "status": "ok", "time_per_output_token_seconds": 0.1}
    assert row == {name: value for name, value in expected.items() if name not in ("kind", "observed_at")}


def test_bad_events_are_told_with_their_place_and_the_good_ones_kept(face, now_us):
    lines = [
        {"kind": "request", "service": "a"},
        {"kind": "request", "servise": "a"},
        {"kind": "gpu_sample", "gpu_uuid": "GPU-1"},
        {"kind": "ledger_event", "event": "stop"},
        {"kind": "request", "seq": 7},
        {"kind": "request", "host": "another"},
        {"kind": "request", "duration_seconds": -1},
        {"kind": "request", "status": "fine"},
        {"kind": "request", "observed_at": "2026-11-23T12:00:00"},
        {"kind": "request", "observed_at": now_us + 7_200_000_000},
        {"kind": "request", "observed_at": 0},
        {"kind": "annotation"},
        {"kind": "annotation", "text": "driver upgraded", "tags": ["driver"]},
        {"kind": "request", "service": "x" * 1025},
        {"service": "a"},
        3,
    ]
    body = "\n\n".join(map(json.dumps, lines)) + "\n{"
    status, answer = face.send(PATH, body)
    assert (status, answer["stored"], answer["repeated"], answer["rejected"]) == (200, 2, 0, 15)
    assert answer["errors"] == [
        "line 3: object contains unknown field servise",
        "line 5: invalid value 'gpu_sample' in kind",
        "line 7: invalid value 'ledger_event' in kind",
        "line 9: object contains unknown field seq",
        "line 11: object contains unknown field host",
        "line 13: expected float >= 0.0 in duration_seconds",
        "line 15: invalid enum value 'fine' in status",
        "line 17: expected datetime with a timezone component in observed_at",
        "line 19: the event lies more than an hour in the future: see to the sender's clock",
        "line 21: the event is older than 400 days",
        "line 23: object missing required field text",
        "line 27: expected str of length <= 1024 in service",
        "line 29: object missing required field kind",
        "line 31: expected object, got int",
        "line 32: input data was truncated",
    ]
    assert [row["service"] for row in face.rows()] == ["a"]
    assert [(row["text"], row["tags"]) for row in face.rows("annotation")] == [("driver upgraded", ["driver"])]


def test_an_array_is_taken_apart_event_by_event(face):
    status, answer = face.send(PATH, [{"kind": "request"}, {"kind": "nothing"}, {"kind": "request"}])
    assert (status, answer["stored"], answer["errors"]) == (200, 2, ["event 2: invalid value 'nothing' in kind"])


def test_a_body_without_a_good_event_is_a_bad_request(face):
    status, answer = face.send(PATH, [{"kind": "nothing"}])
    assert (status, answer["stored"], answer["rejected"]) == (400, 0, 1)
    assert face.send(PATH, "[{]") == (
        400,
        {"error": "The body is no JSON array (JSON is malformed: expected '\"' (byte 2))"},
    )
    assert face.send(PATH, "")[0] == 200


def test_a_server_sample_keeps_its_histograms(face):
    histogram = {"bounds": [0.1, 1.0], "counts": [3, 2, 1], "sum": 4.5, "count": 6}
    sample = {"kind": "server_sample", "server_address": "vllm:8000", "queue_histogram": histogram}
    assert face.send(PATH, sample)[0] == 200
    estimated = {"p50": 0.1, "p90": 1.0, "p95": 1.0, "p99": 1.0}
    kept = json.loads(face.rows("server_sample")[0]["queue_histogram"])
    assert kept == {**histogram, "estimated": estimated}
    again = {**sample, "queue_histogram": {**kept, "estimated": {"p50": 7.0}}}  # what a sender estimates is not taken
    assert face.send(PATH, again)[0] == 200
    assert json.loads(face.rows("server_sample")[1]["queue_histogram"]) == kept


@pytest.mark.parametrize(("bounds", "counts"), [([1.0], [1]), ([2.0, 1.0], [1, 1, 1]), ([], [])])
def test_a_histogram_whose_buckets_do_not_fit_is_refused(face, bounds, counts):
    sample = {"kind": "server_sample", "server_address": "a", "queue_histogram": {"bounds": bounds, "counts": counts}}
    told = "line 1: queue_histogram needs bounds that rise, and one count more than there are bounds"
    assert face.send(PATH, sample)[1]["errors"] == [told]


def test_texts_of_prompts_and_answers_and_secrets_are_not_stored(face):
    sent = {
        "kind": "request",
        "error_message": "upstream said no to Authorization: Bearer sk-abcdefghijklmnopqrst\n" + "at line 1 " * 100,
        "attributes": {
            "prompt": "the prompt",
            "gen_ai.input.messages": "the prompt",
            "llm.completions.0.content": "the answer",
            "nested": {"deep": "the prompt"},
            "retries": 2,
            "queue": "fast --api-key=abcdef",
        },
    }
    assert face.send(PATH, sent)[0] == 200
    (row,) = face.rows()
    assert (row["status"], len(row["error_message"])) == ("error", 200)
    assert row["error_message"].startswith("upstream said no to Authorization: *** *** at line 1")
    assert json.loads(row["attributes"]) == {"retries": 2, "queue": "fast --api-key=***"}


def test_attributes_end_at_four_kilobytes(face):
    attributes = {f"key-{number}": "x" * 150 for number in range(100)}
    assert face.send(PATH, {"kind": "request", "attributes": attributes})[0] == 200
    kept = face.rows()[0]["attributes"]
    assert 3900 < len(kept) <= 4096
    assert len(json.loads(kept)) > 20


# --- sent again


def test_what_is_sent_again_is_stored_once(face):
    event = {"kind": "request", "source": "asgi", "source_event_id": "r-1"}
    assert face.send(PATH, event)[1]["stored"] == 1
    assert face.send(PATH, [event, {**event, "source_event_id": "r-2"}])[1] == {
        "stored": 1,
        "repeated": 1,
        "rejected": 0,
        "errors": [],
    }
    without_id = [{"kind": "annotation", "text": "a"}]
    counts = [face.send(PATH, without_id, idempotency_key=key)[1]["stored"] for key in ("k", "k", "l")]
    assert counts == [1, 0, 1]
    assert (len(face.rows()), len(face.rows("annotation"))) == (2, 2)


def test_a_key_that_is_too_long_is_refused(face):
    assert face.send(PATH, [], idempotency_key="k" * 256) == (
        400,
        {"error": "The Idempotency-Key has more than 255 characters: send a shorter one"},
    )


# --- bounds


def test_a_compressed_body_is_unpacked_and_one_that_unpacks_to_too_much_is_refused(face):
    assert face.send(PATH, gzip.compress(b'{"kind":"request"}'), content_encoding="gzip")[1]["stored"] == 1
    bomb = b" " * (BODY_BYTES_MAX + 1)
    too_large = {"error": "The body has more than 8 MiB: send fewer events at once"}
    assert face.send(PATH, gzip.compress(bomb), content_encoding="gzip") == (413, too_large)
    assert face.send(PATH, bomb) == (413, too_large)
    assert face.send(PATH, {}, content_encoding="br")[0] == 415


def test_a_compressed_body_that_is_damaged_is_refused(face):
    damaged = "The body is no gzip (Error -3 while decompressing data: incorrect header check): send it again"
    assert face.send(PATH, b"damaged", content_encoding="gzip") == (400, {"error": damaged})
    cut = gzip.compress(b'{"kind":"request"}')[:-9]
    told = {"error": "The body ends before its gzip does: send it again"}
    assert face.send(PATH, cut, content_encoding="gzip") == (400, told)


def test_more_events_than_a_body_may_have_are_refused(face):
    line = '{"kind":"request"}\n'
    told = {"error": "The body holds more than 20,000 events: send fewer at once"}
    assert face.send(PATH, line * (EVENTS_MAX + 1)) == (413, told)
    assert face.send(PATH, "[" + "{}," * EVENTS_MAX + "{}]") == (413, told)


def test_a_flood_is_told_to_come_back_and_nothing_that_was_acknowledged_is_lost(face, monkeypatch):
    monkeypatch.setattr("collector.ingest.intake.WAITING_BYTES_MAX", 100)
    status, headers, answer = face.post(PATH, {"kind": "request", "service": "x" * 200})
    assert (status, headers["retry-after"]) == (429, "1")
    assert json.loads(answer) == {"error": "More is sent than can be written: send it again in a moment"}
    monkeypatch.undo()
    assert face.send(PATH, {"kind": "request"})[0] == 200  # the room was given back


def test_what_came_is_counted_as_it_was_answered(face):
    event = {"kind": "request", "source": "a", "source_event_id": "1"}
    sample = {"kind": "server_sample", "server_address": "a:1"}
    body = json.dumps([event, sample, {"kind": "nothing"}])
    assert face.send(PATH, body)[0] == face.send(PATH, json.dumps(event))[0] == 200
    assert face.send("/v1/traces", "{")[0] == 400
    tally = face.door.tally
    assert tally.events == {(PATH, "accepted"): 2, (PATH, "refused"): 1, (PATH, "repeated"): 1}
    assert tally.body_bytes == {PATH: len(body) + len(json.dumps(event)), "/v1/traces": 1}
    assert tally.refusals == {("/v1/traces", "400"): 1}
    assert [row.values["server_address"] for row in face.door.servers.standing(0)] == ["a:1"]


# --- who may send


def test_a_web_page_may_not_send(face):
    assert face.send(PATH, {"kind": "request"}, origin="https://example.com")[0] == 403
    assert face.rows() == []


def test_a_sender_from_elsewhere_must_show_the_token(face, monkeypatch):
    monkeypatch.setattr(face_module, "is_here", lambda _: False)
    status, headers, answer = face.post(PATH, {"kind": "request"})
    assert (status, headers["www-authenticate"]) == (401, "Bearer")
    assert "Authorization: Bearer <content of ingest.token in the ledger folder>" in json.loads(answer)["error"]
    assert face.send(PATH, {"kind": "request"}, authorization="Bearer another")[0] == 401
    assert face.send(PATH, {"kind": "request"}, authorization="Bearer the-token")[0] == 200


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("10.0.0.1", False),
        ("0.0.0.0", False),
        ("::", False),
        ("::ffff:10.0.0.1", False),
        ("spark-1.local", False),
    ],
)
def test_which_addresses_are_this_machine(address, expected):
    assert is_here(address) is expected


# --- the disk


def test_a_full_disk_is_told_and_gone_when_there_is_room(face):
    face.free_bytes = 50_000_000
    status, headers, answer = face.post(PATH, {"kind": "request"})
    assert (status, headers["retry-after"]) == (503, "10")
    told = "The ledger's disk has 50 MB left: nothing is written until there is more"
    assert json.loads(answer) == {"error": told}
    face.free_bytes = 10**12
    assert face.send(PATH, {"kind": "request"})[0] == 200
    assert len(face.rows()) == 1


def test_when_the_disk_is_nearly_full_samples_of_servers_are_shed_and_requests_kept(face):
    face.free_bytes = 300_000_000
    body = [{"kind": "request"}, {"kind": "server_sample", "server_address": "a:1"}]
    status, answer = face.send(PATH, body)
    assert (status, answer["stored"], answer["rejected"]) == (200, 1, 1)
    assert answer["errors"] == ["the disk is nearly full: samples of servers are not written until there is more room"]


def test_after_its_end_it_takes_nothing_more(face):
    assert face.send(PATH, {"kind": "request"})[0] == 200
    face.intake.close()
    status, headers, _ = face.post(PATH, {"kind": "request"})
    assert (status, headers["retry-after"]) == (503, "10")
    assert len(face.rows()) == 1
