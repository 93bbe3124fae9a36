import numpy as np
import pytest
import torch

from offsim.errors import InputError
from offsim.model.sampling import Sampling, likeliest

LOGITS = torch.tensor([0.0, 2.0, 1.0, -1.0])


def shares(sampling: Sampling, count: int = 4000) -> np.ndarray:
    choose = sampling.of(0)
    drawn = [choose(LOGITS) for _ in range(count)]
    return np.bincount(drawn, minlength=4) / count


def test_the_likeliest_is_the_first_of_the_largest() -> None:
    assert likeliest(LOGITS) == 1
    assert likeliest(torch.tensor([1.0, 3.0, 3.0])) == 1


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_tokens_are_drawn_by_their_probabilities(temperature: float) -> None:
    expected = torch.softmax(LOGITS.double() / temperature, 0).numpy()
    assert np.abs(shares(Sampling(temperature)) - expected).max() < 0.03  # 4 times its spread


def test_top_p_keeps_the_fewest_tokens_that_have_the_share() -> None:
    chances = torch.softmax(LOGITS.double(), 0).numpy()  # 0.087, 0.644, 0.237, 0.032
    assert shares(Sampling(1.0, top_p=0.6))[1] == 1
    found = shares(Sampling(1.0, top_p=0.65))
    assert found[0] == found[3] == 0
    assert found[1] == pytest.approx(chances[1] / (chances[1] + chances[2]), abs=0.03)
    assert (shares(Sampling(1.0, top_p=0.95)) > 0).tolist() == [True, True, True, False]


def test_next_to_no_temperature_is_greedy() -> None:
    for temperature in (1e-300, 1e-3):
        choose = Sampling(temperature, seed=3).of(1)
        assert {choose(LOGITS) for _ in range(50)} == {1}


def test_a_token_without_probability_is_never_drawn() -> None:
    logits = torch.tensor([-torch.inf, 0.0, -torch.inf])
    choose = Sampling(5.0).of(0)
    assert {choose(logits) for _ in range(200)} == {1}


def test_each_request_and_seed_draws_its_own_and_the_same_again() -> None:
    flat = torch.zeros(1000)

    def drawn(seed: int, request: int) -> list[int]:
        choose = Sampling(1.0, seed=seed).of(request)
        return [choose(flat) for _ in range(5)]

    assert drawn(0, 0) == drawn(0, 0)
    assert len({tuple(drawn(seed, request)) for seed in range(3) for request in range(3)}) == 9


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        ((0.0,), "a temperature is a number above 0, not 0; leave it out"),
        ((float("inf"),), "a temperature is a number above 0, not inf"),
        ((1.0, 0.0), "top-p is a share above 0 to 1, not 0"),
        ((1.0, 1.5), "top-p is a share above 0 to 1, not 1.5"),
        ((1.0, 0.5, -1), "a seed of draws is 0 or more, not -1"),
    ],
)
def test_what_cannot_be_is_refused(numbers: tuple[float, ...], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Sampling(*numbers)  # type: ignore[arg-type]


def test_it_says_what_it_is() -> None:
    assert str(Sampling(0.8)) == "drawn at temperature 0.8, seed 0"
    assert str(Sampling(0.8, 0.95, 3)) == "drawn at temperature 0.8, top-p 0.95, seed 3"
