"""Taking events out: each format, read back, is the events of the window in order of seq."""

import json
import resource
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from query import export
from query.errors import UnknownKindError
from query.export import (
    FORMATS,
    SUFFIXES,
    ExportFolder,
    ExportResult,
    export_events,
    export_into,
    write_table,
)
from store.derivations import arrow_schema
from store.errors import UsageError
from store.events import GPU_SAMPLE, KINDS, REQUEST

STARTED_AT = datetime(2026, 11, 22, 7, 59, 59, 1, UTC)
REQUESTS: list[dict[str, Any]] = [
    {
        "service": 'of, "many"\nsigns',
        "status": "größe 🔥",
        "error_type": "",
        "stream": True,
        "http_status": -1,
        "input_tokens": 2**53 + 1,
        "duration_seconds": 0.1,
        "gpu_uuids": ["GPU-0", "GPU-1"],
        "attributes": '{"k":[1,null]}',
        "started_at": STARTED_AT,
    },
    {"stream": False, "gpu_uuids": ["GPU-1"], "service": "=1+1"},
    {},
    {"duration_seconds": 1e-300, "attributes": "null"},
]


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory, open_book):
    """The requests above, a second apart, of which the window of the tests holds all but a first and a last."""
    book = open_book(tmp_path_factory.mktemp("requests") / "ledger")
    given = [
        values | {"started_at": round(STARTED_AT.timestamp() * 1e6)} if "started_at" in values else values
        for values in REQUESTS
    ]
    book.record(book.event("request", second, **values) for second, values in enumerate([{}, *given, {}]))
    return book


def expected(book) -> list[dict[str, Any]]:
    common = {"host": "node", "boot_id": "boot-1"}
    nothing = dict.fromkeys(column.name for column in REQUEST.columns)
    return [
        nothing | common | values | {"seq": 2 + place, "observed_at": book.at(1 + place)}
        for place, values in enumerate(REQUESTS)
    ]


def exported(book, format: str, path: Path, kind: str = "request", **asked: Any) -> ExportResult:  # noqa: A002
    return export_events(book.source, kind, book.window(1, 5), format=format, path=path, **asked)


def test_parquet_and_arrow_read_back_with_pyarrow_are_the_events_with_their_types(requests, tmp_path: Path):
    exported(requests, "parquet", tmp_path / "x.parquet")
    exported(requests, "arrow", tmp_path / "x.arrow")
    with pa.ipc.open_file(tmp_path / "x.arrow") as reader:
        tables = [pq.read_table(tmp_path / "x.parquet"), reader.read_all()]
    for table in tables:
        assert table.schema.equals(arrow_schema(REQUEST))
        assert table.to_pylist() == expected(requests)


def test_parquet_and_arrow_read_back_with_polars_are_the_events(requests, tmp_path: Path):
    exported(requests, "parquet", tmp_path / "x.parquet")
    exported(requests, "arrow", tmp_path / "x.arrow")
    for frame in (pl.read_parquet(tmp_path / "x.parquet"), pl.read_ipc(tmp_path / "x.arrow")):
        assert frame.to_dicts() == expected(requests)


def test_csv_read_back_is_the_events_with_lists_as_words(requests, tmp_path: Path):
    exported(requests, "csv", tmp_path / "x.csv")
    types = {name: pl.String if kind.is_nested() else kind for name, kind in polars_types(REQUEST).items()}
    frame = pl.read_csv(
        tmp_path / "x.csv", schema_overrides={n: pl.String if k.is_temporal() else k for n, k in types.items()}
    )
    times = [name for name, kind in types.items() if kind.is_temporal()]
    frame = frame.with_columns(pl.col(times).str.to_datetime("%Y-%m-%dT%H:%M:%S%.6f%:z", time_zone="UTC"))
    assert frame.to_dicts() == [
        row | {"gpu_uuids": None if row["gpu_uuids"] is None else " ".join(row["gpu_uuids"])}
        for row in expected(requests)
    ]


def polars_types(kind) -> dict[str, Any]:
    return dict(pl.from_arrow(arrow_schema(kind).empty_table()).schema)


def test_csv_is_what_any_reader_of_csv_takes(requests, tmp_path: Path):
    exported(requests, "csv", tmp_path / "x.csv")
    lines = (tmp_path / "x.csv").read_text().splitlines()
    assert lines[0] == ",".join(column.name for column in REQUEST.columns)
    assert lines[1].startswith("2,2026-11-22T08:00:01.000000+00:00,node,boot-1,")
    assert datetime.fromisoformat(lines[1].split(",")[1]) == requests.at(1)


