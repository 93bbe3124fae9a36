"""The SimPy engine: one process computes, stations serve the stages of the loads it asks for.

Keeps the contract of docs/model.md. It reads as the specification; speed comes second.
"""

from collections.abc import Generator
from typing import Any

import numpy as np
import simpy

from offsim.record.events import STAGES
from offsim.record.stall import split_ps
from offsim.simulate.clock import UNDISTURBED, coldness
from offsim.simulate.plan import NONE, Clocks, LoadClocks, Machine, Plan
from offsim.simulate.station import DECODE, LINK, LOOK, Job, Station, Worker, after

MOST_REMEMBERED = 200_000
Process = Generator[simpy.Event, Any, None]


class SimpyEngine:
    """Tells when the steps of plans happen, one plan after the other.

    Args:
        machine: the costs of handing over, and who disturbs whom.
        events: whether every load and wait is kept, or only what the metrics need.
    """

    def __init__(self, machine: Machine, *, events: bool = True) -> None:
        self.env = simpy.Environment(0)
        self.machine, self.events = machine, events
        self.cold = 0
        self.bringing: dict[int, Job] = {}
        self._jobs: list[Job] = []
        self._live: dict[int, Job] = {}
        self._waiting: simpy.Event | None = None
        self._compute = Worker(self.env, machine.compute_rate)
        self._stations = [self._station(stage) for stage in range(len(STAGES))]
        self._decoders = self._stations[machine.decoder].servers
        self._stations[machine.decoder].disturbs.append(self._compute)

    def _station(self, stage: int) -> Station:
        machine = self.machine
        rate = machine.decode_rate if stage == machine.decoder else UNDISTURBED
        return Station(
            self.env,
            stage,
            int(machine.servers[stage]),
            int(machine.handover[stage]),
            machine.handover_kept if stage == DECODE else int(machine.handover[stage]),
            rate,
            self._live,
            self._served,
        )

    @property
    def now(self) -> int:
        """Time since the simulation began, ps."""
        return int(self.env.now)

    @property
    def quiet(self) -> bool:
        """Whether nothing is on its way, and nobody is waking up or has just stopped.

        Who stopped in this instant serves what comes in it without a hand-over.
        """
        servers = (server for station in self._stations for server in station.servers)
        return not self._live and all(server.free and not server.fresh for server in servers)

    def advance(self, plan: Plan) -> Clocks:
        """Go on with the steps of a plan."""
        clocks = Clocks.of(plan, events=self.events)
        self.env.run(self.env.process(_Steps(self, plan, clocks).run()))
        return clocks

    def loads(self) -> LoadClocks:
        """All loads so far; none where events are not kept."""
        jobs = self._jobs
        served = np.array([job.spans for job in jobs], np.int64)
        return LoadClocks(
            np.array([job.asked for job in jobs], np.int64),
            served.reshape(len(jobs), len(STAGES), 2),
            np.array([job.done[LINK] for job in jobs], np.int64),
        )

    def work(self, duration: int, rate: int | None = None) -> Process:
        """Compute works for `duration` ps if undisturbed; what takes nothing is over at once.

        Args:
            duration: ps.
            rate: how many times longer it takes while disturbed; the machine's `compute_rate`
                by default.
        """
        if not duration:
            return
        if not self._live:  # nobody can disturb it
            yield self.env.timeout(duration)
            return
        end = self.env.event()

        def done() -> None:
            for decoder in self._decoders:
                decoder.leave()
            end.succeed()

        for decoder in self._decoders:
            decoder.disturb()
        self._compute.rate = self.machine.compute_rate if rate is None else rate
        self._compute.begin(duration, done)
        yield end

    def ask(self, job: Job) -> None:
        """Start a load on its path."""
        job.asked = self.now
        self._live[job.number] = job
        if self.events:
            self._jobs.append(job)
        self._poke(job, 0)

    def drop(self, number: int) -> None:
        """Give up a prefetch: what is being served goes on to its end, on the link of its chunk."""
        job = self.bringing.pop(number)
        job.gone = True
        if not any(job.serving):
            self._live.pop(number, None)

    def something_ready(self) -> simpy.Event:
        """When the next load is ready, whichever it is."""
        self._waiting = self.env.event()
        return self._waiting

    def _poke(self, job: Job, stage: int) -> None:
        """Tell the next station on a job's path, from `stage` on."""
        for later in range(stage, len(job.stages)):
            if job.stages[later]:
                self._stations[later].poke()
                return

    def _served(self, job: Job, stage: int) -> None:
        if stage == LINK and job.done[LINK] == job.chunks and self.machine.arrival:
            self._compute.hold(job.chunks * self.machine.arrival)
        self._poke(job, stage + 1)
        if job.ready != NONE or (job.gone and not any(job.serving)):
            self._live.pop(job.number, None)
        if job.ready != NONE and self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            waiting.succeed()


