"""A segment that cannot be read costs its own events, whatever is asked and however it is damaged."""

import random

import pytest

from query.ad_hoc import run_sql
from query.errors import SqlFailedError
from query.history.trends import trend
from query.reading.local_source import LocalSource
from store.head import open_head


def watts(book):
    found = trend(book.source, "gpu.power_watts", book.window(0, 60), now=book.at(60))
    return sum(one.n for one in found.series)


def count(book, column="*"):
    sql = f"select count({column}) as n from gpu_sample"
    return run_sql(book.source, sql, rows_max=1, time_limit_s=30).table["n"][0].as_py()


@pytest.fixture
def files(book):
    """Three segments of four rows each, and two rows in the tail."""
    for part in range(3):
        book.append(book.gpu(4 * part + s, power_watts=float(s)) for s in range(4))
        book.seal()
    book.append(book.gpu(12 + s, power_watts=float(s)) for s in range(2))
    return sorted(book.folder.glob("events/gpu_sample/**/*.parquet"))


def cut(content):
    return content[: len(content) // 2]


def zeros(content):
    return bytes(len(content))


def garbled_footer(content):
    return content[:-900] + random.Random(1).randbytes(880) + content[-20:]


def garbled_pages(content):
    return content[:4] + random.Random(2).randbytes(len(content) // 2) + content[4 + len(content) // 2 :]


@pytest.mark.parametrize("damage", [cut, zeros, garbled_footer, garbled_pages, lambda _: b""])
@pytest.mark.parametrize("ask", [watts, count, lambda book: count(book, "power_watts")])
def test_the_rest_answers_and_the_damaged_file_is_named(book, files, damage, ask):
    assert ask(book) == 14
    content = files[1].read_bytes()
    files[1].write_bytes(damage(content))
    book.source = LocalSource(book.folder)  # one that has not seen the footer: it would be right not to read it again
    assert ask(book) == 10
    (note,) = book.source.notes()
    assert note.startswith(f"{files[1].relative_to(book.folder)} is left out of answers: ")
    assert note.endswith("; see 'gpuledger verify'")
    assert ask(book) == 10


def test_a_file_that_is_gone_is_left_out(book, files):
    files[0].unlink()
    files[2].unlink()
    assert (watts(book), count(book)) == (6, 6)
    assert len(book.source.notes()) == 2


def test_a_file_that_left_the_catalogue_meanwhile_is_no_damage(book, files):
    reading = book.source.reading(["gpu_sample"])
    with open_head(book.folder) as head:
        head.execute("delete from segment where path like '%/node-1-4-0.parquet'")
    files[0].unlink()
    seen = []

    def ask(snapshot):
        seen.append(len(snapshot["gpu_sample"].files))
        for path in snapshot["gpu_sample"].files:
            path.read_bytes()
        return "answer"

    assert reading.answer(ask) == "answer"
    assert seen == [3, 2]
    assert book.source.notes() == []


def test_after_the_file_was_set_aside_there_is_nothing_to_note(book, files):
    files[1].write_bytes(b"")
    assert watts(book) == 10
    with open_head(book.folder) as head:
        head.execute("delete from segment where path like '%/node-5-8-0.parquet'")
    files[1].unlink()
    assert (watts(book), book.source.notes()) == (10, [])


@pytest.mark.parametrize("sql", ["select wats from gpu_sample", "select error('Parquet') from gpu_sample"])
def test_somebodys_wrong_sql_is_still_wrong_and_blames_no_file(book, files, sql):
    with pytest.raises(SqlFailedError):
        run_sql(book.source, sql, rows_max=1, time_limit_s=30)
    assert book.source.notes() == []
