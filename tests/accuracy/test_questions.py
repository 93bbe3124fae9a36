import pytest
from transformers import PreTrainedModel

from offsim.accuracy.injection import WeightError, injected
from offsim.accuracy.questions import Questions, _agreement
from offsim.codec.bounds import Bound
from offsim.testbed.generate import answers
from offsim.testbed.load import load

TASKS = ["add", "word", "copy"]
LARGE = WeightError(source="uniform", bound=Bound(1.0, "sigma"))


@pytest.fixture(scope="module")
def embedded() -> PreTrainedModel:
    return load()


@pytest.fixture(scope="module")
def questions(embedded: PreTrainedModel) -> Questions:
    return Questions(embedded, 10, tasks=TASKS)


def test_no_error_changes_no_answer(embedded: PreTrainedModel, questions: Questions) -> None:
    with injected(embedded):
        found = questions.ask(embedded)
    assert found.tasks["word"].outputs == questions.unperturbed.tasks["word"].outputs
    assert found.exact().all()
    assert found.agreed().tolist() == [1.0] * 30


def test_answers_under_an_error_are_those_of_plain_decoding(
    embedded: PreTrainedModel, questions: Questions
) -> None:
    with injected(embedded, LARGE):
        found = questions.ask(embedded)
        for task in TASKS:
            plain = answers(embedded, [item.prompt for item in questions.items[task]])
            assert list(found.tasks[task].outputs) == plain
    assert 0 < found.exact().mean() < 1
    assert (found.agreed() >= found.exact()).all()


def test_scores_are_per_item_and_by_task(embedded: PreTrainedModel, questions: Questions) -> None:
    found = questions.unperturbed
    assert found.pia().shape == found.ica().shape == (30,)
    assert found.pia("copy").tolist() == found.tasks["copy"].pia.tolist()
    assert (found.pia() | ~found.ica()).all()  # the right format has the right content
    assert found.ica("add", "copy").mean() > 0.8


def test_items_are_a_function_of_the_seed(embedded: PreTrainedModel, questions: Questions) -> None:
    with injected(embedded, LARGE):  # asked without the error all the same
        again = Questions(embedded, 10, tasks=TASKS)
    assert again.items == questions.items
    assert again.unperturbed.tasks["word"].outputs == questions.unperturbed.tasks["word"].outputs


@pytest.mark.parametrize(
    ("before", "after", "share"),
    [
        ("[12]", "[12]", 1.0),
        ("[12]", "[13]", 2 / 5),
        ("[12]", "[12]]", 4 / 5),
        ("[12]", "[12", 3 / 5),
        ("", "x", 0.0),
    ],
)
def test_agreement_counts_up_to_the_first_difference(before: str, after: str, share: float) -> None:
    assert _agreement(before, after) == share
