import math

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from offsim.accuracy.injection import WeightError, injected
from offsim.accuracy.texts import BATCH, Texts, embedded_texts, pieces
from offsim.codec.bounds import Bound
from offsim.errors import InputError
from offsim.testbed import tokenizer
from offsim.testbed.prose import paragraphs
from offsim.testbed.tasks import is_held_out

ROWS = [[5, 6, 7, 8, 90, 100], [17, 3, 44, 9, 1, 127], [9, 8, 7]]


def error(bound: float | None) -> WeightError:
    return WeightError(source="uniform", bound=None if bound is None else Bound(bound))


def log_probabilities(model: PreTrainedModel, row: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=torch.tensor([row])).logits[0, :-1].double().log_softmax(-1)


def test_likelihood_and_divergence_are_those_of_the_definition(
    tiny_model: PreTrainedModel,
) -> None:
    texts = Texts(tiny_model, ROWS)
    with injected(tiny_model, error(0.05)):
        found = texts.read(tiny_model)
        after = [log_probabilities(tiny_model, row) for row in ROWS]
    before = [log_probabilities(tiny_model, row) for row in ROWS]
    for index, row in enumerate(ROWS):
        p, q = before[index], after[index]
        expected = torch.nn.functional.kl_div(q, p, log_target=True, reduction="none").sum(-1)
        assert found.kl[index] == pytest.approx(float(expected.mean()), rel=1e-3)
        nll = torch.nn.functional.nll_loss(q, torch.tensor(row[1:]))
        assert found.nll[index] == pytest.approx(float(nll), rel=1e-4)
    assert found.tokens.tolist() == [5, 5, 2]
    mean = float(found.nll @ found.tokens) / 12
    assert found.perplexity == pytest.approx(math.exp(mean))
    assert found.bits_a_token == pytest.approx(mean / math.log(2))
    assert found.mean_kl == pytest.approx(float(found.kl @ found.tokens) / 12)


def test_a_bound_of_zero_diverges_by_nothing(tiny_model: PreTrainedModel) -> None:
    texts = Texts(tiny_model, ROWS)
    with injected(tiny_model, error(None)):
        found = texts.read(tiny_model)
    assert found.kl.tolist() == texts.unperturbed.kl.tolist() == [0, 0, 0]
    assert found.nll.tolist() == texts.unperturbed.nll.tolist()


def test_divergence_rises_with_the_bound(tiny_model: PreTrainedModel) -> None:
    texts = Texts(tiny_model, ROWS)
    found = []
    for bound in (0.001, 0.01, 0.1):
        with injected(tiny_model, error(bound)):
            found.append(texts.read(tiny_model).mean_kl)
    assert 0 < found[0] < found[1] / 10 < found[2] / 100


def test_what_is_unperturbed_is_so_within_an_injection(tiny_model: PreTrainedModel) -> None:
    plain = Texts(tiny_model, ROWS).unperturbed
    with injected(tiny_model, error(0.1)):
        assert Texts(tiny_model, ROWS).unperturbed.nll.tolist() == plain.nll.tolist()


def test_more_sequences_than_a_batch_keep_their_order(tiny_model: PreTrainedModel) -> None:
    rows = [[1 + i, 2 + i, 3 + i] for i in range(BATCH + 3)]
    found = Texts(tiny_model, rows).unperturbed.nll
    alone = [Texts(tiny_model, [row]).unperturbed.nll[0] for row in rows[-4:]]
    np.testing.assert_allclose(found[-4:], alone, rtol=1e-5)


def test_texts_are_solved_tasks_and_prose_that_is_held_out() -> None:
    rows = embedded_texts(7, 64)
    assert [len(row) for row in rows] == [64] * 7
    solved = "".join(tokenizer.decode(row) for row in rows[:4])
    whole = [line for line in solved.split("\n")[1:-1] if not line.startswith("capital")]
    assert len(whole) > 8
    for line in whole:
        prompt = line[: next(i for i in range(len(line)) if line[i] in "=?") + 1]
        asked = f"{prompt} " if " pens" in prompt or "How many?" in prompt else prompt
        assert is_held_out(asked), asked
    prose = "".join(tokenizer.decode(row) for row in rows[4:])
    assert prose in "\n" + "\n".join(paragraphs(held_out=True))
    assert rows == embedded_texts(7, 64)
    assert rows[:4] != embedded_texts(7, 64, seed=1)[:4]


def test_prose_that_is_not_there() -> None:
    with pytest.raises(InputError, match="sequences of 128 tokens of prose"):
        embedded_texts(10**6)


@pytest.mark.parametrize("rows", [[], [[5]], [[5, 6], [7]]])
def test_texts_that_predict_nothing_are_refused(
    tiny_model: PreTrainedModel, rows: list[list[int]]
) -> None:
    with pytest.raises(InputError, match="each of 2 tokens or more"):
        Texts(tiny_model, rows)


def test_a_text_is_cut_into_pieces_of_one_length() -> None:
    assert pieces(range(10), 5, 4) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert pieces(range(10), 1, 4) == [[0, 1, 2, 3]]
    assert pieces(range(3), 5, 4) == [[0, 1, 2]]
    with pytest.raises(InputError, match="2 tokens or more"):
        pieces([7], 5)
