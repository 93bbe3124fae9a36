"""Every family of architectures with its experts offloaded, from memory and from a checkpoint."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from offsim.codec import codec_named
from offsim.codec.expert import ExpertBlob, encode_expert
from offsim.errors import InputError
from offsim.model.generate import greedy_tokens
from offsim.model.hook import Handler, Resident, handled
from offsim.model.load import load_dense
from offsim.policy.policy import Policy
from offsim.runtime.run import run_offloaded
from offsim.runtime.store import ExpertStore
from offsim.runtime.threads import single_compute_thread
from offsim.study.prepare import recorded, under
from tests.families import FAMILIES, family

PROMPTS = [[5, 6, 7, 90, 17], [99, 3]]
COUNT = 4


@contextmanager
def heard(model: PreTrainedModel) -> Iterator[list[torch.Tensor]]:
    """The outputs of the last layer of a model, one tensor a pass."""
    noted: list[torch.Tensor] = []
    hook = model.lm_head.register_forward_hook(lambda _m, _i, out: noted.append(out.clone()))
    try:
        yield noted
    finally:
        hook.remove()


def resident_passes(model: PreTrainedModel, handler: Handler) -> list[torch.Tensor]:
    """On one thread, as offloaded runs compute: more add up in another order."""
    with heard(model) as noted, handled(model, handler), single_compute_thread():
        for prompt in PROMPTS:
            greedy_tokens(model, prompt, COUNT)
    return noted


def assert_same(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    assert len(found) == len(expected) == len(PROMPTS) * COUNT
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("name", FAMILIES)
def test_offloading_a_checkpoint_gives_the_bits_of_resident_experts(
    name: str, tmp_path: Path
) -> None:
    """The model that runs never has its experts, which are in a store made from another one."""
    model = family(name)
    model.save_pretrained(tmp_path)
    store = ExpertStore.of(model, codec_named("raw"), 0.0)
    dense = load_dense(tmp_path)
    policy = store.policy(slots=3, prefetch="gate", distance=1)
    with heard(dense) as noted:
        run = run_offloaded(dense, store, policy, PROMPTS, COUNT)
    assert_same(noted, resident_passes(model, Resident(model)))
    assert len({token for tokens in run.tokens for token in tokens}) > 2


@pytest.mark.parametrize("name", FAMILIES)
def test_a_lossy_codec_gives_the_bits_of_its_decoded_experts(name: str) -> None:
    model = family(name)
    store = ExpertStore.of(model, codec_named("cuszp"), 2**-6)
    changed = under(model, store)
    expected = resident_passes(changed, Resident(changed))
    assert not torch.equal(expected[0], resident_passes(model, Resident(model))[0])
    with heard(model) as noted:
        run = run_offloaded(model, store, store.policy(slots=2), PROMPTS, COUNT)
    assert_same(noted, expected)
    told = recorded(model, name, store, PROMPTS, COUNT, lookahead=1)
    assert told.tokens == run.tokens
    assert told.trace.lookahead is not None


def test_a_store_of_another_model_is_refused() -> None:
    store = ExpertStore.of(family("deepseek-v2"), codec_named("raw"), 0.0)
    with pytest.raises(InputError, match=r"has 3 MoE layers of 8 experts.* and the store 2 MoE"):
        run_offloaded(family("mixtral"), store, store.policy(slots=2), PROMPTS, COUNT)


def test_a_host_that_would_leave_out_biases_is_refused() -> None:
    model = family("gpt-oss")
    store = ExpertStore.of(model, codec_named("raw"), 0.0)
    policy = Policy(codec="raw", slots=2, host_tokens=4)
    with pytest.raises(InputError, match=r"host computes SwiGLU without biases.*GptOss"):
        run_offloaded(model, store, policy, PROMPTS, COUNT)


def test_codecs_are_given_contiguous_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[torch.Tensor] = []

    def noting(matrices: Sequence[torch.Tensor], *rest: Any) -> ExpertBlob:
        given.extend(matrices)
        return encode_expert(matrices, *rest)

    monkeypatch.setattr("offsim.runtime.store.encode_expert", noting)
    ExpertStore.of(family("gpt-oss"), codec_named("raw"), 0.0)
    assert len(given) == 3 * 3 * 8
    assert all(weights.is_contiguous() for weights in given)
