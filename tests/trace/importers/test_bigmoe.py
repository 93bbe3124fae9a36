from pathlib import Path

import numpy as np
import pytest

from offsim.errors import FormatError, InputError
from offsim.trace import PREFILL, Trace, load_trace, save_trace, steps_of
from offsim.trace.importers import Options, importer_named

SHARED_NAME = "bigmoeonedge_gpt-oss-120b.route.csv"
TEXT = """# route_trace v1
# model=/data/some folder/m.gguf arch=toy n_layer=2 n_expert=4 n_expert_used=2
# layer=0 expert_bytes=100 dense_bytes=7
# layer=1 expert_bytes=200 dense_bytes=7
turn,phase,step,layer,slot,expert,weight,residency,expert_bytes,dropped
0,0,0,0,0,3,0.75,0,100,0
0,0,0,0,1,1,0.25,0,100,0
0,0,1,0,0,2,0.6,0,100,0
0,0,1,0,1,3,0.4,0,0,0
0,0,0,1,0,0,0.5,0,200,0
0,0,0,1,1,2,0.5,0,200,0
0,0,1,1,0,1,0.7,0,200,0
0,0,1,1,1,0,0.3,0,0,0
0,1,2,0,0,1,0.9,1,0,0
0,1,2,0,1,0,0.1,0,100,0
0,1,2,1,0,3,0.8,0,200,0
0,1,2,1,1,2,0.2,1,0,0"""
LINES = TEXT.split("\n")


def read(path: Path, **options: object) -> Trace:
    return importer_named("bigmoe").read(path, Options(**options))


def written(path: Path, lines: list[str]) -> Path:
    (path / "x.csv").write_text("\n".join(lines) + "\n")
    return path / "x.csv"


def test_the_shared_trace(shared: Path, tmp_path: Path) -> None:
    path = shared / "traces" / SHARED_NAME
    if not path.is_file():
        pytest.skip(f"needs {path.name} in shared/traces")
    trace = read(path)
    assert (trace.tokens, trace.layers, trace.top_k) == (85 + 64, 36, 2)
    assert int((trace.phase == PREFILL).sum()) == 85
    assert trace.info.experts_per_layer == 128
    assert trace.info.layer_bytes == (13219200,) * 36
    assert trace.info.model == "gpt-oss-120b-Q4_K_M.gguf"
    # The device counted so many distinct experts of a layer and pass.
    lookups = sum(
        len(np.unique(step.experts[:, layer])) for step in steps_of(trace) for layer in range(36)
    )
    assert lookups == 6375
    save_trace(trace, tmp_path / "t")
    again = load_trace(tmp_path / "t")
    assert again.info == trace.info
    np.testing.assert_array_equal(again.experts, trace.experts)


def test_by_hand(tmp_path: Path) -> None:
    trace = read(written(tmp_path, LINES))
    assert trace.experts.tolist() == [[[3, 1], [0, 2]], [[2, 3], [1, 0]], [[1, 0], [3, 2]]]
    assert trace.phase.tolist() == [0, 0, 1]
    np.testing.assert_allclose(trace.weights[1], [[0.6, 0.4], [0.7, 0.3]], atol=1e-3)
    assert trace.info.layer_bytes == (100, 200)
    assert trace.info.model == "m.gguf"
    assert trace.info.source == "imported from x.csv"


def test_columns_go_by_name(tmp_path: Path) -> None:
    head, rows = LINES[:4], [line.split(",") for line in LINES[4:]]
    turned = [",".join(reversed(row)) for row in rows]
    expected = read(written(tmp_path, LINES)).experts
    np.testing.assert_array_equal(read(written(tmp_path, head + turned)).experts, expected)


def test_a_turn_is_a_request(tmp_path: Path) -> None:
    more = ["1" + line[1:].replace(",2,", ",9,", 1) for line in LINES[-4:]]
    trace = read(written(tmp_path, LINES + more))
    assert trace.request.tolist() == [0, 0, 0, 1]
    assert trace.position.tolist() == [0, 1, 2, 9]


def test_the_last_layer_of_a_prompt_may_be_its_last_token(tmp_path: Path) -> None:
    trace = read(written(tmp_path, LINES[:9] + LINES[11:]))
    assert trace.experts[:2, 1].tolist() == [[1, 0], [1, 0]]
    assert "1 prompt tokens were not computed in the last layer" in trace.info.source


