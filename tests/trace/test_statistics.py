import math
from pathlib import Path

import numpy as np
import pytest

from offsim.errors import InputError
from offsim.trace import Trace
from offsim.trace.importers import Options, importer_named
from offsim.trace.statistics import (
    distinct_together,
    entropy,
    gini,
    layer_use,
    overlap,
    usage,
    use_table,
    working_set_ratio,
)

from .traces import one_layer, small_trace


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([5, 5, 5, 5], 0.0),
        ([0, 0, 0, 8], 0.75),
        ([1, 3], 0.25),
        ([3, 1], 0.25),
        ([1, 2, 3, 4], 0.25),
        ([0, 0, 0], 0.0),
        ([7], 0.0),
    ],
)
def test_gini(counts: list[int], expected: float) -> None:
    assert gini(np.array(counts)) == pytest.approx(expected, abs=1e-12)


def test_gini_is_half_the_relative_mean_difference() -> None:
    counts = np.random.default_rng(0).integers(0, 100, 17)
    differences = np.abs(counts[:, None] - counts[None, :]).mean()
    assert gini(counts) == pytest.approx(differences / (2 * counts.mean()))


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([5, 5, 5, 5], 1.0),
        ([0, 0, 0, 8], 0.0),
        ([4, 4, 0, 0], 0.5),
        ([1, 3], 2 - 0.75 * math.log2(3)),
        ([7], 1.0),
    ],
)
def test_entropy(counts: list[int], expected: float) -> None:
    assert entropy(np.array(counts)) == pytest.approx(expected, abs=1e-12)


def test_usage_counts_activations() -> None:
    # Layer 0: tokens take 01 10 13 31 01 23; layer 1: 23 20 02 13 12 12.
    np.testing.assert_array_equal(usage(small_trace()), [[3, 5, 1, 3], [2, 3, 5, 2]])


def test_overlap_counts_adjacent_tokens_of_a_request_only() -> None:
    # Pairs 0-1, 1-2, 2-3 of the first request and 4-5 of the second; 3-4 is no pair.
    # Layer 0: {01}{10} 2, {10}{13} 1, {13}{31} 2, {01}{23} 0 of 8.
    # Layer 1: {23}{20} 1, {20}{02} 2, {02}{13} 0, {12}{12} 2 of 8.
    np.testing.assert_allclose(overlap(small_trace()), [5 / 8, 5 / 8])


@pytest.mark.filterwarnings("error")
def test_overlap_without_a_pair_is_not_a_number() -> None:
    assert np.isnan(overlap(one_layer([[0, 1]], 4))).all()


def test_layer_use_by_hand() -> None:
    first, second = layer_use(small_trace())
    assert (first.layer, second.layer) == (0, 1)
    assert first.imbalance == pytest.approx(5 / 3)
    assert first.utilisation == 1.0
    assert first.chance == 0.5
    assert first.overlap == pytest.approx(5 / 8)
    assert first.gini == pytest.approx(2 * (1 + 6 + 9 + 20) / (4 * 12) - 5 / 4)
    shares = [3 / 12, 5 / 12, 1 / 12, 3 / 12]
    assert first.entropy == pytest.approx(-sum(p * math.log(p, 4) for p in shares))
    # Prompts: {0,1}{1,0} and {0,1} in layer 0; {2,3}{2,0} and {1,2} in layer 1.
    assert first.distinct_prefill == 2.0
    assert second.distinct_prefill == 2.5
    assert first.distinct_decode == second.distinct_decode == 2.0


def test_unused_experts_lower_the_utilisation() -> None:
    (use,) = layer_use(one_layer([[0, 1], [0, 2], [0, 1]], 8))
    assert use.utilisation == 3 / 8
    assert use.imbalance == pytest.approx(3 / (6 / 8))
    assert use.chance == 0.25
    assert math.isnan(use.distinct_prefill)


def test_table_has_a_row_a_layer() -> None:
    table = use_table(small_trace())
    assert list(table["layer"]) == [0, 1]
    assert table["imbalance"].iloc[0] == pytest.approx(5 / 3)


def test_working_set_ratio() -> None:
    # Distinct experts by step and layer: 2 3 | 2 2 | 2 2 | 2 2 | 2 2, mean 2.1.
    assert working_set_ratio(small_trace(), 2) == pytest.approx(1.05)
    assert working_set_ratio(small_trace(), 4) == pytest.approx(0.525)


def test_distinct_experts_of_requests_that_decode_together() -> None:
    requests = ([[0, 1], [0, 2], [0, 1]], [[1, 2], [2, 0]], [[3, 4]])
    trace = one_layer([row for rows in requests for row in rows], 8)
    arrays = trace.arrays() | {
        "request": np.repeat([4, 5, 7], [3, 2, 1]).astype(np.int32),
        "position": np.array([0, 1, 2, 0, 1, 0], np.int32),
    }
    trace = Trace(trace.info, **arrays)
    assert distinct_together(trace, 1) == 2.0
    assert distinct_together(trace, 2) == (3 + 2) / 2  # 0 1 and 1 2, then 0 2 and 2 0
    assert distinct_together(trace, 3) == 5.0  # in one step: the last request has no other token
    with pytest.raises(InputError, match="the trace has 3 requests, not 4"):
        distinct_together(trace, 4)
    prompt = Trace(trace.info, **(arrays | {"phase": np.zeros(6, np.uint8)}))
    with pytest.raises(InputError, match="has no decode token"):
        distinct_together(prompt, 2)


@pytest.mark.parametrize(
    ("requests", "expected"),
    [(1, 4.000), (4, 11.665), (8, 18.131), (16, 22.512), (32, 25.867), (44, 27.214)],
)
def test_working_sets_of_a_real_model(shared: Path, requests: int, expected: float) -> None:
    path = shared / "traces" / "gpt-oss-20b_decode.npz"
    if not path.is_file():
        pytest.skip(f"needs {path.name} in shared/traces")
    trace = importer_named("arrays").read(path, Options(experts=32))
    assert distinct_together(trace, requests) == pytest.approx(expected, abs=5e-4)


def test_adjacent_tokens_of_a_real_model(gpt_oss_trace: Trace) -> None:
    assert overlap(gpt_oss_trace).mean() == pytest.approx(0.437, abs=5e-4)
    uses = layer_use(gpt_oss_trace)
    assert {use.chance for use in uses} == {0.125}
    assert {use.distinct_decode for use in uses} == {4.0}
