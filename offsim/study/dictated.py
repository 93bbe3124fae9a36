"""What a model makes of texts while a policy runs for real, token by token, as it decodes.

Under most policies an expert is the same whenever it is computed, and a model with its experts
decoded once tells what they lose. Where it depends on the run what an expert is, such as a coarser
blob for misses of low weight, the run itself has to be asked.
"""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from offsim.accuracy.texts import Reading, Texts
from offsim.model.sampling import Choose
from offsim.policy.policy import Policy
from offsim.runtime.run import Run, run_offloaded
from offsim.runtime.store import ExpertStore


class Dictated:
    """The next token is that of a text, whatever the model would have written.

    Args:
        texts: ids of each request.

    Attributes:
        logits: of each request, what the model expected of each token but the first, [vocabulary]
            float32 each.
    """

    def __init__(self, texts: Sequence[Sequence[int]]) -> None:
        self._texts = texts
        self.logits: list[list[torch.Tensor]] = [[] for _ in texts]

    def of(self, request: int) -> Choose:
        """Dictates one request."""
        rest, kept = iter(self._texts[request][1:]), self.logits[request]

        def choose(logits: torch.Tensor) -> int:
            kept.append(logits.float().cpu())
            return next(rest)

        return choose


def read_under(
    model: PreTrainedModel,
    texts: Texts,
    sequences: Sequence[Sequence[int]],
    store: ExpertStore,
    policy: Policy,
) -> tuple[Reading, Run]:
    """How a model predicts texts while its experts come as a policy has them.

    Over a plain link: what is decided does not depend on how long loads take.

    Args:
        model: whose own experts are not used.
        texts: of the same sequences, with what the model without an error predicts.
        sequences: ids, all of one length, 2 or more.
        store: the experts under the policy's codec and bounds, with coarser blobs if it has any.
        policy: that runs.

    Raises:
        InputError: as for `run_offloaded`.
    """
    dictated, count = Dictated(sequences), len(sequences[0]) - 1
    prompts = [ids[:1] for ids in sequences]
    run = run_offloaded(model, store, policy, prompts, count, sampling=dictated)
    return texts.reading_of([torch.stack(rows) for rows in dictated.logits]), run
