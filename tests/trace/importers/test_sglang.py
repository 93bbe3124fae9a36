import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offsim.errors import FormatError, InputError
from offsim.trace import Trace, load_trace, save_trace
from offsim.trace.importers import Options, importer_named

from .files import ids, write_lines

SHAPE = {"layers": 2, "top_k": 2}


def read(path: Path, **options: object) -> Trace:
    return importer_named("sglang").read(path, Options(**{"experts": 8, **options}))


def packed(experts: np.ndarray) -> str:
    return base64.b64encode(experts.astype("<i4").tobytes()).decode()


def response(experts: Any, prompt: int | None = 2, written: int | None = 3) -> dict[str, Any]:
    found = packed(experts) if isinstance(experts, np.ndarray) else experts
    counts = {"prompt_tokens": prompt, "completion_tokens": written}
    return {"text": "\u2028", "meta_info": {"routed_experts": found, **counts}}


def test_a_response_a_line(tmp_path: Path) -> None:
    first, second = ids(4, seed=1), ids(5, seed=2)
    lines = [response(first), response(second, 3, 3)]
    trace = read(write_lines(tmp_path / "x.jsonl", lines), **SHAPE)
    np.testing.assert_array_equal(trace.experts, np.concatenate([first, second]))
    assert trace.phase.tolist() == [0, 0, 1, 1, 0, 0, 0, 1, 1]
    assert trace.request.tolist() == [0] * 4 + [1] * 5
    save_trace(trace, tmp_path / "t")
    assert load_trace(tmp_path / "t").info == trace.info


@pytest.mark.parametrize("many", [False, True])
def test_one_json_file(tmp_path: Path, many: bool) -> None:
    value = response(ids(4).tolist())
    (tmp_path / "x.json").write_text(json.dumps([value, value] if many else value, indent=1))
    assert read(tmp_path / "x.json").tokens == (8 if many else 4)


def test_lines_in_a_file_of_another_name(tmp_path: Path) -> None:
    lines = [response(ids(4)), response(ids(4))]
    assert read(write_lines(tmp_path / "x.json", lines), **SHAPE).tokens == 8


def test_rows_from_a_later_position(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "x.jsonl", [response(ids(4), 6, 3)])
    trace = read(path, **SHAPE)
    assert trace.position.tolist() == [4, 5, 6, 7]
    assert trace.phase.tolist() == [0, 0, 1, 1]


def test_choices_of_the_openai_endpoint(tmp_path: Path) -> None:
    choice = {"index": 0, "sgl_ext": {"routed_experts": packed(ids(4))}}
    usage = {"prompt_tokens": 2, "completion_tokens": 3}
    one = {"choices": [choice], "usage": usage}
    two = {"choices": [choice, choice], "usage": {**usage, "completion_tokens": 6}}
    trace = read(write_lines(tmp_path / "x.jsonl", [one, two]), **SHAPE)
    assert trace.request.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert trace.position.tolist() == [0, 1, 2, 3] * 3


def test_a_schema_says_the_shape(tmp_path: Path) -> None:
    value = response(ids(4))
    value["meta_info"]["expert_ids_schema"] = {"num_layers": 2, "top_k": 2}
    assert read(write_lines(tmp_path / "x.jsonl", [value])).layers == 2
    with pytest.raises(InputError, match="the file says 2 and --top-k says 3"):
        read(tmp_path / "x.jsonl", top_k=3)


def test_layers_without_a_router_are_dropped(tmp_path: Path) -> None:
    dense = np.zeros((4, 1, 2), np.int64)
    whole = np.concatenate([dense, ids(4)], axis=1)
    path = write_lines(tmp_path / "x.jsonl", [response(whole), response(whole)])
    trace = read(path, layers=3, top_k=2)
    np.testing.assert_array_equal(trace.experts[:4], ids(4))
    assert "1 layers without a router dropped" in trace.info.source


def test_the_prompt_may_be_an_option(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "x.jsonl", [response(ids(4), None, None)])
    assert read(path, prompt=3, **SHAPE).phase.tolist() == [0, 0, 0, 1]
    with pytest.raises(InputError, match=r"x\.jsonl:1: .* how long the prompts are; give --prompt"):
        read(path, **SHAPE)


GOOD = response(ids(4))
BAD: dict[str, tuple[list[Any], str]] = {
    "cut": ([GOOD, json.dumps(GOOD)[:-20]], r"x\.jsonl:2: not JSON"),
    "empty": ([""], "no request in it"),
    "no ids": ([GOOD, response(None)], r"x\.jsonl:2: routed_experts is missing"),
    "other json": ([{"a": 1}], "routed_experts is missing"),
    "no sgl_ext": ([{"choices": [{}]}], r"x\.jsonl:1, choice 0: routed_experts is missing"),
    "choices": ([{"choices": 3}], "choices is not a list"),
    "base64": ([GOOD, response("???")], r"x\.jsonl:2: routed_experts is not base64"),
    "half a row": ([response("AAAA")], "3 bytes, not whole rows of 2 layers x top-2"),
    "no bytes": ([response("")], "0 bytes"),
    "flat lists": ([response([1, 2])], "not lists of whole numbers, 3 deep"),
    "text": ([response([[["a", "b"]]])], "not lists of whole numbers"),
    "too many rows": ([response(ids(9))], "9 rows for 2 prompt and 3 written tokens"),
    "count": ([response(ids(4), "2")], "prompt_tokens is '2'"),  # type: ignore[arg-type]
    "range": ([GOOD, response(ids(4) + 6)], r"x\.jsonl:2: expert"),
    "not recorded": ([response(ids(4) - 9)], r"x\.jsonl:1: expert -"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_parse_is_named(tmp_path: Path, case: str) -> None:
    lines, message = BAD[case]
    with pytest.raises(FormatError, match=message):
        read(write_lines(tmp_path / "x.jsonl", lines), **SHAPE)


@pytest.mark.parametrize("option", ["experts", "layers", "top_k"])
def test_options_that_are_missing(tmp_path: Path, option: str) -> None:
    path = write_lines(tmp_path / "x.jsonl", [GOOD])
    with pytest.raises(InputError, match=f"give --{option.replace('_', '-')}"):
        read(path, **{**SHAPE, option: None})
