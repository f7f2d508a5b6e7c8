"""What waits for the ledger, in which order it is shed, and what is told of it."""

from collector.keeping import Keeper
from store.events import Event
from store.space import SpaceLimits, SpaceWatch

MB = 1_000_000
ALL = ("system_sample", "process_sample", "server_sample", "gpu_sample", "gpu_event", "request", "ledger_event")


def batch(number):
    return [Event(kind, number, {}) for kind in ALL]


def kinds(keeper):
    return [(event.kind, event.observed_at_us) for event in keeper.pending]


def keeper_at(free):
    return Keeper(SpaceWatch(SpaceLimits(500 * MB, 100 * MB), lambda: free[-1]))


def test_with_room_everything_is_kept(clock):
    keeper = keeper_at([1000 * MB])
    assert keeper.look(clock.now()) is None
    assert keeper.keep(batch(1), events_max=100) == 0
    assert keeper.pending == batch(1)
    assert keeper.refusal is None


def test_on_a_nearly_full_disk_samples_of_host_processes_and_servers_are_shed_and_nothing_else(clock):
    free = [400 * MB]
    keeper = keeper_at(free)
    told = keeper.look(clock.now())
    assert (told["event"], told["details"]) == ("disk_low", {"free_bytes": 400 * MB})
    assert keeper.keep(batch(1), events_max=100) == 3
    assert [event.kind for event in keeper.pending] == ["gpu_sample", "gpu_event", "request", "ledger_event"]
    assert keeper.refusal is None
    assert keeper.look(clock.now()) is None  # said once


def test_below_the_floor_nothing_is_written_and_with_room_again_it_tells_what_was_not(clock):
    free = [90 * MB]
    keeper = keeper_at(free)
    begin = clock.now()
    assert keeper.look(begin)["event"] == "disk_full"
    assert keeper.refusal == "The ledger's disk has 90 MB left: nothing is written until there is more"
    keeper.keep([Event("system_sample", begin.wall_us, {}), Event("request", begin.wall_us, {})], events_max=100)
    free.append(300 * MB)
    assert keeper.look(clock.advance(5))["event"] == "disk_low"
    assert keeper.refusal is None
    free.append(600 * MB)
    told = keeper.look(clock.advance(5))
    assert told == {
        "event": "disk_ok",
        "message": "the disk has room again: everything is written",
        "started_at": begin.wall_us,
        "ended_at": begin.wall_us + 10 * MB,
        "duration_seconds": 10.0,
        "details": {"free_bytes": 600 * MB, "not_written": {"system_sample": 1}},
    }


def test_a_full_memory_gives_up_host_samples_first_then_gpu_samples_then_the_oldest_of_the_rest():
    keeper = Keeper()
    for number in (1, 2):
        keeper.keep([Event(kind, number, {}) for kind in ("system_sample", "gpu_sample", "request")], events_max=6)
    gone = []
    for number in range(3, 8):
        before = set(kinds(keeper)) | {("request", number)}
        assert keeper.keep([Event("request", number, {})], events_max=6) == 1
        gone += before - set(kinds(keeper))
    assert gone == [("system_sample", 1), ("system_sample", 2), ("gpu_sample", 1), ("gpu_sample", 2), ("request", 1)]
    assert kinds(keeper) == [("request", number) for number in range(2, 8)]
