"""What is kept of Parquet files: the right columns, as long as there is room."""

import threading

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from query.catalogue import find_metric
from query.reading import columns
from query.reading.column_cache import ColumnCache
from query.reading.columns import rows_of, values_of
from store.derivations import arrow_schema
from store.events import KINDS

METRIC = find_metric("gpu.power_watts")
ALWAYS = (0, 2**62)


def asked(cache, path, span=ALWAYS):
    return cache.events(path, METRIC.kind, METRIC.column, span)


@pytest.fixture
def path(book):
    book.append(book.gpu(s, power_watts=float(s)) for s in range(60))
    book.seal()
    (path,) = book.folder.rglob("*.parquet")
    return path


def test_what_was_read_is_at_hand_until_there_is_no_room(path):
    roomy, tight = ColumnCache(), ColumnCache(bytes_max=0)
    found = [asked(cache, path) for cache in (roomy, tight)]
    assert [[values.values.tolist() for _, values in one] for one in found] == [[[float(s) for s in range(60)]]] * 2
    path.unlink()
    assert asked(roomy, path) == found[0]
    with pytest.raises(FileNotFoundError):
        asked(tight, path)


def test_the_least_recently_used_is_let_go_first(book):
    for first in (0, 60, 120):
        book.append(book.gpu(s, power_watts=float(s)) for s in range(first, first + 60))
        book.seal()
    paths = sorted(book.folder.rglob("*.parquet"), key=lambda one: int(one.name.split("-")[1]))
    alone = ColumnCache()
    asked(alone, paths[0])
    cache = ColumnCache(bytes_max=int(2.5 * alone.nbytes))
    for path in (paths[0], paths[1], paths[0], paths[2]):
        asked(cache, path)
    assert cache.nbytes <= 2.5 * alone.nbytes
    for path in paths:
        path.unlink()
    assert [values.values[0] for path in (paths[0], paths[2]) for _, values in asked(cache, path)] == [0.0, 120.0]
    with pytest.raises(FileNotFoundError):
        asked(cache, paths[1])


def test_a_row_group_outside_of_the_window_is_not_read(path, book, monkeypatch):
    monkeypatch.setattr(columns, "rows_of", lambda *_: pytest.fail("it was read"))
    after_us = round(book.at(60).timestamp() * 1e6)
    assert asked(ColumnCache(), path, (after_us, after_us + 1)) == []


def test_several_threads_that_ask_at_once_get_the_same(path):
    cache, found = ColumnCache(), []
    threads = [threading.Thread(target=lambda: found.append(asked(cache, path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one[0][1].values.tolist() for one in found] == [[float(s) for s in range(60)]] * 8


def test_a_table_that_lacks_the_column_has_no_values():
    assert len(values_of(pa.table({"seq": [1]}), METRIC.column).values) == 0


@settings(deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["a", "b"]),
            st.none() | st.sampled_from(["GPU-1", "GPU-2", ""]),
            st.none() | st.integers(-(2**31), 2**31 - 1),
            st.none() | st.integers(0, 3),
        ),
        max_size=30,
    )
)
def test_each_row_has_the_key_of_its_own_columns(rows):
    kind = KINDS["gpu_sample"]
    wanted = {"host": 0, "gpu_uuid": 1, "counter_epoch": 2, "gpu_index": 3}
    schema = arrow_schema(kind)
    data = {name: pa.array([row[at] for row in rows], schema.field(name).type) for name, at in wanted.items()}
    data["seq"] = pa.array(range(len(rows)), pa.int64())
    data["observed_at"] = pa.array(range(len(rows)), schema.field("observed_at").type)
    found = rows_of(pa.table(data), kind)
    names = columns.key_names(kind)
    keys = [dict(zip(names, found.keys[code], strict=True)) for code in found.code.tolist()]
    assert [tuple(key[name] for name in wanted) for key in keys] == rows
    assert len(set(found.keys)) == len(found.keys) == len(set(rows))
