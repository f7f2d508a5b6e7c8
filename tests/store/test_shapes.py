"""The published shapes, and the way from an older version of a kind to today's."""

import json
from dataclasses import replace as replaced
from pathlib import Path

import pytest

from query.ad_hoc import run_sql
from query.reading.local_source import LocalSource
from store import shapes
from store.errors import LedgerUnusableError, UsageError
from store.events import ANNOTATION, KINDS, Event, Field, Kind
from store.ledger import Ledger
from store.shapes import extended_lock, lock_text, locked_shapes, shape
from store.times import DAY_US
from store.upkeep.run import upkeep
from store.upkeep.sealing import seal
from store.upkeep.settings import UpkeepSettings


def changed(kind: Kind, *fields: Field, version: int = 1) -> Kind:
    return Kind(kind.name, version, kind.row, kind.cadence, fields)


def test_what_is_declared_is_what_was_published_and_new_columns_are_recorded():
    published = shapes.migrations().joinpath(shapes.LOCK_NAME).read_text()
    assert lock_text(extended_lock(locked_shapes())) == published, "run 'gpuledger docs'"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (ANNOTATION.fields[1:], "annotation.text was published as string label in version 1 and is gone"),
        (
            (Field("text", "int64", "a number now"), *ANNOTATION.fields[1:]),
            "annotation.text was published as string label in version 1 and is now int64 label",
        ),
        (
            (Field("text", "string", "a state now", "", "state"), *ANNOTATION.fields[1:]),
            "annotation.text was published as string label in version 1 and is now string state",
        ),
    ],
)
def test_a_published_shape_that_changed_without_a_new_version_is_refused(monkeypatch, fields, told):
    monkeypatch.setitem(KINDS, "annotation", changed(ANNOTATION, *fields))
    with pytest.raises(UsageError) as refusal:
        extended_lock(locked_shapes())
    assert refusal.value.problem == told
    assert refusal.value.hint == ("give annotation version 2 and write migrations/events/annotation/v1_to_v2.sql")


def test_a_new_column_and_a_new_kind_are_entered(monkeypatch):
    more = Field("mood", "string", "How it was meant.")
    monkeypatch.setitem(KINDS, "annotation", changed(ANNOTATION, *ANNOTATION.fields, more))
    monkeypatch.setitem(KINDS, "moon", replaced(ANNOTATION, name="moon"))
    before, after = locked_shapes(), extended_lock(locked_shapes())
    assert after["annotation"][1] == before["annotation"][1] | {"mood": "string label"}
    assert after["moon"][1] == before["annotation"][1]
    assert {kind: after[kind] for kind in before if kind != "annotation"} == {
        kind: before[kind] for kind in before if kind != "annotation"
    }


def test_a_version_without_a_way_to_it_is_refused(monkeypatch):
    monkeypatch.setitem(KINDS, "annotation", changed(ANNOTATION, *ANNOTATION.fields, version=2))
    with pytest.raises(UsageError, match=r"annotation has no way from version 1 to 2: write migrations/events/"):
        extended_lock(locked_shapes())


@pytest.fixture
def history(tmp_path: Path, monkeypatch):
    """A migrations folder of its own, with annotation in three versions; gives a way to be each of their programs."""
    folder = tmp_path / "migrations"
    (folder / "events/annotation").mkdir(parents=True)
    monkeypatch.setattr(shapes, "migrations", lambda: folder)
    note = {
        1: changed(ANNOTATION, Field("length_feet", "float64", "feet"), Field("who", "string", "author")),
        2: changed(ANNOTATION, Field("length_metres", "float64", "m"), Field("who", "string", "author"), version=2),
        3: changed(ANNOTATION, Field("length_metres", "float64", "m"), Field("author", "string", "a"), version=3),
    }
    (folder / "events/annotation/v1_to_v2.sql").write_text(
        "select * exclude (length_feet), length_feet * 0.3048 as length_metres\nfrom {relation};\n"
    )
    (folder / "events/annotation/v2_to_v3.sql").write_text(
        "-- {'a': 1} is no fragment\nselect * rename (who as author) from {relation}\n"
    )
    lock = folder / "schema.lock.json"
    lock.write_text("{}")

    def be(version: int) -> None:
        for known in range(1, version + 1):
            monkeypatch.setitem(KINDS, "annotation", note[known])
            lock.write_text(lock_text(extended_lock(locked_shapes())))
        shapes._older_shape.cache_clear()

    yield be
    shapes._older_shape.cache_clear()


def test_sealed_files_and_frames_of_every_version_are_read_as_todays(history, folder):
    with Ledger(folder) as ledger:
        history(1)
        ledger.append([Event("annotation", 1, {"length_feet": 10.0, "who": "Ada"})])
        seal(folder)
        ledger.append([Event("annotation", 2, {"length_feet": 20.0})])
        history(2)
        ledger.append([Event("annotation", 3, {"length_metres": 3.0, "who": "Ben"})])
        history(3)
        ledger.append([Event("annotation", 4, {"length_metres": 4.0, "author": "Cas"})])
    expected = [(1, 3.048, "Ada"), (2, 6.096, None), (3, 3.0, "Ben"), (4, 4.0, "Cas")]

    def rows():
        source = LocalSource(folder)
        found = run_sql(source, "select * from annotation order by seq", rows_max=99, time_limit_s=30).table
        source.close()
        assert found.column_names == ["seq", "observed_at", "host", "boot_id", "length_metres", "author"]
        return [(row["seq"], pytest.approx(row["length_metres"]), row["author"]) for row in found.to_pylist()]

    assert rows() == expected
    seal(folder)  # frames of an older version are sealed as what they are
    versions = [path.relative_to(folder / "events/annotation").parts[0] for path in folder.rglob("*.parquet")]
    assert sorted(versions) == ["v=1", "v=1", "v=2", "v=3"]
    assert rows() == expected
    done = upkeep(folder, UpkeepSettings(), now_us=2 * DAY_US)  # nor does a merge make them anything else
    assert [(output.version, output.event_count) for _, output in done.merged] == [(1, 2)]
    assert rows() == expected


def test_segments_of_a_newer_program_are_left_as_they_are(history, folder):
    history(2)
    with Ledger(folder) as ledger:
        for number in range(2):
            ledger.append([Event("annotation", number, {"length_metres": 3.0})])
            seal(folder)
    history(1)
    done = upkeep(folder, UpkeepSettings(), now_us=2 * DAY_US)
    assert (done.merged, done.set_aside, done.problems) == ([], [], [])
    assert len(list((folder / "events").rglob("*.parquet"))) == 2


def test_events_of_a_newer_program_are_refused_with_the_versions(history, folder):
    history(2)
    with Ledger(folder) as ledger:
        ledger.append([Event("annotation", 3, {"length_metres": 3.0})])
    history(1)
    source = LocalSource(folder)
    with pytest.raises(LedgerUnusableError) as refusal:
        source.reading(["annotation"])
    source.close()
    assert str(refusal.value) == (
        "The ledger holds events of annotation in version 2, of a newer gpuledger (known here: 1): "
        "upgrade gpuledger: 'pip install --upgrade gpuledger'"
    )
    with pytest.raises(LedgerUnusableError):
        seal(folder)
    with pytest.raises(LedgerUnusableError, match="the kind is not known here"):
        shape("moon", 1)


def test_the_lock_is_plain_json_by_kind_and_version():
    assert list(json.loads(lock_text(locked_shapes()))) == list(locked_shapes())
