"""Where loads are served on their way: a queue, the threads of one stage, and what they do."""

import time
from collections.abc import Callable
from typing import Protocol

from offsim.record import Span
from offsim.record.events import Stage
from offsim.runtime.threads import Worker
from offsim.runtime.waiting import Job, Waiting


class Work(Protocol):
    """What a stage does.

    Attributes:
        stage: which one.
        threads: that do it side by side.
        sleeps: whether they mostly sleep, and need a core for moments.
    """

    @property
    def stage(self) -> Stage:
        """Which one."""

    @property
    def threads(self) -> int:
        """That do it side by side."""

    @property
    def sleeps(self) -> bool:
        """Whether they mostly sleep, and need a core for moments."""

    def serve(self, job: Job) -> bool:
        """Do the next part of a load.

        Returns:
            Whether that was all of it here; otherwise it waits for its turn again.

        Raises:
            Exception: the load has failed, and the run with it.
        """


class Station:
    """Serves one stage of loads by threads of its own.

    Args:
        work: what they do.
        passed: told of each load that is through.
        failed: told of each load that failed, and why.
    """

    def __init__(
        self,
        work: Work,
        passed: Callable[[Job], None],
        failed: Callable[[Job, Exception], None],
    ) -> None:
        self.stage = work.stage
        self._work, self._passed, self._open = work, passed, True
        self._jobs = Waiting()
        self.workers = [
            Worker(self.stage, self._serve, failed, self._jobs, prompt=work.sleeps)
            for _ in range(work.threads)
        ]

    def put(self, job: Job) -> None:
        """Let a load wait for its turn."""
        job.since = time.perf_counter()
        self._jobs.put(job)

    def dead(self) -> Worker[Job] | None:
        """One of the threads that has ended although nobody closed the station, or None."""
        return next((worker for worker in self.workers if not worker.is_alive()), None)

    def close(self) -> None:
        """Forget the loads that wait, and let the threads end; what is being served is served."""
        self._open = False
        self._jobs.close()
        for _ in self.workers:
            self._jobs.put(None)

    def join(self, until: float) -> None:
        """Wait for the threads, but not longer than until a time, s on the clock of the run."""
        for worker in self.workers:
            worker.join(max(0.0, until - time.perf_counter()))

    def _serve(self, job: Job, start: float) -> None:
        if not self._open:
            return
        through = self._work.serve(job)
        _note(job, self.stage, start)
        if through:
            self._passed(job)
        else:
            self.put(job)


def _note(job: Job, stage: Stage, start: float) -> None:
    """Note that a load, or one more chunk of it, has been served from `start`, s, until now.

    Where the device says when it did that, its word counts.
    """
    spans = job.load.spans
    begin, end = job.stamps or (start, time.perf_counter())
    job.stamps = None
    if spans and spans[-1].stage == stage:
        spans[-1] = Span(stage, spans[-1].start, end)
    else:
        spans.append(Span(stage, begin, end))
