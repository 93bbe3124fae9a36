from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from offsim.errors import InputError
from offsim.policy.policy import Policy
from offsim.record import Metrics
from offsim.simulate import predict
from offsim.simulate.needs import needs
from offsim.study.sweep.hardware import overridden
from offsim.study.sweep.inputs import Inputs
from offsim.study.sweep.scenario import entry_of
from offsim.study.sweep.work import Answer, answers, provide, withdraw
from offsim.trace import Trace
from offsim.trace.cut import joined
from tests.builders import TOY

from .made import INPUTS, MACHINE

SEVERAL = replace(INPUTS, traces={"toy": joined([TOY] * 3)})


@pytest.fixture(autouse=True)
def _provided() -> Iterator[None]:
    for inputs in (INPUTS, SEVERAL):
        provide(inputs)
    yield
    for inputs in (INPUTS, SEVERAL):
        withdraw(inputs.digest)


def answer(inputs: Inputs = INPUTS, **given: Any) -> Answer:
    named = {field.replace("__", "."): value for field, value in given.items()}
    entry = entry_of({"workload.trace": "toy", "calibration": "box", **named}, inputs)
    (found,) = answers(inputs.digest, {entry.key: entry.config})
    assert found.key == entry.key
    return found


def metrics(inputs: Inputs = INPUTS, **given: Any) -> Metrics:
    found = answer(inputs, **given).found
    assert found is not None
    return found.metrics


def test_it_is_what_predict_says() -> None:
    answered = answer(policy__slots=2, policy__prefetch="last-token", link_bytes_per_s=500)
    policy = Policy(slots=2, prefetch="last-token")
    assert answered.found is not None
    assert answered.found.metrics == predict(TOY, policy, MACHINE, 500.0)
    assert answered.found.needs == needs(MACHINE, policy)
    assert answered.error is None


def test_another_machine_is_another_calibration() -> None:
    slow = {"codecs.cuszp.decode_s.times": 3.0}
    given = {"policy__codec": "cuszp", "policy__bound": 0.5, "policy__slots": 2}
    found = metrics(hardware__codecs__cuszp__decode_s__times=3.0, **given)
    policy = Policy(codec="cuszp", bound=0.5, slots=2)
    assert found == predict(TOY, policy, overridden(MACHINE, slow))
    assert found != predict(TOY, policy, MACHINE)


@pytest.mark.parametrize(
    ("requests", "tokens", "count", "made"),
    [(None, None, 3, 15), (2, None, 2, 10), ([0, 2], None, 2, 10), ([1], 2, 1, 2), (None, 1, 3, 3)],
)
def test_it_replays_the_requests_that_are_asked_for(
    requests: Any, tokens: int | None, count: int, made: int
) -> None:
    found = metrics(SEVERAL, workload__requests=requests, workload__tokens=tokens)
    assert (found.requests, found.output_tokens) == (count, made)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"policy__codec": "cuszp", "policy__bound": 0.25}, "cuszp at bound 0.25 is not in the"),
        ({"policy__cache": "pinned"}, "cache pinned needs a profile"),
        ({"policy__host_bytes": 5}, "the calibration has no disk beneath it"),
        ({"workload__requests": [0, 7]}, "workload.requests has 7, whom the trace does not have"),
        ({"link_bytes_per_s": 1e-300}, "takes longer than a simulation can count"),
        ({"workload__requests": []}, "workload.requests has nobody"),
        ({"hardware__link__bytes_per_s": -1.0}, "hardware.link.bytes_per_s: bytes_per_s is -1.0"),
    ],
)
def test_a_refusal_is_an_answer(given: dict[str, Any], says: str) -> None:
    found = answer(**given)
    assert found.found is None
    assert found.error is not None
    assert says in found.error


def test_a_profile_is_heard() -> None:
    assert answer(policy__cache="pinned", workload__profile="toy").error is None


def test_who_has_another_offsim_does_not_answer() -> None:
    with pytest.raises(InputError, match=r"a worker has offsim 0\.\S+ and the sweep is of 9\.9; "):
        provide(replace(INPUTS, engine="9.9"))


def test_who_was_not_provided_does_not_answer() -> None:
    with pytest.raises(InputError, match="a worker lacks the inputs of the sweep"):
        answers("unknown", {})


def test_a_digest_is_of_the_content() -> None:
    ids = TOY.experts.copy()
    ids[0, 0] = ids[0, 0][::-1]
    other = replace(INPUTS, traces={"toy": Trace(TOY.info, **{**TOY.arrays(), "experts": ids})})
    same = replace(INPUTS, traces={"toy": Trace(TOY.info, **TOY.arrays())})
    assert INPUTS.digest == same.digest != other.digest
    assert not np.array_equal(ids, TOY.experts)
