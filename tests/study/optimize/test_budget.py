import pytest

from offsim.errors import InputError
from offsim.study.optimize.budget import Budget

from .cases import losses


def test_a_budget_is_a_divergence_or_a_drop() -> None:
    assert Budget.parse("kl<=0.01") == Budget("kl", 0.01)
    assert Budget.parse(" ica_drop <= 1.5% ") == Budget("ica_drop", 0.015)
    assert Budget.parse("ica_drop<=0.02") == Budget("ica_drop", 0.02)
    assert Budget.parse("kl<=1e-3").nats(losses()) == 1e-3


@pytest.mark.parametrize("text", ["kl<0.1", "kl<=0", "kl<=x", "kl<=1%", "loss<=1", "ica_drop<=-1"])
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="not of the form"):
        Budget.parse(text)


def test_a_drop_is_the_largest_divergence_that_dropped_by_no_more() -> None:
    # The first two, 2 and 1 points, are 1.5 both once they rise.
    assert Budget.parse("ica_drop<=1.5%").nats(losses()) == pytest.approx(0.1)
    assert Budget.parse("ica_drop<=20%").nats(losses()) == pytest.approx(1.0)
    with pytest.raises(InputError, match=r"dropped ICA by 1\.5%, more than 1\.0%"):
        Budget.parse("ica_drop<=1%").nats(losses())
    none = losses().model_copy(update={"joints": ()})
    with pytest.raises(InputError, match="asked no items"):
        Budget.parse("ica_drop<=1%").nats(none)