def test_json_read_back_is_one_event_a_line(requests, tmp_path: Path):
    exported(requests, "json", tmp_path / "x.ndjson")
    rows = [json.loads(line) for line in (tmp_path / "x.ndjson").read_text().splitlines()]
    for row in rows:
        row |= {name: datetime.fromisoformat(row[name]) for name in ("observed_at", "started_at") if row[name]}
    assert rows == expected(requests)


def test_decimals_stay_exact_and_are_numbers_in_json(book, tmp_path: Path):
    book.record(book.gpu(s, energy_joules=s + 0.001, power_watts=0.1) for s in range(1, 4))
    for format in FORMATS:  # noqa: A001
        exported(book, format, tmp_path / format, kind="gpu_sample")
    joules = [Decimal("1.001"), Decimal("2.001"), Decimal("3.001")]
    assert pq.read_table(tmp_path / "parquet")["energy_joules"].to_pylist() == joules
    assert pq.read_table(tmp_path / "parquet").schema.equals(arrow_schema(GPU_SAMPLE))
    rows = [json.loads(line) for line in (tmp_path / "json").read_text().splitlines()]
    assert [(row["energy_joules"], row["power_watts"]) for row in rows] == [(1.001, 0.1), (2.001, 0.1), (3.001, 0.1)]
    frame = pl.read_csv(tmp_path / "csv", columns=["energy_joules", "power_watts"])
    assert frame.rows() == [(1.001, 0.1), (2.001, 0.1), (3.001, 0.1)]


@pytest.mark.parametrize("format", FORMATS)
def test_what_was_written_is_told(requests, tmp_path: Path, format):  # noqa: A002
    path = tmp_path / f"x{SUFFIXES[format]}"
    assert exported(requests, format, path) == ExportResult(path, format, 4, path.stat().st_size)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_which_there_is_nothing_is_a_file_without_events(book, tmp_path: Path, kind, format):  # noqa: A002
    path = tmp_path / "x"
    assert exported(book, format, path, kind=kind).event_count == 0
    if format == "parquet":
        assert pq.read_table(path).equals(arrow_schema(KINDS[kind]).empty_table())
    elif format == "csv":
        assert path.read_text() == f"{','.join(column.name for column in KINDS[kind].columns)}\n"
    elif format == "json":
        assert path.read_text() == ""


def test_events_stand_in_the_order_of_seq_and_not_of_time(book, tmp_path: Path):
    book.record(book.gpu(second) for second in (4, 1, 3, 2, 1.5))
    exported(book, "parquet", tmp_path / "x", kind="gpu_sample")
    table = pq.read_table(tmp_path / "x", columns=["seq", "observed_at"])
    assert table.to_pylist() == [
        {"seq": seq, "observed_at": book.at(second)} for seq, second in enumerate((4, 1, 3, 2, 1.5), start=1)
    ]


def test_a_file_that_is_there_is_not_touched_but_on_request(requests, tmp_path: Path):
    path = tmp_path / "x.csv"
    path.write_text("mine")
    with pytest.raises(UsageError) as refused:
        exported(requests, "csv", path)
    assert str(refused.value) == f"{path} is there already: name another file with --output, or give --overwrite"
    assert path.read_text() == "mine"
    exported(requests, "csv", path, overwrite=True)
    assert path.read_text().startswith("seq,observed_at,")