def test_weights_may_be_unknown(tmp_path: Path) -> None:
    lines = [*LINES[:6], LINES[6].replace("0.25", "nan"), *LINES[7:]]
    trace = read(written(tmp_path, lines))
    assert (trace.weights == 0.5).all()
    assert "even shares" in trace.info.source


def test_layers_without_bytes_give_no_sizes(tmp_path: Path) -> None:
    lines = [*LINES[:3], LINES[3].replace("200", "0"), *LINES[4:]]
    assert read(written(tmp_path, lines)).info.layer_bytes is None


def test_an_option_that_disagrees(tmp_path: Path) -> None:
    path = written(tmp_path, LINES)
    assert read(path, experts=4, model="mine").info.model == "mine"
    with pytest.raises(InputError, match="the file says 4 and --experts says 5"):
        read(path, experts=5)


def swapped(line: int, old: str, new: str) -> list[str]:
    lines = list(LINES)
    assert old in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(old, new, 1)
    return lines


BAD = {
    "empty": ([""], r"x\.csv:1: the first line is not"),
    "header": (swapped(1, "v1", "v2"), r"x\.csv:1: the first line is not"),
    "model": (swapped(2, "n_expert=4 ", ""), r"x\.csv:2: not the line of the model"),
    "layer line": (LINES[:3] + LINES[4:], r"x\.csv:4: 1 `# layer=` lines for 2 layers"),
    "preamble alone": (LINES[:4], r"x\.csv:4: the file ends before"),
    "no rows": (LINES[:5], r"x\.csv:5: no line follows"),
    "columns": (swapped(5, "expert,", "exp,"), r"x\.csv:5: there is no column expert"),
    "missing line": (LINES[:13] + LINES[14:], r"x\.csv:14: .*step 2, layer 0, slot 0 is missing"),
    "last missing": (LINES[:-1], r"x\.csv:16: .*step 2, layer 1, slot 1 is missing"),
    "twice": ([*LINES, LINES[-1]], r"x\.csv:18: .*is missing or there twice"),
    "cut": ([*LINES[:-1], LINES[-1][:9]], r"x\.csv:17: 5 columns, not 10; is the file cut"),
    "range": (swapped(9, "0,0,1,0,1,3", "0,0,1,0,1,4"), r"x\.csv:9: expert is 4, not 0 to 3"),
    "below": (swapped(9, "0,0,1,0,1,3", "0,0,1,0,1,-1"), r"x\.csv:9: expert is -1"),
    "slot": (swapped(9, "0,0,1,0,1,3", "0,0,1,0,2,3"), r"x\.csv:9: slot is 2"),
    "layer": (swapped(9, "0,0,1,0,1,3", "0,0,1,7,1,3"), r"x\.csv:9: layer 7 has no"),
    "phase": (swapped(9, "0,0,1,0,1,3", "0,2,1,0,1,3"), r"x\.csv:9: phase is 2"),
    "text": (swapped(9, "0,0,1,0,1,3", "0,0,1,0,1,x"), r"x\.csv:9: invalid literal.*'x'"),
    "float": (swapped(9, "0,0,1,0,1,3", "0,0,1.5,0,1,3"), r"x\.csv:9: invalid literal"),
    "weight": (swapped(9, "0.4", "1.5"), r"x\.csv:9: weight is 1.5"),
    "weight text": (swapped(9, "0.4", "much"), r"x\.csv:9: could not convert"),
    "expert twice": (
        swapped(9, "0,0,1,0,1,3", "0,0,1,0,1,2"),
        r"x\.csv:9: step 1 takes expert 2 twice in layer 0",
    ),
    "both phases": (swapped(9, "0,0,1,0,1,3", "0,1,1,0,1,3"), r"x\.csv:8: step 1 is of both"),
    "gap": (
        [line.replace("0,1,2,", "0,1,5,", 1) for line in LINES],
        r"x\.csv:14: step 5 does not follow",
    ),
    "order": (
        [line.replace("0,0,0,", "0,1,0,", 1) for line in LINES],
        r"x\.csv:8: step 1 is prefill after decode",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_parse_is_named(tmp_path: Path, case: str) -> None:
    lines, message = BAD[case]
    with pytest.raises(FormatError, match=message):
        read(written(tmp_path, lines))
