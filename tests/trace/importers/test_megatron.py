import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offsim.errors import FormatError, InputError
from offsim.trace import Trace, load_trace, save_trace
from offsim.trace.importers import Options, importer_named

from .files import ids, write_lines


def read(path: Path, **options: object) -> Trace:
    return importer_named("megatron").read(path, Options(**{"experts": 8, **options}))


def record(step: int, layer: int, experts: np.ndarray, **more: Any) -> dict[str, Any]:
    tokens, top_k = experts.shape
    return {
        "step": step,
        "layer": layer,
        "num_tokens": tokens,
        "topk": top_k,
        "top_indices": experts.tolist(),
        **more,
    }


def steps(sizes: list[int]) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Records of layers 3 and 1, in this order, and the ids of layers 1 and 3."""
    found = [ids(size, seed=number) for number, size in enumerate(sizes)]
    lines = [
        record(number, layer, step[:, place], rank=0, block="decoder")
        for number, step in enumerate(found)
        for layer, place in ((3, 1), (1, 0))
    ]
    return lines, np.concatenate(found)


def test_prompts_begin_requests(tmp_path: Path) -> None:
    lines, experts = steps([4, 1, 1, 3, 1])
    trace = read(write_lines(tmp_path / "x.jsonl", lines), model="m")
    np.testing.assert_array_equal(trace.experts, experts)
    assert trace.request.tolist() == [0] * 6 + [1] * 4
    assert trace.phase.tolist() == [0] * 4 + [1] * 2 + [0] * 3 + [1]
    assert trace.position.tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3]
    save_trace(trace, tmp_path / "t")
    assert load_trace(tmp_path / "t").info == trace.info


def test_decode_alone(tmp_path: Path) -> None:
    lines, _ = steps([1, 1])
    assert read(write_lines(tmp_path / "x.jsonl", lines)).phase.tolist() == [1, 1]


def test_multi_token_prediction_is_left_out(tmp_path: Path) -> None:
    lines, experts = steps([2, 1])
    extra = record(0, 1, ids(2)[:, 0], rank=0, block="mtp", mtp_idx=0)
    trace = read(write_lines(tmp_path / "x.jsonl", [lines[0], extra, *lines[1:]]))
    np.testing.assert_array_equal(trace.experts, experts)
    assert "1 records of multi-token prediction left out" in trace.info.source


def test_the_number_of_experts_is_needed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give --experts"):
        read(write_lines(tmp_path / "x.jsonl", steps([1])[0]), experts=None)


def changed(line: int, **change: Any) -> list[Any]:
    lines, _ = steps([2, 1])
    lines[line] = {**lines[line], **change}
    return lines


LINES = steps([2, 1])[0]
BAD: dict[str, tuple[list[Any], str]] = {
    "empty": ([""], "no record in it"),
    "cut": ([*LINES[:2], json.dumps(LINES[2])[:-4]], r"x\.jsonl:3: not JSON"),
    "missing line": (LINES[:3], r"x\.jsonl:3: step 1 has 1 layers .* differ in layer 1"),
    "layer twice": ([*LINES, LINES[3]], r"x\.jsonl:5: step 1 has layer 1 twice"),
    "step falls": ([*LINES, LINES[0]], r"x\.jsonl:5: step 0 after step 1"),
    "other rank": (changed(3, rank=1), r"x\.jsonl:4: rank 1 in a file of rank 0"),
    "text": (changed(1, step="one"), r"x\.jsonl:2: step is 'one'"),
    "no ids": (changed(1, top_indices=None), r"x\.jsonl:2: expert ids are not lists"),
    "ragged": (changed(1, top_indices=[[1, 2], [3]]), r"x\.jsonl:2: expert ids are not of one"),
    "count": (changed(1, num_tokens=3), r"x\.jsonl:2: top_indices are \(2, 2\), not \[3, 2\]"),
    "range": (changed(1, top_indices=[[1, 2], [3, 8]]), r"x\.jsonl:2: expert 8; ids are 0 to 7"),
    "below": (changed(1, top_indices=[[1, 2], [3, -1]]), r"x\.jsonl:2: expert -1"),
    "tokens": (
        changed(1, top_indices=[[1, 2]], num_tokens=1),
        r"x\.jsonl:1: the layers of step 0 differ in tokens",
    ),
    "twice": (
        changed(1, top_indices=[[2, 3], [1, 1]]),
        r"x\.jsonl:2: token 1 takes expert 1 twice",
    ),
    "other top-k": (changed(3, top_indices=[[1]], topk=1), r"x\.jsonl:4: topk is 1 in a file of"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_parse_is_named(tmp_path: Path, case: str) -> None:
    lines, message = BAD[case]
    with pytest.raises(FormatError, match=message):
        read(write_lines(tmp_path / "x.jsonl", lines))
