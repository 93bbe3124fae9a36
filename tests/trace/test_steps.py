import numpy as np

from offsim.trace import DECODE, PREFILL, steps_of

from .traces import one_layer, small_arrays, small_trace


def test_prompts_are_one_step_and_decodes_one_each() -> None:
    steps = list(steps_of(small_trace()))
    experts = small_arrays()["experts"]
    expected = [
        (0, PREFILL, experts[:2]),
        (0, DECODE, experts[2:3]),
        (0, DECODE, experts[3:4]),
        (3, PREFILL, experts[4:5]),
        (3, DECODE, experts[5:6]),
    ]
    assert [(s.request, s.phase, s.tokens) for s in steps] == [
        (request, phase, len(rows)) for request, phase, rows in expected
    ]
    for step, (_, _, rows) in zip(steps, expected, strict=True):
        np.testing.assert_array_equal(step.experts, rows)


def test_prompt_alone_is_one_step() -> None:
    (step,) = steps_of(one_layer([[0], [1], [0]], 2, phase=PREFILL))
    assert (step.phase, step.tokens) == (PREFILL, 3)


def test_decode_alone_has_no_prompt_step() -> None:
    steps = list(steps_of(one_layer([[0], [1], [0]], 2, phase=DECODE)))
    assert [(s.phase, s.tokens) for s in steps] == [(DECODE, 1)] * 3


def test_requests_that_each_are_one_token() -> None:
    arrays = {name: array[:3] for name, array in small_arrays().items()}
    arrays["request"] = np.array([5, 6, 9], np.int32)
    arrays["phase"] = np.array([0, 1, 0], np.uint8)
    steps = list(steps_of(small_trace(**arrays)))
    assert [(s.request, s.phase) for s in steps] == [(5, PREFILL), (6, DECODE), (9, PREFILL)]


def test_every_token_is_in_exactly_one_step() -> None:
    trace = small_trace()
    rows = np.concatenate([step.experts for step in steps_of(trace)])
    np.testing.assert_array_equal(rows, trace.experts)
