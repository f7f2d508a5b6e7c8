"""GPU-hours that were held and not used are found, with who held them; what worked is left alone."""

import pytest

from query.costs.prices import Prices
from query.costs.waste import waste
from query.errors import GroupingError

GIB = 2**30


def gpu(book, seconds, index, percent, watts=100.0, used_bytes=0, **values):
    held = {"utilization_percent": percent, "power_watts": watts, "memory_used_bytes": used_bytes}
    return [book.gpu(s, index, **held | values) for s in seconds]


def process(book, seconds, index, pid=7, **values):
    row = {"gpu_uuid": f"GPU-{index}", "gpu_index": index, "pid": pid, "interval_seconds": 5.0}
    return [book.event("process_sample", s, **row | values) for s in seconds if s % 5 == 0]


def ask(book, seconds=600, **more):
    return waste(book.source, book.window(0, seconds), now=book.at(seconds), **more)


def test_what_is_held_and_idle_is_told_by_gpu_and_by_holder(book):
    """GPU 0 works for ana; GPU 1 idles for ben; GPU 2 idles and nobody has it."""
    book.record(
        [
            *gpu(book, range(600), 0, 90),
            *gpu(book, range(600), 1, 0),
            *gpu(book, range(600), 2, 0),
            *process(book, range(600), 0, user="ana"),
            *process(book, range(600), 1, user="ben"),
        ]
    )
    found = ask(book, prices=Prices(0.4, "EUR", 300.0))
    assert (found.n, found.total.held_hours, found.total.idle_hours) == pytest.approx((2, 1200 / 3600, 600 / 3600))
    assert [(one.gpu_index, one.idle_ratio) for one in found.gpus] == [(1, pytest.approx(1)), (0, 0)]
    assert {one.holder: one.idle_hours for one in found.holders} == {"ben": pytest.approx(1 / 6), "ana": 0}
    ben = found.holders[0]
    assert ben.idle_joules == pytest.approx(60_000)
    assert (ben.cost.kwh, ben.cost.price, ben.cost.co2_grams) == pytest.approx((1 / 60, 0.4 / 60, 300 / 60))


def test_no_price_is_made_up(book):
    book.record([*gpu(book, range(60), 0, 0), *process(book, range(60), 0, user="ben")])
    cost = ask(book, 60).total.cost
    assert (cost.kwh, cost.price, cost.co2_grams) == (pytest.approx(6000 / 3.6e6), None, None)


def test_holders_at_the_same_time_share_equally_and_lose_nothing(book):
    both = [*process(book, range(600), 0, 7, slurm_job_id="41"), *process(book, range(300), 0, 8, slurm_job_id="42")]
    book.record([*gpu(book, range(600), 0, 0), *both])
    found = ask(book, by="job")
    assert {one.holder: one.idle_hours * 3600 for one in found.holders} == pytest.approx({"41": 450, "42": 150})
    assert found.total.idle_hours == pytest.approx(600 / 3600)


def test_memory_in_use_without_a_process_is_held_by_nobody_seen(book):
    book.record([*gpu(book, range(60), 0, 0, used_bytes=8 * GIB), *gpu(book, range(60), 1, 0, used_bytes=GIB // 4)])
    found = ask(book, 60)
    assert [(one.gpu_index, one.idle_hours) for one in found.gpus] == [(0, pytest.approx(60 / 3600))]
    assert [(one.holder, one.is_process_seen) for one in found.holders] == [(None, False)]
    assert any("no process was seen" in words for words in found.limits)


def test_what_the_driver_reserves_is_held_by_nobody(book):
    book.record(gpu(book, range(60), 0, 0, used_bytes=GIB, memory_reserved_bytes=GIB))
    assert ask(book, 60).n == 0


def test_a_pause_between_two_batches_is_no_waste(book):
    pulses = [row for s in range(600) for row in gpu(book, [s], 0, 100 if s % 10 == 0 else 0)]
    book.record([*pulses, *process(book, range(600), 0, user="ana")])
    assert ask(book).total.idle_hours == 0


def test_where_no_utilization_is_known_nothing_is_called_idle(book):
    book.record([*gpu(book, range(60), 0, None), *process(book, range(60), 0, user="ana")])
    total = ask(book, 60).total
    assert (total.idle_hours, total.idle_ratio, total.unknown_hours) == (0, None, pytest.approx(60 / 3600))


def test_a_split_gpu_is_told_by_its_instances_alone(book):
    """GPU 0 is split in two: one works, the other idles; of itself it tells no utilization."""
    whole = gpu(book, range(60), 0, None, used_bytes=20 * GIB)
    parts = [
        row
        for instance, active in ((1, 0.9), (2, 0.0))
        for row in gpu(
            book, range(60), 0, None, gpu_uuid=f"MIG-{instance}", mig_gpu_instance_id=instance, sm_active_ratio=active
        )
    ]
    held = [row for one in (1, 2) for row in process(book, range(60), 0, one, gpu_uuid=f"MIG-{one}", user=f"u{one}")]
    book.record([*whole, *parts, *held])
    found = ask(book, 60)
    assert {one.gpu_uuid: one.idle_hours * 3600 for one in found.gpus} == pytest.approx({"MIG-1": 0, "MIG-2": 60})
    assert (found.total.held_hours * 3600, found.total.unknown_hours) == (pytest.approx(120), 0)


@pytest.mark.parametrize(
    ("by", "values", "holder"),
    [
        ("container", {"container_name": "vllm", "container_id": "abc"}, "vllm"),
        ("container", {"container_id": "abc"}, "abc"),
        ("pod", {"pod_namespace": "ml", "pod_name": "train-0", "pod_uid": "u"}, "ml/train-0"),
        ("pod", {"pod_uid": "u"}, "u"),
        ("process", {"name": "python"}, "python"),
        ("job", {"name": "python"}, None),
    ],
)
def test_each_kind_of_holder_has_the_name_people_know(book, by, values, holder):
    book.record([*gpu(book, range(60), 0, 0), *process(book, range(60), 0, **values)])
    assert [(one.holder, one.is_process_seen) for one in ask(book, 60, by=by).holders] == [(holder, True)]


def test_the_threshold_is_the_askers(book):
    book.record([*gpu(book, range(60), 0, 8), *process(book, range(60), 0, user="ana")])
    assert ask(book, 60).total.idle_hours == 0
    assert ask(book, 60, idle_below_percent=10.0).total.idle_hours == pytest.approx(60 / 3600)


def test_another_kind_of_holder_is_refused(book):
    with pytest.raises(GroupingError, match="did you mean 'container'"):
        ask(book, by="contaner")
