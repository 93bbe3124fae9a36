import copy

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from offsim.codec import codec_named
from offsim.errors import InputError
from offsim.policy.policy import Policy
from offsim.study.checkpoint import CheckpointSubject, checkpoint_subject
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
    assert subject.checked(2, 0) == PROMPTS[:2]
    assert subject.drawn(2, 0) == PROMPTS[1:]
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
    with pytest.raises(InputError, match=r"2 slots take .* there is room for 0 B"):
        subject.check(Policy(slots=2), 2)
