"""The tail stays at hand: whatever is appended and sealed between two questions, each event is in the answer once."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from query.history.trends import trend
from query.reading import tail_columns
from query.reading.local_source import LocalSource


def answer(book, source, metric="gpu.power_watts"):
    found = trend(source, metric, book.window(0, 1000), now=book.at(1000))
    return [(one.label, one.n, one.last, one.points) for one in found.series]


STEPS = st.lists(st.sampled_from(["append", "append another", "append without", "seal", "ask", "import"]), max_size=12)


@settings(max_examples=40, deadline=None)
@given(steps=STEPS)
def test_what_was_asked_before_changes_no_answer(steps, tmp_path_factory, open_book: Callable[[Path], object]):
    book = open_book(tmp_path_factory.mktemp("tail") / "ledger")
    for number, step in enumerate([*steps, "ask"]):
        if step == "ask":
            fresh = LocalSource(book.folder)
            for metric in ("gpu.power_watts", "gpu.energy_joules"):
                assert answer(book, book.source, metric) == answer(book, fresh, metric)
            fresh.close()
        elif step == "seal":
            book.seal()
        else:
            gpu = 1 if step == "append another" else 0
            second = 10 * number - (35 if step == "import" else 0)
            values = {} if step == "append without" else {"power_watts": number + 0.5, "energy_joules": 10.0 * number}
            book.append([book.gpu(second + at, gpu, **values) for at in range(3)])


def test_a_question_decodes_only_what_came_since_the_one_before(book, monkeypatch: pytest.MonkeyPatch):
    decoded = []

    def decode(kind, frames, columns):
        decoded.append(sum(frame.count for frame in frames))
        return arrow(kind, frames, columns)

    arrow = tail_columns.frames_to_arrow
    monkeypatch.setattr(tail_columns, "frames_to_arrow", decode)
    book.append(book.gpu(s, power_watts=1.0) for s in range(10))
    answer(book, book.source)
    book.append([book.gpu(10, power_watts=2.0)])
    ((_, n, last, _),) = answer(book, book.source)
    assert (n, last, decoded) == (11, 2.0, [10, 1])


def test_an_older_state_of_the_ledger_is_read_anew(book, tmp_path, open_book):
    other = open_book(tmp_path / "other")
    book.append(book.gpu(s, power_watts=1.0) for s in range(10))
    other.append(other.gpu(s, power_watts=7.0) for s in range(3))
    answer(book, book.source)
    for name in ("head.sqlite", "head.sqlite-wal", "head.sqlite-shm"):
        (book.folder / name).unlink(missing_ok=True)
    (other.folder / "head.sqlite").rename(book.folder / "head.sqlite")
    ((_, n, last, _),) = answer(book, book.source)
    assert (n, last) == (3, 7.0)
