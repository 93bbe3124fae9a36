from pathlib import Path

import pytest

from offsim.codec.bounds import Bound
from offsim.errors import FormatError, InputError
from offsim.files import write_json
from offsim.policy.bounds import Bounds, Rule
from offsim.report.decision import write_decision
from offsim.report.decision_figures import frontier, places, surroundings
from offsim.report.decision_findings import buys, known_tasks, recommended, sure
from offsim.report.style import png
from offsim.study.optimize.proof_file import Proof
from tests.report.test_page import _read
from tests.study.optimize.proofs import AROUND, BY_TASK, proof, uniform, usual, way


def test_it_says_what_to_do() -> None:
    first, second = recommended(usual())
    assert first == (
        "Store the experts of toy with cuszp, a bound a layer: 66.7 % of the matrices at 2⁻², "
        "33.3 % of the matrices at 2⁻¹."
    )
    assert second.endswith("over a link of 60.0 MB/s, and for a budget of kl<=0.05.")


def mixed() -> Proof:
    """The answer has another codec in one layer."""
    table = Bounds(default=Bound(0.25), rules=(Rule(codec="rtn-int4", layers=(1,)),))
    made = usual()
    answer = made.answer.model_copy(update={"bounds": table})
    return made.model_copy(update={"ways": [answer, *made.ways[1:]]})


def test_codecs_that_are_mixed_are_named() -> None:
    assert recommended(mixed())[0] == (
        "Store the experts of toy with cuszp and rtn-int4, a codec and bound a layer: 66.7 % of "
        "the matrices at 2⁻², 33.3 % of the matrices under rtn-int4."
    )
    figure = places(mixed())
    heat, bar = figure.axes
    assert [text.get_text() for text in heat.texts] == ["2⁻²", "rtn-int4", "2⁻²"]
    assert [text.get_text() for text in bar.get_yticklabels()] == ["2⁻²", "rtn-int4"]
    assert figure.get_suptitle() == "The codec or bound of each layer"


def test_a_single_bound_that_was_better_in_both_is_recommended() -> None:
    made = proof(*usual(answer_s=0.009).ways[:-1])
    assert recommended(made)[0].startswith(
        "In the runs one bound of 0.25 was better than the table that was found: 8.00 ms against "
        "9.00, 11.1 % less, and KL 0.01 against 0.04. Take that"
    )
    assert len(recommended(made)) == 3


def test_so_is_another_codec() -> None:
    first = recommended(usual(answer_s=0.009))[0]
    assert first.startswith("In the runs rtn-int8 was better than the table that was found: 7.00 ")


def test_it_says_what_that_buys_and_costs() -> None:
    without, single, other, loss = buys(usual(answer_s=0.0045))
    assert without == "TPOT is 4.50 ms, against 12.00 ms without compression: 62.5 % less."
    assert "(between one bound, 0.25 and one bound, 0.5) would take 6.00 ms" in single
    assert "takes 25.0 % less (-25.0 % to -25.0 % over repeats, beyond the noise)" in single
    assert single.endswith("was predicted.")
    assert other == (
        "Of the other codecs that lose no more, rtn-int8 is the fastest, with 7.00 ms and KL "
        "0.002: the answer takes 35.7 % less (-35.7 % to -35.7 % over repeats, beyond the noise)."
    )
    assert loss.startswith("It loses KL 0.04 nats a token (0.02 to 0.08), within the budget")


def test_an_answer_that_is_no_better_is_said_to_be_so() -> None:
    _, single, _, loss = buys(usual(answer_s=0.009).model_copy(update={"nats": 0.03}))
    assert "takes 50.0 % more" in single
    assert "differs by a factor of 2.3 between the layers (ESTIMATED" in single
    assert "above the budget of 0.03" in loss


@pytest.mark.parametrize(
    ("tpot", "kl", "says"),
    [
        (0.003, 0.02, "takes 3.00 ms, 50.0 % less, and loses KL 0.02"),
        (0.009, 0.02, "takes 9.00 ms, 50.0 % more, and loses KL 0.02"),
        (0.003, 0.2, "No bound that goes by the router's weight loses as little"),
    ],
)
def test_bounds_that_go_by_the_weight_are_held_against_it(
    tpot: float, kl: float, says: str
) -> None:
    adaptive = way("0.25, and 0.5 below a weight of 0.35", "adaptive", tpot, kl)
    asked = adaptive.model_copy(update={"ica": None, "ica_change": None})
    assert says in buys(proof(*usual().ways, asked))[4]


