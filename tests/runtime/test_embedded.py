import pytest
from transformers import PreTrainedModel

from offsim.codec import codec_named
from offsim.model.generate import greedy_tokens
from offsim.policy.policy import Policy
from offsim.runtime import ExpertStore, run_offloaded
from offsim.study.workload import prompts
from offsim.testbed.load import load


@pytest.fixture(scope="module")
def embedded() -> PreTrainedModel:
    return load()


def test_raw_offloading_writes_the_tokens_of_the_plain_embedded_model(
    embedded: PreTrainedModel,
) -> None:
    asked = prompts(3, 21)
    plain = [greedy_tokens(embedded, prompt, 16) for prompt in asked]
    store = ExpertStore.of(embedded, codec_named("raw"), 0.0)
    for slots in (0, 3):
        assert run_offloaded(embedded, store, Policy(slots=slots), asked, 16).tokens == plain


@pytest.mark.parametrize("codec", ["sz3", "cuszp"])
@pytest.mark.parametrize("bound", [1e-3, 2.0**-5])
def test_every_decoded_expert_is_within_its_bound(
    embedded: PreTrainedModel, codec: str, bound: float
) -> None:
    store = ExpertStore.of(embedded, codec_named(codec), bound)
    assert 0 < store.largest_error <= bound
    assert store.ratio > 1
    names = {b.header.codec for row in store.blobs for expert in row for b in expert.blobs}
    assert names == {codec}
