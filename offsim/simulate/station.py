"""Servers of the SimPy engine: what does one piece of work at a time, and who queues for it.

At any instant everything that ends is known before anything starts, so that the order in which
SimPy hands out the events of one instant decides nothing: ends have SimPy's normal priority,
compute looks around after them (LOOK), and stations start work last (START).
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import cast

import simpy

from offsim.record.events import STAGES
from offsim.simulate.clock import UNDISTURBED, served, stretched
from offsim.simulate.plan import NONE

LOOK, START = 2, 3
LINK, DECODE = STAGES.index("link"), STAGES.index("device decode")


def after(env: simpy.Environment, priority: int) -> simpy.Event:
    """An event of this instant that comes after all of a lower priority."""
    event = env.event()
    event._ok, event._value = True, None
    env.schedule(event, cast(simpy.events.EventPriority, priority))
    return event


def now_of(env: simpy.Environment) -> int:
    """The time, ps."""
    return int(env.now)


class Worker:
    """Does one piece of work at a time, slower while others disturb it.

    Args:
        env: the SimPy environment; its time is whole picoseconds.
        rate: how many times longer work takes while disturbed, in 1/2^RATE_BITS.
    """

    def __init__(self, env: simpy.Environment, rate: int = UNDISTURBED) -> None:
        self.env, self.rate = env, rate
        self._disturbers = 0
        self._left = self._since = self._began = self._turn = 0
        self._done: Callable[[], None] | None = None

    def begin(self, duration: int, done: Callable[[], None]) -> None:
        """Start work that takes `duration` ps when undisturbed, more than 0; `done` at its end."""
        self._done, self._left = done, duration
        self._began = self._since = now_of(self.env)
        self._arm()

    def disturb(self) -> None:
        """One more disturbs this worker."""
        if not self._disturbers:
            self._settle(UNDISTURBED)
        self._disturbers += 1
        if self._disturbers == 1:
            self._arm()

    def leave(self) -> None:
        """One less."""
        if self._disturbers == 1:
            self._settle(self.rate)
        self._disturbers -= 1
        if not self._disturbers:
            self._arm()

    def hold(self, duration: int) -> None:
        """Work takes `duration` ps longer, but for what begins or ends in this instant."""
        if self._done is None or self._began == now_of(self.env):
            return
        self._settle(self.rate if self._disturbers else UNDISTURBED)
        if self._left:
            self._left += duration
            self._arm()

    def _settle(self, rate: int) -> None:
        """Count what has been done at the rate so far."""
        if self._done is not None:
            self._left = max(0, self._left - served(now_of(self.env) - self._since, rate))
            self._since = now_of(self.env)

    def _arm(self) -> None:
        # A timeout cannot be taken back, so each carries its turn and an outdated one is ignored.
        if self._done is None:
            return
        self._turn += 1
        rate = self.rate if self._disturbers else UNDISTURBED
        timeout = self.env.timeout(stretched(self._left, rate))
        assert timeout.callbacks is not None
        timeout.callbacks.append(partial(self._end, self._turn))

    def _end(self, turn: int, _: simpy.Event) -> None:
        if turn == self._turn and self._done is not None:
            done, self._done = self._done, None
            done()


class Job:
    """A load on its path.

    Only the link moves it in chunks; the other stages serve it whole, or, pipelined, chunk by
    chunk, each as soon as it has left the stage before.

    Args:
        number: its id.
        stages: [stages] ps in each, all chunks together; 0: not on its path.
        chunks: parts that it moves in.
        urgent: whether it is asked for now, or fetched ahead.
        pipelined: whether all stages serve chunks.
    """

    def __init__(
        self, number: int, stages: list[int], chunks: int, *, urgent: bool, pipelined: bool
    ) -> None:
        self.number, self.stages, self.chunks, self.urgent = number, stages, chunks, urgent
        self.pipelined = pipelined
        self.done = [0] * len(stages)
        self.serving = [False] * len(stages)
        self.spans = [[NONE, NONE] for _ in stages]
        self.ready = self.asked = NONE
        self.gone = False
        self._skip(0)

    def waits_at(self, stage: int) -> bool:
        """Whether some of it could be served there now."""
        if self.gone or self.serving[stage] or self.done[stage] == self.chunks:
            return False
        before = self.done[stage - 1] if stage else self.chunks
        return before > self.done[stage] and (self.pipelined or before == self.chunks)

    def service_ps(self, stage: int) -> int:
        """How long it is served there next, ps: chunks are equal, the last has the rest."""
        part = self.stages[stage] // self.chunks
        if self._at_once(stage) == self.chunks:
            return self.stages[stage]
        last = self.done[stage] == self.chunks - 1
        return self.stages[stage] - part * (self.chunks - 1) if last else part

    def serve(self, stage: int, now: int) -> None:
        """It has been served there."""
        self.done[stage] += self._at_once(stage)
        self.spans[stage][1] = now
        self._skip(stage + 1)
        if self.done[-1] == self.chunks:
            self.ready = now

    def _at_once(self, stage: int) -> int:
        """Chunks that a stage serves in one go."""
        return 1 if self.pipelined or stage == LINK else self.chunks

    def _skip(self, stage: int) -> None:
        """Nothing waits at a stage that is not on the path."""
        while stage < len(self.stages) and not self.stages[stage]:
            self.done[stage] = self.done[stage - 1] if stage else self.chunks
            stage += 1


class Server(Worker):
    """One of those who serve a stage: idle, waking up, or serving a job."""

    def __init__(self, env: simpy.Environment, rate: int) -> None:
        super().__init__(env, rate)
        self.free, self.fresh, self.waking = True, False, False


class Station:
    """Serves one stage of loads: the urgent first, of these the oldest, and so at each chunk.

    Args:
        env: the SimPy environment.
        stage: index of the stage.
        servers: how many serve.
        handover: ps from a job's arrival to its service where a server stood idle.
        handover_kept: the same for a job that did not cross the link.
        rate: of the servers, see `Worker`.
        live: all jobs that are on their path, oldest first.
        served: told of a job that has been served here, in whole or in part.
    """

    def __init__(
        self,
        env: simpy.Environment,
        stage: int,
        servers: int,
        handover: int,
        handover_kept: int,
        rate: int,
        live: dict[int, Job],
        served: Callable[[Job, int], None],
    ) -> None:
        self.env, self.stage = env, stage
        self.handover, self.handover_kept = handover, handover_kept
        self.servers = [Server(env, rate) for _ in range(servers)]
        self.disturbs: list[Worker] = []
        self._live, self._served, self._poked = live, served, False

    def poke(self) -> None:
        """Something may start here at the end of this instant."""
        if not self._poked:
            self._poked = True
            callbacks = after(self.env, START).callbacks
            assert callbacks is not None
            callbacks.append(self._start)

    def _start(self, _: simpy.Event) -> None:
        self._poked = False
        for server in self.servers:
            if server.fresh:
                server.fresh = False
                self._serve_next(server)
        waking = sum(server.waking for server in self.servers)
        for server in self.servers:
            waiting = list(self._waiting())[waking:]
            if not waiting:
                return
            if not server.free:
                continue
            handover = self.handover if waiting[0].stages[LINK] else self.handover_kept
            if handover:
                waking += 1
                server.free, server.waking = False, True
                callbacks = self.env.timeout(handover).callbacks
                assert callbacks is not None
                callbacks.append(partial(self._awake, server))
            else:
                self._serve_next(server)

    def _awake(self, server: Server, _: simpy.Event) -> None:
        server.waking, server.free, server.fresh = False, True, True
        self.poke()

    def _waiting(self) -> Iterator[Job]:
        return (job for job in self._live.values() if job.waits_at(self.stage))

    def _serve_next(self, server: Server) -> None:
        waiting = list(self._waiting())
        if not waiting:
            return
        job = next((job for job in waiting if job.urgent), waiting[0])
        server.free = False
        job.serving[self.stage] = True
        if not job.done[self.stage]:
            job.spans[self.stage][0] = now_of(self.env)
        for other in self.disturbs:
            other.disturb()
        server.begin(job.service_ps(self.stage), partial(self._end, server, job))

    def _end(self, server: Server, job: Job) -> None:
        for other in self.disturbs:
            other.leave()
        server.free = server.fresh = True
        job.serving[self.stage] = False
        job.serve(self.stage, now_of(self.env))
        self._served(job, self.stage)
        self.poke()