class _Steps:
    """Compute, through the steps of one plan.

    Args:
        engine: whose stations serve.
        plan: what to do.
        clocks: filled.
    """

    def __init__(self, engine: SimpyEngine, plan: Plan, clocks: Clocks) -> None:
        self.engine, self.env, self.machine = engine, engine.env, engine.machine
        self.plan, self.clocks = plan, clocks
        # Lists, because numpy is slow one number at a time.
        durations = plan.durations.tolist()
        self.before = [durations[index] for index in plan.before.tolist()]
        self.head = [durations[index] for index in plan.head.tolist()]
        self.run_ps = [durations[index] for index in plan.run.tolist()]
        self.load = plan.load.tolist()
        self.uses_to = [0, *plan.uses_to.tolist()]
        self.demands_to = plan.demands_to.tolist()
        self.loads_to = [0, *plan.loads_to.tolist()]
        self.kind = plan.kind.tolist()
        self.drops_to = [0, *plan.drops_to.tolist()]
        self.drops = plan.drop.tolist()
        self.stages = plan.kinds.stages.tolist()
        self.chunks = plan.kinds.chunks.tolist()
        self.cooling = (
            self.machine.cooling_idle.tolist(),
            self.machine.cooling_extra.tolist(),
            self.machine.still_cold,
        )
        self.stall = [0] * (len(STAGES) + 1)
        self.late = 0

    def run(self) -> Process:
        """All steps."""
        env, engine, clocks, layers = self.env, self.engine, self.clocks, self.plan.layers
        memory = _Memory(self.plan) if _recurs(self.plan) and not engine.events else None
        quiet = engine.quiet  # a layer that is remembered leaves it so
        for step, begin in enumerate(self.plan.begin.tolist()):
            if begin > env.now:
                yield env.timeout(begin - env.now)
            clocks.start[step] = env.now
            self.stall, self.late = [0] * len(self.stall), 0
            for lookup in range(step * layers, (step + 1) * layers):
                before = self.before[lookup] + engine.cold
                if memory is None:
                    yield from engine.work(before)
                    idle = yield from self._experts(lookup)
                elif quiet and (known := memory.of(lookup)):
                    duration, idle, stall = known
                    yield env.timeout(before + duration)
                    for stage, part in stall:
                        self.stall[stage] += part
                else:
                    yield from engine.work(before)
                    since, stalled, was_quiet = engine.now, list(self.stall), engine.quiet
                    idle = yield from self._experts(lookup)
                    quiet = engine.quiet
                    if was_quiet and quiet:
                        memory.keep(lookup, engine.now - since, idle, stalled, self.stall)
                if idle or engine.cold:
                    engine.cold = coldness(engine.cold, idle, *self.cooling)
            yield from engine.work(self.head[step] + engine.cold)
            clocks.end[step] = env.now
            clocks.stall[step] = self.stall
            clocks.late[step] = self.late
        yield after(env, LOOK)  # what else ends in this instant has ended

    def _experts(self, lookup: int) -> Generator[simpy.Event, Any, int]:
        """The experts of one layer: the resident ones, then each as it becomes ready.

        Returns how long compute stood idle, ps.
        """
        env, engine, machine = self.env, self.engine, self.machine
        uses = range(self.uses_to[lookup], self.uses_to[lookup + 1])
        first, then = self.loads_to[lookup], self.demands_to[lookup]
        for load in range(first, then):
            self._drop_for(load)
        jobs = self._raised(uses)
        if jobs:
            yield after(env, LOOK)
            jobs = {number: job for number, job in jobs.items() if job.ready == NONE}
        self.late += len(jobs)
        asked = range(self.plan.first_load + first, self.plan.first_load + then)
        awaited = [use for use in uses if self.load[use] in jobs or self.load[use] in asked]
        for load in range(first, then):
            yield from engine.work(machine.submit)
            job = self._job(load, urgent=True)
            jobs[job.number] = job
            engine.ask(job)
        for use in uses:
            if use not in awaited:
                yield from engine.work(self.run_ps[use], machine.expert_rate)
        idle = 0
        while awaited:
            yield after(env, LOOK)
            use = self._first_ready(awaited, jobs)
            if use == NONE:
                since = engine.now
                while use == NONE:
                    yield engine.something_ready()
                    yield after(env, LOOK)
                    use = self._first_ready(awaited, jobs)
                if machine.wake:
                    yield env.timeout(machine.wake)
                self._waited(use, since, jobs[self.load[use]])
                idle += engine.now - since
            awaited.remove(use)
            yield from engine.work(self.run_ps[use], machine.expert_rate)
        for load in range(then, self.loads_to[lookup + 1]):
            yield from engine.work(machine.fetch)
            self._drop_for(load)
            job = self._job(load, urgent=False)
            engine.bringing[job.number] = job
            engine.ask(job)
        return idle

    def _raised(self, uses: range) -> dict[int, Job]:
        """The prefetches among what is asked for, by their ids; urgent from now on."""
        jobs = {}
        for use in uses:
            if job := self.engine.bringing.pop(self.load[use], None):
                job.urgent = True
                jobs[job.number] = job
        return jobs

    def _first_ready(self, awaited: list[int], jobs: dict[int, Job]) -> int:
        """The use whose load became ready first, of equals in router order; NONE for none."""
        ready = [use for use in awaited if jobs[self.load[use]].ready != NONE]
        return min(ready, key=lambda use: jobs[self.load[use]].ready, default=NONE)

    def _job(self, load: int, *, urgent: bool) -> Job:
        kind = self.kind[load]
        number = self.plan.first_load + load
        pipelined = self.machine.pipelined
        return Job(number, self.stages[kind], self.chunks[kind], urgent=urgent, pipelined=pipelined)

    def _drop_for(self, load: int) -> None:
        for number in self.drops[self.drops_to[load] : self.drops_to[load + 1]]:
            self.engine.drop(number)

    def _waited(self, use: int, since: int, job: Job) -> None:
        """Note a wait that ends now."""
        split_ps(since, self.engine.now, [end for _, end in job.spans], self.stall)
        if self.engine.events:
            self.clocks.waits[use] = since, self.engine.now


