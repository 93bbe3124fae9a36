from pathlib import Path

import numpy as np
import pytest

from offsim.errors import FormatError
from offsim.files import read_json, write_json
from offsim.study.optimize.proof_file import Proof, gain, proof_table

from .proofs import proof, uniform, usual, way


def test_the_gain_is_against_a_bound_of_equal_loss_by_hand() -> None:
    found = gain(usual(answer_s=0.0045))  # KL 0.04 is half-way from 0.01 to 0.16 by logarithms
    assert found is not None
    assert found.seconds == pytest.approx(0.006)
    assert found.share == pytest.approx(0.25)
    assert (found.low, found.high) == pytest.approx((0.25, 0.25))
    assert found.between == ("one bound, 0.25", "one bound, 0.5")


def test_what_was_predicted_is_at_equal_estimated_loss() -> None:
    found = gain(usual(answer_s=0.0045), predicted=True)  # all losses twice, all times 2 % more
    assert found is not None
    assert (found.seconds, found.share) == pytest.approx((1.02 * 0.006, 0.25))
    assert found.low == found.high == found.share


def test_a_slower_answer_has_a_negative_gain() -> None:
    found = gain(usual(answer_s=0.009))
    assert found is not None
    assert found.share == pytest.approx(-0.5)


def test_repeats_give_the_ends() -> None:
    ours, less, more = [3.0, 5.0, 4.0], [8.0] * 3, [0.0] * 3
    made = proof(
        way("optimised", "optimised", 4.0, 0.04, None, ours),
        uniform(0.25, 8.0, 0.01, less),
        uniform(0.5, 1e-9, 0.16, more),
    )
    found = gain(made)
    assert found is not None
    ends = np.percentile([1 - 3 / 4, 1 - 5 / 4, 0.0], (10, 90))
    assert (found.low, found.high) == pytest.approx(tuple(ends))


@pytest.mark.parametrize("kl", [0.001, 0.2])
def test_no_gain_is_told_beyond_the_ladder(kl: float) -> None:
    assert gain(usual(kl=kl)) is None


def test_the_rival_is_the_fastest_single_bound_that_loses_no_more() -> None:
    assert (rival := usual().fastest_of("uniform")) is not None
    assert rival.name == "one bound, 0.25"
    assert usual(kl=0.001).fastest_of("uniform") is None
    assert (loose := usual(kl=0.2).fastest_of("uniform")) is not None
    assert loose.name == "one bound, 0.5"


def test_the_table_has_a_row_a_way() -> None:
    table = proof_table(usual())
    assert list(table["stored"])[:2] == ["optimised", "raw"]
    assert table["tpot_error"].tolist() == pytest.approx([0.02] * 5)
    assert np.isnan(table.loc[table["kind"] == "other", "kl_estimated_mean"]).all()


def test_the_file_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "proof.json"
    facts = usual().model_dump(mode="json")
    write_json(path, facts)
    assert read_json(path, Proof) == usual()
    write_json(path, facts | {"version": 2})
    with pytest.raises(FormatError, match=r"proof\.json"):
        read_json(path, Proof)
