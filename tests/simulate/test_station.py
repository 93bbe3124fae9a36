import pytest
import simpy

from offsim.record import Load
from offsim.simulate.station import Station, Worker


def test_undisturbed_work_takes_its_time() -> None:
    env = simpy.Environment()
    worker = Worker(env)
    env.run(worker.work(2.5))
    assert env.now == 2.5


def test_work_is_slowed_only_while_the_other_is_busy() -> None:
    env = simpy.Environment()
    decoder, compute = Worker(env), Worker(env)
    decoder.slows(compute, 2.0)
    done = compute.work(3.0)  # 1 s alone, then 2 s of work at half speed for 2 s, then 1 s alone

    def decode() -> object:
        yield env.timeout(1.0)
        yield decoder.work(2.0)

    env.process(decode())
    env.run(done)
    assert env.now == pytest.approx(4.0)


def test_both_slow_each_other() -> None:
    env = simpy.Environment()
    decoder, compute = Worker(env), Worker(env)
    decoder.slows(compute, 2.0)
    compute.slows(decoder, 4.0)
    computed, decoded = compute.work(1.0), decoder.work(1.0)
    env.run(computed)
    assert env.now == pytest.approx(2.0)  # half speed all along
    env.run(decoded)
    assert env.now == pytest.approx(2.5)  # a quarter of the speed for 2 s, then full


def test_a_station_serves_in_order_and_notes_spans() -> None:
    env = simpy.Environment()
    done: list[Load] = []
    station = Station(env, "link", 0.5, done.append)
    env.run(until=1.0)
    loads = [Load(0, expert, 1, 1.0) for expert in range(3)]
    for load in loads:
        station.put(load, 2.0)
    env.run()
    assert done == loads
    # Only the first finds the station idle and pays for waking it.
    assert [(s.start, s.end) for load in loads for s in load.spans] == [
        (1.5, 3.5),
        (3.5, 5.5),
        (5.5, 7.5),
    ]
