"""What each call of the driver gave, as it was recorded last."""

from query.present.capabilities import capabilities


def described(book, seconds, index, calls, **values):
    identity = {"subject": "gpu", "gpu_uuid": f"GPU-{index}", "gpu_index": index, "name": "NVIDIA H200"}
    return book.event("inventory", seconds, **identity, capabilities=calls, **values)


def test_the_newest_map_of_each_gpu_counts(book):
    book.record(
        [
            described(book, 0, 1, {"field 83": "no_permission"}),
            described(book, 1, 0, {"field 83": "ok"}),
            described(book, 60, 1, {"field 83": "ok", "nvmlGpmMetricsGet": "not_supported"}),
        ]
    )
    first, second = capabilities(book.source)
    assert (first.index, first.uuid, first.recorded_at, first.refused) == (0, "GPU-0", book.at(1), {})
    assert (second.index, second.calls, second.recorded_at) == (
        1,
        {"field 83": "ok", "nvmlGpmMetricsGet": "not_supported"},
        book.at(60),
    )
    assert second.refused == {"nvmlGpmMetricsGet": "not_supported"}


def test_without_a_gpu_there_is_nothing_to_tell(book):
    book.record([book.event("inventory", 0, subject="host", name="node")])
    assert capabilities(book.source) == []
