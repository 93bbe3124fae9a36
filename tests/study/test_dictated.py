"""Texts read while a policy runs, against the same model with its experts decoded once."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from offsim.accuracy import Texts, embedded_texts
from offsim.codec import codec_named
from offsim.policy.policy import Policy
from offsim.policy.precision import Low
from offsim.study.dictated import Dictated, read_under
from offsim.study.prepare import under
from offsim.study.study import embedded
from offsim.study.subject import ModelSubject

READ = embedded_texts(2, 12)
TIGHT, LOOSE = 2.0**-6, 2.0**-4


@pytest.fixture(scope="module")
def subject() -> ModelSubject:
    return embedded()


@pytest.fixture(scope="module")
def texts(subject: ModelSubject) -> Texts:
    return Texts(subject.model, READ)


def test_a_text_is_dictated() -> None:
    made = Dictated([[5, 6, 7], [1, 2]])
    choose, other = made.of(0), made.of(1)
    logits = torch.tensor([9.0, 0.0])  # would have chosen 0
    assert (choose(logits), other(logits), choose(-logits)) == (6, 2, 7)
    assert [len(rows) for rows in made.logits] == [2, 1]
    assert torch.equal(made.logits[0][1], -logits)


@pytest.mark.parametrize("bound", [0.0, LOOSE])
def test_a_run_reads_what_its_experts_read(
    subject: ModelSubject, texts: Texts, bound: float
) -> None:
    policy = Policy(codec="cuszp" if bound else "raw", bound=bound, slots=3)
    store = subject.store(codec_named(policy.codec), bound)
    reading, run = read_under(subject.model, texts, READ, store, policy)
    known = texts.read(under(subject.model, store))
    assert reading.kl == pytest.approx(known.kl, rel=1e-3, abs=1e-6)
    assert reading.nll == pytest.approx(known.nll, rel=1e-4)
    assert np.array_equal(reading.tokens, known.tokens)
    assert len(run.record.steps) == 2 * 11


def test_coarse_misses_lose_more_than_none_and_less_than_all(
    subject: ModelSubject, texts: Texts
) -> None:
    tight, loose = (subject.store(codec_named("cuszp"), bound) for bound in (TIGHT, LOOSE))
    policy = Policy(codec="cuszp", bound=TIGHT, slots=1)

    def lost(below: float | None) -> float:
        low = None if below is None else Low(codec="cuszp", bound=LOOSE, below=below)
        store = tight if low is None else replace(tight, low=loose)
        one = policy.model_copy(update={"low": low})
        return read_under(subject.model, texts, READ, store, one)[0].mean_kl

    assert lost(None) < lost(0.4) < lost(1.0)
