import simpy

from offsim.simulate.clock import rate_of
from offsim.simulate.station import LINK, Job, Station, Worker

DECODE = LINK + 1


def ended(worker: Worker, duration: int) -> list[int]:
    """Starts work; the list gets the time of its end."""
    times: list[int] = []
    worker.begin(duration, lambda: times.append(int(worker.env.now)))
    return times


def test_undisturbed_work_takes_its_time() -> None:
    env = simpy.Environment(0)
    times = ended(Worker(env), 25)
    env.run()
    assert times == [25]


def test_work_is_slowed_only_while_disturbed() -> None:
    env = simpy.Environment(0)
    worker = Worker(env, rate_of(2.0))
    times = ended(worker, 30)  # 10 alone, then half speed for 20, then 10 alone
    env.run(until=10)
    worker.disturb()
    worker.disturb()  # a second one slows no further
    env.run(until=20)
    worker.leave()
    env.run(until=30)
    worker.leave()
    env.run()
    assert times == [40]


def test_who_starts_while_disturbed_is_slow_from_the_start() -> None:
    env = simpy.Environment(0)
    worker = Worker(env, rate_of(3.0))
    worker.disturb()
    times = ended(worker, 10)
    env.run()
    assert times == [30]


def station(
    env: simpy.Environment, *, servers: int = 1, handover: int = 0
) -> tuple[Station, dict[int, Job]]:
    """A link on its own."""
    live: dict[int, Job] = {}

    def served(job: Job, _: int) -> None:
        if job.done[LINK] == job.chunks:
            live.pop(job.number, None)

    return Station(env, LINK, servers, handover, handover, rate_of(1.0), live, served), live


def path(link: int, decode: int) -> list[int]:
    """Times of the stages of a load that passes these two alone."""
    return [*[0] * LINK, link, decode]


def job(number: int, link: int = 20, chunks: int = 1, *, urgent: bool = True) -> Job:
    return Job(number, path(link, 0), chunks, urgent=urgent, pipelined=False)


def put(link: Station, live: dict[int, Job], *jobs: Job) -> None:
    for one in jobs:
        live[one.number] = one
    link.poke()


def test_a_station_serves_in_order_and_only_an_idle_one_has_to_wake() -> None:
    env = simpy.Environment(0)
    link, live = station(env, handover=5)
    jobs = [job(number) for number in range(3)]
    put(link, live, *jobs)
    env.run()
    assert [one.spans[LINK] for one in jobs] == [[5, 25], [25, 45], [45, 65]]


def test_urgent_ones_go_first_at_the_next_chunk() -> None:
    env = simpy.Environment(0)
    link, live = station(env)
    ahead, demand = job(0, 40, 4, urgent=False), job(1, 10)
    put(link, live, ahead)
    env.run(until=15)  # the second chunk is on its way, until 20
    put(link, live, demand)
    env.run()
    assert (demand.spans[LINK], ahead.spans[LINK]) == ([20, 30], [0, 50])


def test_several_servers_work_side_by_side() -> None:
    env = simpy.Environment(0)
    link, live = station(env, servers=2, handover=1)
    jobs = [job(number) for number in range(3)]
    put(link, live, *jobs)
    env.run()
    assert [one.spans[LINK] for one in jobs] == [[1, 21], [1, 21], [21, 41]]


def test_what_is_given_up_stops_at_the_next_chunk() -> None:
    env = simpy.Environment(0)
    link, live = station(env)
    gone = job(0, 40, 4, urgent=False)
    put(link, live, gone)
    env.run(until=15)
    gone.gone = True
    env.run()
    assert (gone.done[LINK], gone.spans[LINK]) == (2, [0, 20])


def test_the_last_chunk_has_the_rest() -> None:
    env = simpy.Environment(0)
    link, live = station(env)
    uneven = job(0, 11, 3)
    put(link, live, uneven)
    env.run()
    assert uneven.spans[LINK] == [0, 11]


def test_a_chunk_goes_on_alone_only_where_pipelined() -> None:
    whole, piped = (Job(0, path(20, 10), 2, urgent=True, pipelined=p) for p in (False, True))
    for one in (whole, piped):
        one.serve(LINK, 10)
    assert (whole.waits_at(DECODE), piped.waits_at(DECODE)) == (False, True)
    assert (whole.service_ps(DECODE), piped.service_ps(DECODE)) == (10, 5)