def test_missing_folders_are_made(requests, tmp_path: Path):
    path = tmp_path / "a" / "b" / "x.csv"
    exported(requests, "csv", path)
    assert path.exists()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("folder", "is a directory"),
        ("file/x", "not a directory"),
        ("n" * 300, "file name too long"),
        ("/proc/nowhere/x", "no such file or directory"),
    ],
)
def test_a_path_that_cannot_be_written_is_said_to_be_so(requests, tmp_path: Path, format, name, reason):  # noqa: A002
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError) as refused:
        exported(requests, format, tmp_path / name, overwrite=True)
    assert str(refused.value) == f"{tmp_path / name} cannot be written ({reason}): name another file with --output"
    assert sorted(tmp_path.iterdir()) == [tmp_path / "file", tmp_path / "folder"]
    assert list((tmp_path / "folder").iterdir()) == []


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("is_there", [False, True])
def test_a_file_is_whole_or_as_it_was(book, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format, is_there):  # noqa: A002
    book.record(book.gpu(1 + s / 1000, power_watts=s / 7) for s in range(3000))
    path = tmp_path / "x"
    if is_there:
        path.write_text("mine")

    def write_to_a_full_disk(*arguments: Any) -> None:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        try:
            write_table(*arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    monkeypatch.setattr(export, "write_table", write_to_a_full_disk)
    with pytest.raises(UsageError, match=r"cannot be written \(file too large"):
        exported(book, format, path, kind="gpu_sample", overwrite=True)
    monkeypatch.undo()
    assert {entry.name: entry.read_text() for entry in tmp_path.iterdir() if entry.is_file()} == (
        {"x": "mine"} if is_there else {}
    )
    assert exported(book, format, path, kind="gpu_sample", overwrite=True).event_count == 3000


def test_an_unknown_kind_is_refused_with_the_nearest(requests, tmp_path: Path):
    with pytest.raises(UnknownKindError) as refused:
        exported(requests, "csv", tmp_path / "x", kind="requests")
    assert str(refused.value) == "There is no kind of event 'requests': did you mean 'request'?"
    assert list(tmp_path.iterdir()) == []


def into(book, asked, folder: Path, bytes_max: int = 1 << 20, *, name: str = "x", format: str = "csv"):  # noqa: A002
    return export_into(
        book.source,
        asked,
        book.window(1, 5),
        format=format,
        name=name,
        folder=ExportFolder(folder, bytes_max),
        time_limit_s=60,
    )


def test_an_agent_gets_a_kind_or_a_query_as_a_new_file_of_its_folder(requests, tmp_path: Path):
    folder = tmp_path / "exports"
    events = into(requests, REQUEST, folder, format="parquet", name="all")
    query = into(requests, "select service, 1 as n from request where stream order by seq", folder)
    assert (events.path, events.event_count, query.event_count) == (folder / "all.parquet", 4, 1)
    assert pq.read_table(events.path).to_pylist() == expected(requests)
    assert (folder / "x.csv").read_text() == 'service,n\n"of, ""many""\nsigns",1\n'


@pytest.mark.parametrize("name", ["", "../x", "/etc/x", "a/b", ".x", "a.b", "x\x00", "x" * 101, "-x", "x\n"])
def test_the_name_of_an_export_leads_nowhere_else(requests, tmp_path: Path, name):
    with pytest.raises(UsageError, match="cannot be the name of an export: give letters, digits, - and _ alone"):
        into(requests, REQUEST, tmp_path / "exports", name=name)
    assert list(tmp_path.iterdir()) == []


def test_exports_never_go_into_the_ledger_by_whatever_way(requests, tmp_path: Path):
    (tmp_path / "link").symlink_to(requests.folder)
    for folder in (requests.folder, requests.folder / "events", tmp_path / "link" / "events"):
        with pytest.raises(UsageError, match=r"lies in the ledger: set mcp\.export_folder to one outside"):
            into(requests, REQUEST, folder)


def test_an_export_never_replaces_a_file_nor_follows_a_link(requests, tmp_path: Path):
    (tmp_path / "x.csv").write_text("kept")
    (tmp_path / "y.csv").symlink_to(tmp_path / "x.csv")
    for name in ("x", "y"):
        with pytest.raises(UsageError, match="is there already"):
            into(requests, REQUEST, tmp_path, name=name)
    assert (tmp_path / "x.csv").read_text() == "kept"


def test_what_does_not_fit_into_the_export_folder_is_not_left_there(requests, tmp_path: Path):
    first = into(requests, REQUEST, tmp_path, name="first")
    with pytest.raises(UsageError) as refused:
        into(requests, REQUEST, tmp_path, first.size_bytes + 10, name="second")
    assert str(refused.value) == (
        f"second.csv would take {first.size_bytes:,} bytes, 10 are left in the export folder: "
        "narrow the window, or remove older exports"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["first.csv"]
    assert into(requests, REQUEST, tmp_path, 2 * first.size_bytes, name="second").event_count == 4


def test_a_query_that_gives_too_much_is_not_exported_in_part(requests, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(export, "QUERY_ROWS_MAX", 3)
    with pytest.raises(UsageError, match="The query gives more than 3 rows: narrow its time range"):
        into(requests, "from range(4)", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_lists_are_one_cell_of_csv_and_what_is_nested_deeper_is_refused(requests, tmp_path: Path):
    into(requests, "select [1, null, 3] as numbers, ['a', 'b'] as words", tmp_path)
    assert (tmp_path / "x.csv").read_text() == "numbers,words\n1 null 3,a b\n"
    for nested in ("{'a': 1}", "[[1]]", "map {'a': 1}"):
        with pytest.raises(UsageError, match="The column c fits no cell of CSV: take json or parquet"):
            into(requests, f"select {nested} as c", tmp_path, name="y")
