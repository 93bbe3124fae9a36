import pytest
from transformers import PreTrainedModel

from offsim.accuracy import accuracy
from offsim.testbed.scores import Score
from offsim.testbed.tasks import TASKS


def test_intervals_are_wilson(monkeypatch: pytest.MonkeyPatch, tiny_model: PreTrainedModel) -> None:
    monkeypatch.setattr(
        "offsim.accuracy.tasks.task_scores",
        lambda model, items, seed, tasks: [Score(tasks[0], items, pia=0.9, ica=0.0)],
    )
    results = accuracy(tiny_model, 100)
    assert [one.task for one in results] == list(TASKS)
    # Wilson interval of 90 of 100, and of 0 of 100.
    assert (results[0].pia_low, results[0].pia_high) == pytest.approx((0.8256, 0.9448), abs=1e-4)
    assert (results[0].ica_low, results[0].ica_high) == pytest.approx((0.0, 0.0370), abs=1e-4)


def test_a_model_that_knows_nothing_scores_nothing(tiny_model: PreTrainedModel) -> None:
    assert sum(one.ica for one in accuracy(tiny_model, 2)) == 0
