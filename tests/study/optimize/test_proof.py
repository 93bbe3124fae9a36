"""A small proof on the embedded model, for real: nothing here is about how long it takes."""

from dataclasses import replace

import pytest

from offsim.accuracy import embedded_texts
from offsim.accuracy.sensitivity import Sensitivity
from offsim.accuracy.sensitivity_parts import LayerLoss
from offsim.codec import codec_named
from offsim.errors import InputError
from offsim.policy.policy import Policy
from offsim.study.case import Case
from offsim.study.optimize.answer import Optimized, optimize
from offsim.study.optimize.budget import Budget
from offsim.study.optimize.effort import Effort
from offsim.study.optimize.proof import _fresh, prove
from offsim.study.study import embedded
from offsim.study.subject import ModelSubject
from offsim.testbed.tasks import TASKS
from tests.accuracy.sensitive import LADDER, MATRICES, quadratic, ranged
from tests.builders import calibration, codec_figures

BOUNDS = (2.0**-5, 2.0**-4)
EFFORT = Effort(
    requests=1,
    task_requests=1,
    tokens=3,
    repeats=2,
    sequences=4,
    length=16,
    items=2,
)


@pytest.fixture(scope="module")
def subject() -> ModelSubject:
    return embedded()


def losses(layers: int, experts: int) -> Sensitivity:
    """Each layer loses its number times the square of the bound."""
    ladder = tuple(value / 8 for value in LADDER)
    terms = [
        LayerLoss(
            kl=tuple(ranged((layer + 1) * value**2) for value in ladder),
            slope=2.0,
            experts=(1 / experts,) * experts,
            matrices=MATRICES,
        )
        for layer in range(layers)
    ]
    made = quadratic(*[1.0] * layers)
    return made.model_copy(
        update={
            "kind": "abs",
            "ladder": ladder,
            "model": made.model.model_copy(update={"experts": experts}),
            "terms": made.terms.model_copy(update={"layers": tuple(terms)}),
        }
    )


@pytest.fixture(scope="module")
def case(subject: ModelSubject) -> Case:
    facts = subject.facts
    shape = {"layers": facts.layers, "experts": facts.experts}
    codecs = [codec_figures(**shape, blob_bytes=facts.expert_bytes)]
    for bound, nbytes in zip(BOUNDS, (40_000, 30_000), strict=True):
        codecs.append(codec_figures("cuszp", bound, **shape, blob_bytes=nbytes))
    codecs.append(codec_figures("rtn-int8", **shape, blob_bytes=25_000))
    figures = calibration(*codecs, **shape).model_copy(update={"model": facts})
    raw = subject.store(codec_named("raw"), 0.0)
    trace = subject.recorded(raw, subject.drawn(1, 3), 3).trace
    return Case(trace, Policy(codec="cuszp", bound=BOUNDS[0], slots=4), figures, 1e9)


@pytest.fixture(scope="module")
def found(case: Case) -> Optimized:
    model = case.calibration.model
    return optimize(case, losses(model.layers, model.experts), Budget("kl", 0.1))


def known(case: Case) -> Sensitivity:
    return losses(case.calibration.model.layers, case.calibration.model.experts)


def test_the_answer_runs_and_is_asked_beside_its_rivals(
    subject: ModelSubject, case: Case, found: Optimized
) -> None:
    proof = prove(subject, case, known(case), found, EFFORT)
    assert [(way.kind, way.codec) for way in proof.ways] == [
        ("optimised", "cuszp"),
        ("zones", "cuszp"),
        ("raw", "raw"),
        ("uniform", "cuszp"),
        ("uniform", "cuszp"),
        ("other", "rtn-int8"),
        ("adaptive", "cuszp"),
    ]
    raw = proof.ways[2]
    assert (raw.kl.mean, raw.ica_change.mean) == (pytest.approx(0, abs=1e-9), 0)
    tight, loose = proof.ways[3:5]
    assert 0 < tight.kl.mean < loose.kl.mean
    assert tight.link_bytes > loose.link_bytes > 0
    assert loose.kl_estimated is not None
    assert loose.kl_estimated.mean == pytest.approx(45 * BOUNDS[1] ** 2)
    assert proof.ways[5].kl_estimated is None
    adaptive = proof.ways[6]
    assert 0 < adaptive.kl.mean != tight.kl.mean
    assert (adaptive.ica, adaptive.kl_estimated) == (None, None)
    for way in proof.ways:
        assert way.decisions_equal or way is adaptive
        assert len(way.tpot.repeats) == EFFORT.repeats
        assert way.tpot.measured > 0
    assert proof.answer.bounds == found.bounds
    assert proof.items == 2 * len(TASKS)
    assert proof.around is not None
    assert {one.figure for one in proof.around.swings} > {"compute", "bandwidth of the link"}
    tasks = proof.by_task
    assert tasks is not None
    assert [one.task for one in tasks.tasks] == list(TASKS)
    assert {one.bound for one in tasks.tasks} <= set(BOUNDS)
    assert tasks.decisions_equal
    assert tasks.items == proof.items
    measured = [one.latency.measured for one in tasks.tasks]
    assert tasks.each.latency.measured == pytest.approx(sum(measured) / len(TASKS))
    changes = [one.ica_change.mean for one in tasks.tasks]
    assert tasks.each.ica_change.mean == pytest.approx(sum(changes) / len(TASKS))
    gained = tasks.each.ica_change.mean - tasks.one.ica_change.mean
    assert tasks.gained.mean == pytest.approx(gained)


def test_what_cannot_be_proved_is_refused(
    subject: ModelSubject, case: Case, found: Optimized
) -> None:
    def refused(changed: Case, says: str) -> None:
        with pytest.raises(InputError, match=says):
            prove(subject, changed, known(case), found, EFFORT)

    other = case.calibration.model.model_copy(update={"name": "another"})
    refused(
        replace(case, calibration=case.calibration.model_copy(update={"model": other})),
        "the calibration is of another",
    )
    refused(replace(case, link_bytes_per_s=None), "give --link paced")
    refused(case.with_policy(cache="belady"), "belady")


def test_what_is_read_is_not_what_a_sensitivity_reads_first() -> None:
    read = list(_fresh(Effort(sequences=8, length=32)))
    assert len(read) == 8
    first = embedded_texts(8, 32)
    assert not {tuple(ids) for ids in read} & {tuple(ids) for ids in first}
