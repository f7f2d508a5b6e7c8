"""The newest rows that stay at hand are those that an engine finds, whatever happened between two questions."""

import pytest

from query.reading.newest_rows import NewestQuestion

COLUMNS = ("seq", "observed_at", "host", "gpu_uuid", "gpu_index", "power_watts")


def question(book, start_s=0.0):
    start_us = round(book.at(start_s).timestamp() * 1e6)
    return NewestQuestion("gpu_sample", COLUMNS, ("host", "gpu_uuid"), start_us)


def watts(rows):
    return sorted((row["gpu_uuid"], row["power_watts"]) for row in rows)


def of_engine(book, asked):
    with book.source.engine(("gpu_sample",), start_us=asked.start_us) as engine:
        return watts(asked.ask(engine))


def append_one(book):
    book.append([book.gpu(30, 0, power_watts=30.0)])


def append_and_seal(book):
    append_one(book)
    book.seal()


def seal_what_is_known(book):
    book.seal()


def a_gpu_appears(book):
    book.append([book.gpu(30, 7, power_watts=7.0)])


def an_older_row_comes_late(book):
    book.append([book.gpu(5, 0, power_watts=5.0)])


STEPS = (append_one, append_and_seal, seal_what_is_known, a_gpu_appears, an_older_row_comes_late)


@pytest.mark.parametrize("steps", [*[(step,) for step in STEPS], STEPS, STEPS[::-1]])
def test_what_is_at_hand_is_what_an_engine_finds(book, steps):
    book.record(book.gpu(second, gpu, power_watts=10.0 * gpu + second) for second in range(10, 20) for gpu in range(2))
    assert watts(book.source.newest(question(book))) == [("GPU-0", 19.0), ("GPU-1", 29.0)]
    for step in steps:
        step(book)
        asked = question(book)
        assert watts(book.source.newest(asked)) == of_engine(book, asked), step.__name__


def test_a_second_question_asks_no_engine_while_nothing_new_was_sealed(book, monkeypatch):
    book.append([book.gpu(10, power_watts=1.0)])
    book.source.newest(question(book))
    book.append([book.gpu(11, power_watts=2.0)])
    monkeypatch.setattr(book.source, "engine", None)
    assert watts(book.source.newest(question(book))) == [("GPU-0", 2.0)]


def test_what_lies_before_the_time_asked_for_is_left_out(book):
    book.append([book.gpu(10, 0, power_watts=1.0), book.gpu(20, 1, power_watts=2.0)])
    assert watts(book.source.newest(question(book))) == [("GPU-0", 1.0), ("GPU-1", 2.0)]
    assert watts(book.source.newest(question(book, start_s=15))) == [("GPU-1", 2.0)]