def test_without_two_bounds_to_compare_the_nearest_is_named() -> None:
    answer = way("optimised", "optimised", 0.006, 0.2, usual().answer.bounds)
    (_, single, _) = buys(proof(answer, uniform(0.25, 0.008, 0.01), way("raw", "raw", 0.01, 0.0)))
    assert "The fastest single bound that loses no more (one bound, 0.25) takes 8.00 ms" in single
    alone, _ = buys(proof(answer))[:2]
    assert alone == "TPOT is 6.00 ms."
    assert buys(proof(answer))[1] == "No single bound of the ladder loses as little as it does."


def test_a_bound_for_each_task_is_held_against_one_for_all() -> None:
    assert known_tasks(usual()) == []
    made = usual().model_copy(update={"by_task": BY_TASK})
    latency, answers, _ = known_tasks(made)
    assert latency == (
        "One bound for all tasks, 2⁻², takes 8.00 ms of TPOT in the mean over the tasks; a bound "
        "for each takes 6.00 ms: 25.0 % less (-25.0 % to -25.0 % over repeats, beyond the noise). "
        "25.0 % less was predicted."
    )
    assert answers == (
        "With it 2.0 % more of 500 items are answered rightly (-1.0 % to +5.0 %, within the noise)."
    )
    other = BY_TASK.model_copy(update={"decisions_equal": False})
    assert known_tasks(made.model_copy(update={"by_task": other}))[-1].endswith("DIFFERENT.")


def test_the_page_has_a_row_for_each_task(tmp_path: Path) -> None:
    made = usual().model_copy(update={"by_task": BY_TASK})
    write_json(tmp_path / "proof.json", made.model_dump(mode="json"))
    text = write_decision(tmp_path).read_text("utf-8")
    assert "Where it is known which task a request is of" in text
    for cell in ("word", "2⁻¹", "-12.0 %"):
        assert cell in text


def test_it_says_how_sure_that_is() -> None:
    predicted, loss, search, runs = sure(usual())
    assert "predicted as 6.12 ms (90 % band 5.51 to 6.73); it is off by +2.0 %" in predicted
    assert "estimated as KL 0.08 (0.04 to 0.16)" in loss
    assert "All choices within the budget were simulated (64)" in search
    assert "run 3 times, interleaved; decision logs of runs and simulations are equal" in runs
    gap = usual().model_copy(update={"exact": False, "gap": 0.02})
    assert "faster by more than 2.0 %" in sure(gap)[2]


@pytest.mark.parametrize("by", ["layer", "matrix", "expert"])
def test_the_figures_say_where_numbers_come_from(by: str) -> None:
    made = usual().model_copy(update={"by": by})
    labels = {text.get_text() for text in frontier(made).texts}
    assert {"MEASURED", "SIMULATED", "ESTIMATED"} <= labels
    (heat, _) = places(made).axes
    rows = {"layer": 1, "matrix": 3, "expert": 4}[by]
    assert len(heat.texts) == 3 * rows
    assert "2⁻¹" in {text.get_text() for text in heat.texts}


def test_what_the_answer_depends_on_is_drawn() -> None:
    bars, winners, *_ = surroundings(usual(), AROUND).axes
    assert [text.get_text() for text in bars.get_yticklabels()] == [
        "compute",
        "bandwidth of the link",
    ]
    ends = [patch.get_x() + patch.get_width() for patch in bars.patches]
    assert ends == pytest.approx([5.5, 6.5, 8, 5])
    assert [text.get_text() for text in winners.texts][:3] == ["50 %", "40 %", "0 %"]
    alone = usual().model_copy(update={"around": None})
    assert alone.around is None


def test_the_page_holds_all_of_it_and_is_the_same_again(tmp_path: Path) -> None:
    write_json(tmp_path / "proof.json", usual().model_dump(mode="json"))
    page = write_decision(tmp_path)
    text = page.read_text(encoding="utf-8")
    for said in (*recommended(usual()), *buys(usual()), *sure(usual())):
        assert said.replace("<", "&lt;") in text
    assert text.count("data:image/png;base64,") == 3
    assert len(_read(page).images) == 3
    again = write_decision(tmp_path, tmp_path / "again.html")
    assert again.read_text(encoding="utf-8") == text
    assert png(frontier(usual())) == png(frontier(usual()))


def test_a_folder_without_a_proof_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"proof\.json: no such file; make the folder with"):
        write_decision(tmp_path)
    write_json(tmp_path / "proof.json", {"format": "offsim-proof"})
    with pytest.raises(FormatError):
        write_decision(tmp_path)
