import copy

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from offsim.codec import codec_named
from offsim.codec.bounds import Bound
from offsim.errors import InputError
from offsim.policy.bounds import Bounds
from offsim.policy.policy import Policy
from offsim.runtime.arena import Arena
from offsim.study.checkpoint import CheckpointSubject, checkpoint_subject, dense_bytes
from offsim.study.prepare import recorded
from tests.families import EXPERTS, HIDDEN, MOE_LAYERS, WIDTH, family

PROMPTS = [[5, 6, 7, 90, 17], [99, 3], [1]]
NAMES = ("deepseek-v3", "gpt-oss", "mixtral")


@pytest.fixture(scope="module", params=NAMES)
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, PreTrainedModel, CheckpointSubject]:
    """A family, a model of it in memory, and its bf16 checkpoint opened."""
    folder = tmp_path_factory.mktemp("checkpoint")
    model = family(request.param)
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder / "tiny")
    (folder / "p.jsonl").write_text("\n".join(f'{{"ids": {ids}}}' for ids in PROMPTS))
    subject = checkpoint_subject(folder / "tiny", folder / "p.jsonl", 4)
    return request.param, model, subject


def test_facts_are_those_of_the_checkpoint(
    made: tuple[str, PreTrainedModel, CheckpointSubject],
) -> None:
    name, _, subject = made
    facts = subject.facts
    assert (facts.name, facts.layers, facts.experts) == ("tiny", MOE_LAYERS[name], EXPERTS)
    assert (facts.hidden, facts.width, facts.dtype_bytes) == (HIDDEN, WIDTH, 2)
    assert [weights.dtype for weights in subject.matrices()] == [torch.bfloat16] * 3
    assert subject.checked(2, 0) == PROMPTS[:1]
    drawn = [subject.drawn(3, seed) for seed in range(20)]
    assert {tuple(one) for three in drawn for one in three} == {tuple(p) for p in PROMPTS[1:]}
    assert all(len(three) == 3 for three in drawn)
    assert subject.drawn(3, 7) == drawn[7]
    assert subject.longest(4, 0) == PROMPTS[:1]


@pytest.mark.parametrize(("codec", "bound"), [("raw", 0.0), ("cuszp", 2**-6)])
def test_it_runs_and_records_as_the_whole_model_does(
    made: tuple[str, PreTrainedModel, CheckpointSubject], codec: str, bound: float
) -> None:
    name, model, subject = made
    store = subject.store(codec_named(codec), bound)
    expected = recorded(model, name, store, PROMPTS, 4, lookahead=1)
    found = subject.recorded(store, PROMPTS, 4, lookahead=1)
    assert found.tokens == expected.tokens
    for key, array in expected.trace.arrays().items():
        np.testing.assert_array_equal(found.trace.arrays()[key], array)
    assert found.trace.info.codec == codec
    run = subject.run(store, store.policy(slots=3), PROMPTS, 4)
    assert run.tokens == expected.tokens


def test_what_cannot_run_is_refused_before_experts_are_read(
    made: tuple[str, PreTrainedModel, CheckpointSubject], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, _, subject = made
    subject.check(Policy(slots=2), EXPERTS)
    if name == "gpt-oss":
        with pytest.raises(InputError, match="host computes SwiGLU without biases"):
            subject.check(Policy(slots=2, host_tokens=1), EXPERTS)
    else:
        subject.check(Policy(slots=2, host_tokens=1), EXPERTS)
    monkeypatch.setattr("offsim.study.checkpoint.usual_memory", lambda: 10_000)
    with pytest.raises(InputError, match=r"--link paced first runs with 99 .* give --link plain"):
        subject.check(Policy(slots=2), 99)
    with pytest.raises(InputError, match=r"2 slots take .* there is room for 0 B"):
        subject.check(Policy(slots=2), 2)


def test_blobs_that_memory_would_hold_are_counted(
    made: tuple[str, PreTrainedModel, CheckpointSubject], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, subject = made
    shape = subject.experts.shape
    slots = Arena.bytes_of(shape, 2, EXPERTS)
    raw = shape.layers * EXPERTS * shape.bytes

    def have(nbytes: int) -> None:
        room = dense_bytes(subject.model) + slots + nbytes
        monkeypatch.setattr("offsim.study.checkpoint.usual_memory", lambda: room)

    have(raw)
    subject.check(Policy(slots=2), 2)
    have(raw - 1)
    with pytest.raises(InputError, match=r"all blobs about .*ESTIMATED.* give it as --experts"):
        subject.check(Policy(slots=2), 2)
    subject.check(Policy(slots=2), 2, held=False)
    coarse = Policy(slots=2, codec="rtn-int4")
    blobs = subject.store(codec_named("rtn-int4"), 0.0).nbytes
    assert blobs < raw // 2
    have(blobs)
    subject.check(coarse, 2)
    have(blobs - 1)
    for policy in (coarse, Policy(slots=2, codec="cuszp", bounds=Bounds(default=Bound(0.5)))):
        with pytest.raises(InputError, match="all blobs about"):
            subject.check(policy, 2)
