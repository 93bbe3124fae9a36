import json
from dataclasses import replace
from typing import Any

import pytest

from offsim.errors import InputError
from offsim.study.sweep.inputs import Inputs
from offsim.study.sweep.scenario import Scenario, entry_of
from offsim.trace import Trace
from tests.builders import TOY

from .made import INPUTS, MACHINE

GIVEN: dict[str, Any] = {"workload.trace": "toy", "calibration": "box"}


def test_the_config_is_all_of_it() -> None:
    asked = {"policy.slots": 2, "policy.transfer.chunk_bytes": 100, "hardware.link.latency_s": 1}
    entry = entry_of({**GIVEN, **asked}, INPUTS)
    config = json.loads(entry.config)
    assert config["policy"]["transfer"]["chunk_bytes"] == 100
    assert config["policy"]["cache"] == "lru"
    assert config["hardware"] == {"link.latency_s": 1.0}
    assert Scenario.model_validate_json(entry.config).policy.slots == 2
    assert entry.error is None
    assert entry.trace_sha256 == INPUTS.trace_digests["toy"]


def test_equal_content_has_equal_keys() -> None:
    key = entry_of(GIVEN, INPUTS).key
    assert len(key) == 32
    assert entry_of({**GIVEN, "policy.cache": "lru", "policy.bound": 0}, INPUTS).key == key
    named = Inputs(INPUTS.engine, {"other": TOY}, {"name": MACHINE})
    assert entry_of({"workload.trace": "other", "calibration": "name"}, named).key == key


def test_all_that_decides_is_in_the_key() -> None:
    info = TOY.info.model_copy(update={"source": "elsewhere"})
    slower = MACHINE.model_copy(update={"model": MACHINE.model.model_copy(update={"name": "x"})})
    others = [
        replace(INPUTS, engine="other"),
        replace(INPUTS, traces={"toy": Trace(info, **TOY.arrays())}),
        replace(INPUTS, calibrations={"box": slower}),
    ]
    keys = {entry_of(GIVEN, inputs).key for inputs in (INPUTS, *others)}
    more = ("policy.slots", "policy.seed", "link_bytes_per_s", "workload.tokens")
    keys |= {entry_of({**GIVEN, field: 1}, INPUTS).key for field in more}
    keys |= {entry_of({**GIVEN, "hardware.link.latency_s": 1}, INPUTS).key}
    keys |= {entry_of({**GIVEN, "workload.profile": "toy"}, INPUTS).key}
    assert len(keys) == 10


def test_what_does_not_go_together_is_an_entry_that_says_so() -> None:
    entry = entry_of({**GIVEN, "policy.extra": 2}, INPUTS)
    assert entry.error == "policy: 2 slots beyond those of each layer are of one pool"
    assert json.loads(entry.config)["policy"] == {"extra": 2}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"policy.slots": -1}, "policy.slots is -1: Input should be greater than or equal to 0"),
        ({"policy.slots": "many"}, "policy.slots is 'many'"),
        ({"policy.slotz": 1}, "no scenario has a field policy.slotz; docs/sweep.md names them"),
        ({"polcy.slots": 1}, "no scenario has a field polcy"),
        ({"slots": 1}, "no scenario has a field slots"),
        ({"policy.cache": "best"}, "policy.cache: no cache is called 'best'"),
        ({"policy.codec": "zip"}, "policy.codec: no codec is called 'zip'"),
        ({"policy.prefetch": "luck"}, "policy.prefetch: no prefetcher is called 'luck'"),
        ({"policy.low": {"codec": "raw"}}, "a scenario lacks policy.low.below"),
        ({"policy.low": {}, "policy.low.codec": "raw"}, "a scenario lacks policy.low.below"),
        ({"policy.low": None, "policy.low.codec": "raw"}, "beside all of low; give one of the two"),
        ({"policy.low.codec": "raw", "policy.low": None}, "policy.low is given beside a part of"),
        ({"calibration": "car"}, "calibration is 'car'; the SPEC names box"),
        ({"workload.trace": "ant"}, "workload.trace is 'ant'; the SPEC names toy"),
        ({"workload.profile": "ant"}, "workload.profile is 'ant'; the SPEC names toy"),
        ({"workload.requests": 0}, "workload.requests"),
        ({"link_bytes_per_s": 0}, "link_bytes_per_s is 0"),
        ({"hardware.link.latency_s": "x"}, "hardware.link.latency_s is 'x'"),
    ],
)
def test_what_no_scenario_has_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as refused:
        entry_of({**GIVEN, **given}, INPUTS)
    assert says in str(refused.value)


def test_without_a_trace_it_says_so() -> None:
    with pytest.raises(InputError, match=r"a scenario has no workload\.trace; give it in `fixed`"):
        entry_of({"workload.tokens": 1, "calibration": "box"}, INPUTS)
