"""What a worker does: simulates scenarios on the inputs that it was given once."""

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from offsim.calibration.schema import Calibration
from offsim.errors import InputError, OffsimError
from offsim.record import Metrics
from offsim.simulate import predict
from offsim.simulate.needs import Needs, needs
from offsim.study.sweep.hardware import overridden
from offsim.study.sweep.inputs import Inputs, check_engine
from offsim.study.sweep.scenario import Scenario
from offsim.trace import Trace
from offsim.trace.cut import cut

_PROVIDED: dict[str, Inputs] = {}
"""What this process has, by digest."""
KEPT = 4
"""Parts of traces that are kept, since the decisions on them are (`offsim.simulate.fast`)."""


class Found(NamedTuple):
    """What a scenario takes."""

    metrics: Metrics
    needs: Needs


class Answer(NamedTuple):
    """What became of a scenario.

    Attributes:
        key: of the scenario.
        found: what it takes; None where it was refused.
        error: why, in a sentence; None where it was not.
    """

    key: str
    found: Found | None
    error: str | None


def provide(inputs: Inputs) -> None:
    """Give this process the inputs of a sweep.

    Raises:
        InputError: this process has another offsim than the one that wants answers.
    """
    check_engine(inputs.engine)
    _PROVIDED[inputs.digest] = inputs


def withdraw(digest: str) -> None:
    """Forget inputs."""
    _PROVIDED.pop(digest, None)
    _part.cache_clear()


def answers(digest: str, configs: Mapping[str, str]) -> list[Answer]:
    """Simulate scenarios, one after the other.

    Args:
        digest: of the inputs, which this process was provided with.
        configs: JSON of each scenario, by its key.

    Raises:
        InputError: this process has no such inputs.
    """
    if digest not in _PROVIDED:
        raise InputError("a worker lacks the inputs of the sweep; give the same command again")
    return [_answer(digest, key, config) for key, config in configs.items()]


def _answer(digest: str, key: str, config: str) -> Answer:
    scenario = Scenario.model_validate_json(config)
    inputs, workload = _PROVIDED[digest], scenario.workload
    try:
        trace = _part(digest, workload.trace, workload.requests, workload.tokens)
        calibration = _machine(inputs, scenario)
        profile = None if workload.profile is None else inputs.traces[workload.profile]
        link = scenario.link_bytes_per_s
        metrics = predict(trace, scenario.policy, calibration, link, profile)
        found = Found(metrics, needs(calibration, scenario.policy))
    except OffsimError as error:
        return Answer(key, None, str(error))
    except OverflowError as error:
        return Answer(key, None, f"something takes longer than a simulation can count ({error})")
    return Answer(key, found, None)


def _machine(inputs: Inputs, scenario: Scenario) -> Calibration:
    return overridden(inputs.calibrations[scenario.calibration], scenario.hardware)


@lru_cache(maxsize=KEPT)
def _part(
    digest: str, name: str, requests: int | tuple[int, ...] | None, tokens: int | None
) -> Trace:
    """The part of a trace that a workload asks for."""
    trace = _PROVIDED[digest].traces[name]
    if isinstance(requests, tuple):
        trace, requests = _of_requests(trace, requests), None
    if requests is None and tokens is None:
        return trace
    return cut(trace, requests=requests, tokens=tokens)


def _of_requests(trace: Trace, requests: tuple[int, ...]) -> Trace:
    absent = set(requests) - set(np.unique(trace.request).tolist())
    if absent or not requests:
        raise InputError(
            f"workload.requests has {min(absent, default='nobody')}, whom the trace does not have"
        )
    rows = np.isin(trace.request, requests)
    return Trace(trace.info, **{name: array[rows] for name, array in trace.arrays().items()})
