"""Shapes of published models: what an expert and the dense part of a layer weigh and compute."""

import math
from typing import Annotated, Literal

from pydantic import Field

from offsim.calibration.hardware import LABEL, Sourced
from offsim.calibration.schema import ModelFacts, Positive, Strict

VERSION = 1
BF16_BITS = 16
Count = Annotated[int, Field(ge=1)]


class GroupedAttention(Strict):
    """Attention with `kv_heads` keys and values for `heads` queries (arXiv 2305.13245)."""

    kind: Literal["gqa"]
    heads: Count
    kv_heads: Count
    head_dim: Count

    def weights(self, hidden: int) -> int:
        """Weights of the query, key, value and output matrices."""
        return hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)

    @property
    def cached(self) -> int:
        """Values that one token of context leaves in the cache of one layer."""
        return 2 * self.kv_heads * self.head_dim

    @property
    def flop_a_pair(self) -> int:
        """FLOPs of one token attending to one token: scores and weighted sum, 2 each."""
        return 4 * self.heads * self.head_dim


class LatentAttention(Strict):
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1).

    Attributes:
        heads: of queries.
        q_rank: width of the compressed query; None where queries are not compressed.
        kv_rank: width of the compressed keys and values, which is what is cached.
        nope_dim: of a key without position.
        rope_dim: of a key with position, one for all heads.
        value_dim: of a value.
    """

    kind: Literal["mla"]
    heads: Count
    q_rank: Count | None
    kv_rank: Count
    nope_dim: Count
    rope_dim: Count
    value_dim: Count

    def weights(self, hidden: int) -> int:
        """Weights of all projections."""
        query = self.heads * (self.nope_dim + self.rope_dim)
        to_query = self.q_rank * (hidden + query) if self.q_rank else hidden * query
        down = hidden * (self.kv_rank + self.rope_dim)
        up = self.kv_rank * self.heads * (self.nope_dim + self.value_dim)
        return to_query + down + up + self.heads * self.value_dim * hidden

    @property
    def cached(self) -> int:
        """Values that one token of context leaves in the cache of one layer."""
        return self.kv_rank + self.rope_dim

    @property
    def flop_a_pair(self) -> int:
        """FLOPs of one token attending to one token, projections absorbed into the latents."""
        return 2 * self.heads * (2 * self.kv_rank + self.rope_dim)


class ModelShape(Strict):
    """A published MoE model.

    Attributes:
        title: as its makers call it.
        config: where the shape was read.
        total_parameters: as published, to check the sums.
        vocabulary: rows of the embedding.
        tied: whether the head is the embedding.
        hidden: width of the model.
        dense_layers: layers before the first with experts, each with one FFN.
        dense_width: of that FFN; 0 without such layers.
        moe_layers: layers with experts.
        experts: routed ones of a layer.
        top_k: routed experts of a token.
        expert_width: of one expert.
        shared_experts: experts of a layer that serve every token; they stay on the device.
        expert_bits: stored bits of a weight of an expert, scales of its blocks included.
        dense_bits: stored bits of a weight of attention and shared experts; router, embedding and
            head are bf16.
        sigma: standard deviation of the experts' weights; None where it is not known.
        note: what a reader must know.
    """

    format: Literal["offsim-model"] = "offsim-model"
    version: int = Field(default=VERSION, ge=VERSION, le=VERSION)
    title: str
    config: str
    total_parameters: Sourced
    vocabulary: Count
    tied: bool
    hidden: Count
    dense_layers: int = Field(ge=0)
    dense_width: int = Field(ge=0)
    moe_layers: Count
    experts: Count
    top_k: Count
    expert_width: Count
    shared_experts: int = Field(ge=0)
    attention: GroupedAttention | LatentAttention = Field(discriminator="kind")
    expert_bits: Positive
    dense_bits: Positive
    sigma: Positive | None
    note: str = ""

    @property
    def label(self) -> str:
        """Where its numbers come from: a published config, not a measurement."""
        return LABEL

    @property
    def expert_weights(self) -> int:
        """Weights of one expert: gate, up and down."""
        return 3 * self.hidden * self.expert_width

    @property
    def expert_bytes(self) -> int:
        """Bytes of one expert as stored."""
        return math.ceil(self.expert_weights * self.expert_bits / 8)

    @property
    def shared_weights(self) -> int:
        """Weights of attention and shared experts of a layer with experts."""
        shared = self.shared_experts * self.expert_weights
        return self.attention.weights(self.hidden) + shared

    @property
    def router_weights(self) -> int:
        """Weights of the router of a layer."""
        return self.hidden * self.experts

    @property
    def dense_layer_weights(self) -> int:
        """Weights of a layer without experts."""
        return self.attention.weights(self.hidden) + 3 * self.hidden * self.dense_width

    @property
    def head_weights(self) -> int:
        """Weights of the head, which are those of the embedding too."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All weights; norms and biases, which are less than 0.1 %, are left out."""
        layer = self.shared_weights + self.router_weights + self.experts * self.expert_weights
        ends = self.head_weights * (1 if self.tied else 2)
        return self.moe_layers * layer + self.dense_layers * self.dense_layer_weights + ends

    @property
    def resident_bytes(self) -> int:
        """Bytes of everything but the routed experts."""
        router = self.moe_layers * self.router_weights + self.head_weights * (2 - self.tied)
        dense = self.moe_layers * self.shared_weights + self.dense_layers * self.dense_layer_weights
        return math.ceil(router * BF16_BITS / 8 + dense * self.dense_bits / 8)

    @property
    def experts_bytes(self) -> int:
        """Bytes of all routed experts as stored."""
        return self.moe_layers * self.experts * self.expert_bytes

    def facts(self, name: str) -> ModelFacts:
        """As a calibration has it.

        Its dtype has whole bytes, one at least; how many bytes an expert really has is said beside
        it.
        """
        return ModelFacts(
            name=name,
            layers=self.moe_layers,
            experts=self.experts,
            top_k=self.top_k,
            hidden=self.hidden,
            width=self.expert_width,
            dtype_bytes=max(1, int(self.expert_bits) // 8),
            stored_bytes=self.expert_bytes,
        )
