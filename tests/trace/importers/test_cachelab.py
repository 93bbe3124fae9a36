import json
from pathlib import Path
from typing import Any

import pytest

from offsim.errors import FormatError, InputError
from offsim.trace import Trace, load_trace, save_trace
from offsim.trace.importers import Options, importer_named

from .files import write_lines

FORMAT = {"record_type": "metadata", "format": "moe-cache-lab.routing-jsonl"}
HEAD = {
    **FORMAT,
    "format_version": 1,
    "model_id": "synthetic/m",
    "num_experts": 4,
    "experts_per_token": 2,
}


def event(phase: str, position: int, layer: int, experts: list[Any], **more: Any) -> dict[str, Any]:
    return {
        "record_type": "routing_selection",
        "phase": phase,
        "token_position": position,
        "layer": layer,
        "selected_experts": experts,
        "selected_probabilities": [0.75, 0.25],
        **more,
    }


EVENTS = [
    event("prompt", 0, 2, [0, 1]),
    event("prompt", 1, 2, [1, 2]),
    event("prompt", 0, 5, [0, 2]),
    event("prompt", 1, 5, [0, 3]),
    event("generated", 2, 2, [3, 2]),
    event("generated", 2, 5, [0, 2]),
]
STAGES = [
    {"routing_stage": "encoder", "num_experts": 9, "assigned_experts_per_token": 1},
    {"routing_stage": "decoder", "num_experts": 4, "assigned_experts_per_token": 2},
]
HEAD2 = {**FORMAT, "format_version": 2, "model_id": "m2", "routing_stages": STAGES}


def read(path: Path, **options: object) -> Trace:
    return importer_named("cachelab").read(path, Options(**options))


def second(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Events as version 2 has them."""
    stage = {"routing_stage": "decoder", "assignment_state": "assigned"}
    return [{**line, **stage, "phase": f"decoder_{line['phase']}"} for line in events]


def test_version_1(tmp_path: Path) -> None:
    trace = read(write_lines(tmp_path / "x.jsonl", [HEAD, *EVENTS]))
    expected = [[[0, 1], [0, 2]], [[1, 2], [0, 3]], [[3, 2], [0, 2]]]
    assert trace.experts.tolist() == expected
    assert trace.phase.tolist() == [0, 0, 1]
    assert trace.weights[0, 0].tolist() == [0.75, 0.25]
    assert (trace.info.model, trace.info.experts_per_layer) == ("synthetic/m", 4)
    save_trace(trace, tmp_path / "t")
    assert load_trace(tmp_path / "t").info == trace.info


def test_version_2_is_its_decoder(tmp_path: Path) -> None:
    encoder = {**event("source", 0, 2, [8]), "routing_stage": "encoder"}
    trace = read(write_lines(tmp_path / "x.jsonl", [HEAD2, encoder, *second(EVENTS)]))
    assert trace.tokens == 3
    assert trace.info.experts_per_layer == 4
    assert "1 records of the encoder left out" in trace.info.source


def test_what_a_producer_may_leave_out(tmp_path: Path) -> None:
    head = {key: HEAD[key] for key in (*FORMAT, "format_version", "model_id")}
    events = [{**line, "selected_probabilities": []} for line in EVENTS]
    path = write_lines(tmp_path / "x.jsonl", [head, *events])
    assert "even shares" in read(path, experts=4).info.source
    with pytest.raises(InputError, match="give --experts"):
        read(path)


def changed(line: int, **change: Any) -> list[Any]:
    lines = [HEAD, *EVENTS]
    lines[line] = {**lines[line], **change}
    return lines


BAD: dict[str, tuple[list[Any], str]] = {
    "empty": ([""], "is not the metadata"),
    "header": (EVENTS, r"x\.jsonl:1: the first line is not the metadata"),
    "format": (changed(0, format="other"), "is not the metadata of moe-cache-lab"),
    "version": (changed(0, format_version=3), "format_version is 3; 1 and 2 are known"),
    "head alone": ([HEAD], "no routing_selection in it"),
    "cut": ([HEAD, json.dumps(EVENTS[0])[:-9]], r"x\.jsonl:2: not JSON"),
    "missing line": ([HEAD, *EVENTS[:-1]], r"x\.jsonl:6: position 2 has 1 layers, .* has 2"),
    "position": ([HEAD, *EVENTS[:4], event("generated", 4, 2, [0, 1])], "position 4 follows 1"),
    "twice": ([HEAD, *EVENTS, EVENTS[-1]], r"x\.jsonl:8: position 2 has layer 5 twice"),
    "record": (changed(3, record_type="x"), r"x\.jsonl:4: record_type is not"),
    "phase": (changed(3, phase="decode"), r"x\.jsonl:4: phase is 'decode'; there are prompt"),
    "range": (changed(3, selected_experts=[0, 4]), r"x\.jsonl:4: expert 4; ids are 0 to 3"),
    "width": (changed(3, selected_experts=[0]), r"x\.jsonl:4: 1 experts, not 2"),
    "expert twice": (changed(3, selected_experts=[1, 1]), r"x\.jsonl:4: an expert is selected"),
    "text": (changed(3, token_position="0"), r"x\.jsonl:4: token_position is '0'"),
    "ids": (changed(3, selected_experts=["a", "b"]), r"x\.jsonl:4: expert ids are not lists"),
    "share": (changed(3, selected_probabilities=[1.5, 0]), "not numbers from 0 to 1"),
    "shares": (changed(3, selected_probabilities=[1.0]), "1 probabilities for 2 experts"),
    "unassigned": (
        [HEAD2, {**second(EVENTS)[0], "assignment_state": "unassigned", "selected_experts": []}],
        r"x\.jsonl:2: a token without an expert",
    ),
    "no stages": ([{**HEAD2, "routing_stages": None}], "routing_stages is missing"),
    "no decoder": ([{**HEAD2, "routing_stages": STAGES[:1]}], "no decoder among"),
    "prompt late": (
        [HEAD, *EVENTS, event("prompt", 3, 2, [0, 1]), event("prompt", 3, 5, [0, 1])],
        "a prompt position after a generated one",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_parse_is_named(tmp_path: Path, case: str) -> None:
    lines, message = BAD[case]
    with pytest.raises(FormatError, match=message):
        read(write_lines(tmp_path / "x.jsonl", lines))


def test_widths_that_differ(tmp_path: Path) -> None:
    lines: list[Any] = [{**HEAD, "experts_per_token": None}, *EVENTS]
    lines[3] = event("prompt", 0, 5, [0, 1, 2], selected_probabilities=[])
    with pytest.raises(FormatError, match=r"x\.jsonl:4: 3 experts where the first line has 2"):
        read(write_lines(tmp_path / "x.jsonl", lines))
