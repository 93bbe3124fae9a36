"""Servers of the model: things that do one piece of work at a time."""

import math
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

import simpy

from offsim.record.events import Load, Span, Stage


class Worker:
    """Does one piece of work at a time, slower while another worker is busy.

    Args:
        env: the SimPy environment.
    """

    def __init__(self, env: simpy.Environment) -> None:
        self.env = env
        self._slows: list[tuple[Worker, float]] = []
        self._slowed: list[float] = []  # by the workers that are busy now
        self._left = 0.0
        self._since = 0.0
        self._done: simpy.Event | None = None
        self._turn = 0

    def slows(self, other: "Worker", factor: float) -> None:
        """While this worker is busy, the other takes `factor` (>= 1) times as long."""
        if factor > 1:
            self._slows.append((other, factor))

    def work(self, seconds: float) -> simpy.Event:
        """Start a piece of work that takes `seconds` when undisturbed; the event is its end."""
        self._done = self.env.event()
        self._left, self._since = seconds, self.env.now
        for other, factor in self._slows:
            other._disturb(factor)
        self._arm()
        return self._done

    def _arm(self) -> None:
        # A timeout cannot be taken back, so each carries its turn and an outdated one is ignored.
        self._turn += 1
        timeout = self.env.timeout(self._left * math.prod(self._slowed))
        assert timeout.callbacks is not None
        timeout.callbacks.append(partial(self._finish, self._turn))

    def _finish(self, turn: int, _: simpy.Event) -> None:
        if turn != self._turn or self._done is None:
            return
        done, self._done = self._done, None
        for other, factor in self._slows:
            other._leave(factor)
        done.succeed()

    def _disturb(self, factor: float) -> None:
        self._settle()
        self._slowed.append(factor)
        self._resume()

    def _leave(self, factor: float) -> None:
        self._settle()
        self._slowed.remove(factor)
        self._resume()

    def _settle(self) -> None:
        """Count what has been done at the speed so far."""
        if self._done is not None:
            done = (self.env.now - self._since) / math.prod(self._slowed)
            self._left = max(0.0, self._left - done)  # rounding must not make it negative
            self._since = self.env.now

    def _resume(self) -> None:
        if self._done is not None:
            self._arm()


class Station(Worker):
    """A worker with a queue: serves the same stage of one load after the other.

    Args:
        env: the SimPy environment.
        stage: which stage.
        idle_s: between a load's arrival and its service where the station was idle, s.
        pass_on: takes a load that this station has served.
    """

    def __init__(
        self,
        env: simpy.Environment,
        stage: Stage,
        idle_s: float,
        pass_on: Callable[[Load], None],
    ) -> None:
        super().__init__(env)
        self.stage, self.idle_s, self.pass_on = stage, idle_s, pass_on
        self._queue: simpy.Store = simpy.Store(env)
        env.process(self._serve())

    def put(self, load: Load, seconds: float) -> None:
        """Queue a load that is served for `seconds`."""
        self._queue.put((load, seconds))

    def _serve(self) -> Generator[simpy.Event, Any, None]:
        while True:
            idle = not self._queue.items
            load, seconds = yield self._queue.get()
            if idle:
                yield self.env.timeout(self.idle_s)
            start = self.env.now
            yield self.work(seconds)
            load.spans.append(Span(self.stage, start, self.env.now))
            self.pass_on(load)