class _Memory:
    """How a layer went that began while nothing was on its way, to be found again.

    Time is whole, so the same work takes the same time wherever it begins, to the last bit.

    Args:
        plan: in which nothing is fetched ahead.
    """

    def __init__(self, plan: Plan) -> None:
        # What an earlier plan fetched ahead is there as soon as nothing is on its way.
        own = plan.load - plan.first_load
        kinds = np.append(plan.kind, NONE)[np.where(own < 0, -1, own)]
        codes = plan.run.astype(np.int64) * (len(plan.kinds.chunks) + 1) + kinds + 1
        self._codes: bytes = codes.tobytes()
        self._ends = [0, *(8 * plan.uses_to.astype(np.int64)).tolist()]
        self._known: dict[bytes, tuple[int, int, list[tuple[int, int]]]] = {}

    def _key(self, lookup: int) -> bytes:
        return self._codes[self._ends[lookup] : self._ends[lookup + 1]]

    def of(self, lookup: int) -> tuple[int, int, list[tuple[int, int]]] | None:
        """Duration and idle time, ps, and what each stage added to the stall."""
        return self._known.get(self._key(lookup))

    def keep(
        self, lookup: int, duration: int, idle: int, before: list[int], after: list[int]
    ) -> None:
        """Remember how a layer went, with the stall before and after it."""
        if len(self._known) < MOST_REMEMBERED:
            parts = [(stage, b - a) for stage, (a, b) in enumerate(zip(before, after, strict=True))]
            self._known[self._key(lookup)] = duration, idle, [part for part in parts if part[1]]


def _recurs(plan: Plan) -> bool:
    """Whether it pays to remember layers: nothing is fetched ahead, and work recurs."""
    return plan.recurs and bool((plan.demands_to == plan.loads_to).all())
