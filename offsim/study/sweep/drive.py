"""Drives a sweep: until each of its scenarios has an answer in its file."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from offsim.errors import RunError
from offsim.simulate.fast.planning import UNDECISIVE
from offsim.study.sweep.database import SweepFile
from offsim.study.sweep.executors import Crew, Hire
from offsim.study.sweep.inputs import Inputs
from offsim.study.sweep.plan import Plan
from offsim.study.sweep.scenario import Entry, text_of
from offsim.study.sweep.work import Answer, answers

Progress = Callable[[str, float], None]
"""Told how far it is, in words and as a share, 0..1."""
TOKENS = 250_000
"""That a worker is given at a time, about: half a second's work, and as little to do again."""
SHARES = 4
"""Batches for each worker at least, where there are as many scenarios."""


@dataclass(frozen=True)
class Swept:
    """What a run did.

    Attributes:
        scenarios: of the SPEC, equal ones counted once.
        known: of these, answered by an earlier run.
        refused: of these, by a policy or a calibration.
        seconds: of this run.
    """

    scenarios: int
    known: int
    refused: int
    seconds: float

    @property
    def per_s(self) -> float:
        """Scenarios that this run answered, in a second."""
        return (self.scenarios - self.known) / self.seconds if self.seconds else 0.0


def sweep(plan: Plan, out: Path, hire: Hire, progress: Progress = lambda *_: None) -> Swept:
    """Answer the scenarios of a plan that have no answer yet.

    Whenever it is stopped, what was answered is in the file, and the same call goes on.

    Args:
        plan: of `offsim.study.sweep.plan.planned`.
        out: file, made if there is none.
        hire: who simulates (`offsim.study.sweep.executors`).
        progress: for a display.

    Raises:
        InputError: the file cannot be written, or nobody simulates.
        FormatError: the file is another one.
        RunError: workers die of scenarios that are left.
    """
    started, began = datetime.now(UTC), time.perf_counter()
    with closing(SweepFile(out)) as file:
        file.enter(plan.entries, plan.inputs.engine)
        unanswered = file.open_keys()
        left = {one.key: one for one in plan.entries if one.key in unanswered}
        known, crew = len(plan.entries) - len(left), "nobody"

        def tell() -> None:
            spent = time.perf_counter() - began
            progress(*_so_far(len(plan.entries), known, len(left), spent))

        try:
            tell()
            while left:
                before = len(left)
                try:
                    with hire(plan.inputs) as hired:
                        crew = hired.name
                        if not hired.workers:
                            progress(f"no worker yet of {crew}", known / len(plan.entries))
                        for found in _answered(hired, plan.inputs, list(left.values())):
                            file.save(found)
                            for one in found:
                                del left[one.key]
                            tell()
                except BrokenExecutor as error:
                    # Who died did not say of what. All others are done by then, or again.
                    if len(left) == before:
                        raise RunError(
                            f"{out}: workers die of the {len(left)} scenarios that are left; give "
                            "them more memory, or fewer --jobs"
                        ) from error
        finally:
            seconds = time.perf_counter() - began
            file.note_run(started, seconds, crew, len(plan.entries) - known - len(left))
        counts = file.counts(one.key for one in plan.entries)
    return Swept(len(plan.entries), known, counts["refused"], seconds)


def _answered(crew: Crew, inputs: Inputs, entries: list[Entry]) -> Iterator[list[Answer]]:
    """Answers, batch by batch, as they come."""
    waiting: set[Future[list[Answer]]] = set()
    for batch in _batches(inputs, entries, crew.workers):
        waiting.add(crew.executor.submit(answers, inputs.digest, batch))
        if len(waiting) >= crew.at_once:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    while waiting:
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        yield from (future.result() for future in done)


def _batches(inputs: Inputs, entries: list[Entry], workers: int) -> Iterator[dict[str, str]]:
    """Configurations by key. Who decides alike comes together, so that decisions are made once."""
    most = max(1, len(entries) // (SHARES * max(1, workers)))
    batch: dict[str, str] = {}
    tokens = 0
    for _, trace, key, config in sorted(map(_decisive, entries)):
        if len(batch) == most or (batch and tokens + inputs.traces[trace].tokens > TOKENS):
            yield batch
            batch, tokens = {}, 0
        batch[key] = config
        tokens += inputs.traces[trace].tokens
    if batch:
        yield batch


def _decisive(entry: Entry) -> tuple[str, str, str, str]:
    """What of a scenario its policy's decisions depend on, its trace, key and configuration."""
    config = json.loads(entry.config)
    policy = {name: v for name, v in config["policy"].items() if name not in UNDECISIVE}
    workload = config["workload"]
    return text_of([workload, policy]), workload["trace"], entry.key, entry.config


def _so_far(scenarios: int, known: int, left: int, seconds: float) -> tuple[str, float]:
    """Words for a display, and the share that is done."""
    done = scenarios - left
    what = f"{done:,} of {scenarios:,} scenarios"
    if done > known and left:
        rate = (done - known) / seconds
        what += f", {rate:,.3g}/s, {timedelta(seconds=round(left / rate))} left"
    return what, done / max(1, scenarios)
