import pytest
from pydantic import ValidationError

from offsim.policy.policy import Policy


def test_text() -> None:
    assert str(Policy()) == "raw, lru 4"
    assert str(Policy(codec="cuszp", bound=1e-3, slots=2)) == "cuszp 0.001, lru 2"


@pytest.mark.parametrize(
    "fields",
    [{"bound": -1.0}, {"bound": float("nan")}, {"bound": float("inf")}, {"slots": -1}, {"slot": 1}],
    ids=str,
)
def test_fields_that_cannot_be_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Policy(**fields)


def test_equal_policies_are_one_key() -> None:
    assert len({Policy(slots=3), Policy(slots=3), Policy(slots=2)}) == 2
