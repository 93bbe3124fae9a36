"""Synthetic traces that take experts as a recorded trace does.

A model draws the experts of a token in a layer without replacement, with odds that are a product:

- popularity of the expert in its layer;
- recency: how many other experts of the layer were taken since it was (its place in an LRU stack,
  0 for the last one taken), prompt and decode apart. It carries the reuse of the token before and
  of all tokens before that, and with it the hit rate of an LRU cache of any size;
- partner: whether the expert of the layer before that it goes with most was taken by this token.

`fit` finds odds under which generated traces have the same shares as the recorded one.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from offsim.errors import FormatError, InputError
from offsim.files import read_json
from offsim.trace.format import DECODE, PREFILL, Trace, TraceInfo
from offsim.trace.odds import Floats, Integers, Odds, counts, history, stretched, walk

ROUNDS = 16
SAMPLE_TOKENS = 4000
SAMPLE_ODDS = 4_000_000
"""Tokens, and odds of experts, that a round of fitting draws at most where a request has fewer."""


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class LayerModel(BaseModel):
    """Odds of one MoE layer; only their ratios mean something.

    Attributes:
        popularity: [experts], by id.
        prefill: [experts], by recency.
        decode: [experts], by recency.
        partners: [experts], an id of the layer before; of the first layer, unused.
        gain: factor where the partner was taken.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    popularity: tuple[Positive, ...]
    prefill: tuple[Positive, ...]
    decode: tuple[Positive, ...]
    partners: tuple[int, ...]
    gain: Positive


class TraceModel(BaseModel):
    """What was learnt from a trace, as JSON.

    Attributes:
        format: of this file.
        version: of the format.
        model: whose router it was.
        experts: that a layer has.
        top_k: experts a token and layer.
        layers: first to last.
        weights: [top_k], mean weight of a slot, 0..1.
        requests: in the trace.
        prompt: mean tokens of a prompt.
        tokens: mean decode tokens of a request.
        layer_bytes: of the trace.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["offsim-trace-model"] = "offsim-trace-model"
    version: Literal[1] = 1
    model: str
    experts: int = Field(ge=1, le=65536)
    top_k: int = Field(ge=1)
    layers: tuple[LayerModel, ...] = Field(min_length=1)
    weights: tuple[float, ...]
    requests: int = Field(ge=1)
    prompt: int = Field(ge=0)
    tokens: int = Field(ge=0)
    layer_bytes: tuple[int, ...] | None = None


class _Shares:
    """What a trace and a generated one are compared by, all as shares of the tokens.

    Attributes:
        popularity: [layers, experts], of the tokens that take an expert.
        recency: [phases, layers, experts], of the tokens that take the expert of a recency.
        partner: [layers], of the experts that are taken with their partner.
    """

    def __init__(self, ids: Integers, ranks: Integers, phase: Integers, partners: Integers) -> None:
        layers, experts = partners.shape
        self.popularity = counts(ids, experts) / len(ids)
        self.recency = np.stack(
            [
                counts(ranks[phase == kind], experts) / max(1, int((phase == kind).sum()))
                for kind in (PREFILL, DECODE)
            ]
        )
        self.partner = np.zeros(layers)
        for layer in range(1, layers):
            wanted = partners[layer][ids[:, layer]]
            met = (wanted[:, :, None] == ids[:, layer - 1][:, None, :]).any(2)
            self.partner[layer] = met.mean()


def _partners(ids: Integers, experts: int) -> Integers:
    """The expert of the layer before that each goes with most beyond chance, [layers, experts]."""
    tokens, layers, _ = ids.shape
    partners = np.zeros((layers, experts), np.int64)
    rows = np.arange(tokens)[:, None]
    before = np.zeros((tokens, experts), np.float32)
    before[rows, ids[:, 0]] = 1
    for layer in range(1, layers):
        here = np.zeros((tokens, experts), np.float32)
        here[rows, ids[:, layer]] = 1
        chance = np.outer(before.sum(0), here.sum(0)) / tokens
        excess = (before.T @ here - chance) / np.sqrt(chance + 1)
        partners[layer] = excess.argmax(0)
        before = here
    return partners


def typical_size(trace: Trace) -> tuple[int, int, int]:
    """Requests, and the mean prompt and decode tokens of one."""
    requests = len(np.unique(trace.request))
    prompt = round(int((trace.phase == PREFILL).sum()) / requests)
    tokens = round(int((trace.phase == DECODE).sum()) / requests)
    return requests, prompt, tokens if prompt + tokens else 1


def fit(trace: Trace, tell: Callable[[str, float], None] | None = None) -> TraceModel:
    """Learn a model of a trace.

    Args:
        trace: what to learn from; the more tokens, the better the shares are known.
        tell: called with what is done next and the share done, 0..1.
    """
    tell = tell or (lambda _what, _share: None)
    tell("reading the trace", 0.0)
    experts, top_k = trace.info.experts_per_layer, trace.top_k
    ids = trace.experts.astype(np.int64)
    partners = _partners(ids, experts)
    target = _Shares(ids, history(ids, experts), trace.phase.astype(np.int64), partners)
    requests, prompt, tokens = typical_size(trace)
    odds = Odds(
        np.zeros((trace.layers, experts)),
        _logit(target.recency, trace.tokens),
        partners,
        np.zeros(trace.layers),
    )
    rng = np.random.default_rng(0)
    sample = min(SAMPLE_TOKENS, SAMPLE_ODDS // (trace.layers * experts))
    rows = max(1, sample // (prompt + tokens))
    phase = np.tile(np.where(np.arange(prompt + tokens) < prompt, PREFILL, DECODE), rows)
    for turn in range(ROUNDS):
        tell(f"fitting, round {turn + 1} of {ROUNDS}", (turn + 0.5) / (ROUNDS + 1))
        made, ranks = (
            part.reshape(-1, trace.layers, top_k)
            for part in walk(odds, rows, prompt, tokens, top_k, rng)
        )
        _correct(odds, target, _Shares(made, ranks, phase, partners), trace.tokens, turn)
    # A phase that requests do not have is taken for the other one.
    if not prompt:
        odds.recency[PREFILL] = odds.recency[DECODE]
    if not tokens:
        odds.recency[DECODE] = odds.recency[PREFILL]
    return TraceModel(
        model=trace.info.model,
        experts=experts,
        top_k=top_k,
        layers=tuple(_layer(odds, layer) for layer in range(trace.layers)),
        weights=tuple(float(w) for w in trace.weights.astype(np.float64).mean((0, 1))),
        requests=requests,
        prompt=prompt,
        tokens=tokens,
        layer_bytes=trace.info.layer_bytes,
    )


def _logit(shares: Floats, tokens: int) -> Floats:
    """Log odds of shares of so many tokens; half a token more on each side keeps them finite."""
    counted = shares * tokens
    return np.log((counted + 0.5) / (tokens - counted + 0.5))


def _correct(odds: Odds, target: _Shares, made: _Shares, tokens: int, turn: int) -> None:
    """Move the odds towards those that have the target's shares, ever less as rounds go by."""
    step = min(0.9, 6.0 / (turn + 3))

    def off(wanted: Floats, found: Floats) -> Floats:
        return step * (_logit(wanted, tokens) - _logit(found, tokens))

    odds.recency += off(target.recency, made.recency)
    # What is popular is also recent, so that a small change goes a long way.
    odds.popularity += 0.25 * off(target.popularity, made.popularity)
    odds.gain += off(target.partner, made.partner)
    odds.gain[0] = 0.0


def _layer(odds: Odds, layer: int) -> LayerModel:
    def plain(logs: Floats) -> tuple[float, ...]:
        return tuple(float(f"{value:.6g}") for value in np.exp(logs - logs.mean()))

    return LayerModel(
        popularity=plain(odds.popularity[layer]),
        prefill=plain(odds.recency[PREFILL, layer]),
        decode=plain(odds.recency[DECODE, layer]),
        partners=tuple(int(partner) for partner in odds.partners[layer]),
        gain=float(np.exp(odds.gain[layer])),
    )


def load_model(path: Path) -> TraceModel:
    """Read a model of a trace.

    Raises:
        InputError: the file cannot be read.
        FormatError: it is no such model, or its parts do not fit together.
    """
    model = read_json(path, TraceModel)
    for number, layer in enumerate(model.layers):
        for name in ("popularity", "prefill", "decode", "partners"):
            if len(getattr(layer, name)) != model.experts:
                raise FormatError(f"{path}: {name} of layer {number} is not [{model.experts}]")
        if not all(0 <= partner < model.experts for partner in layer.partners):
            raise FormatError(f"{path}: a partner of layer {number} is no expert")
    return model


def check_size(requests: int, prompt: int, tokens: int, shape: tuple[int, int, int]) -> None:
    """Refuse what `generate` cannot make; `shape` is layers, experts and top-k.

    Raises:
        InputError: there would be no token, or fewer experts than a token takes.
    """
    if requests < 1 or prompt < 0 or tokens < 0 or not prompt + tokens:
        raise InputError(
            f"a trace of {requests} requests of {prompt} + {tokens} tokens has nothing in it"
        )
    layers, experts, top_k = shape
    if layers < 1 or not 1 <= top_k <= experts <= 65536:
        raise InputError(f"no model has {layers} layers and takes {top_k} of {experts} experts")


def generate(
    model: TraceModel,
    requests: int,
    prompt: int,
    tokens: int,
    seed: int,
    layers: int | None = None,
    experts: int | None = None,
    top_k: int | None = None,
) -> Trace:
    """A trace that takes experts as the model says, the same for the same arguments.

    In the shape that was learnt, the same ids are popular as in the original. In another shape,
    popularity and recency are stretched over the experts, and the odds of the experts of the
    token before and of partners grow with the number of experts that they compete with, so that
    reuse beyond chance stays about as frequent.

    Args:
        model: from `fit`.
        requests: at least one.
        prompt: tokens of each prompt, may be 0.
        tokens: decode tokens of each request, may be 0 where there is a prompt.
        seed: of the draws.
        layers: of the trace, as learnt by default.
        experts: a layer, as learnt by default.
        top_k: experts a token and layer, as learnt by default.

    Raises:
        InputError: there would be no token, or fewer experts than a token takes.
    """
    count = model.experts if experts is None else experts
    taken = model.top_k if top_k is None else top_k
    depth = len(model.layers) if layers is None else layers
    check_size(requests, prompt, tokens, (depth, count, taken))
    rng = np.random.default_rng(seed)
    same = (depth, count, taken) == (len(model.layers), model.experts, model.top_k)
    odds = (
        _learnt(model)
        if same
        else stretched(_learnt(model), model.top_k, (depth, count, taken), rng)
    )
    ids, _ = walk(odds, requests, prompt, tokens, taken, rng)
    length = prompt + tokens
    slots = np.linspace(0, model.top_k - 1, taken)
    weights = np.interp(slots, np.arange(model.top_k), model.weights)
    weights *= sum(model.weights) / max(weights.sum(), 1e-9)
    info = TraceInfo(
        model=f"synthetic, like {model.model}",
        experts_per_layer=count,
        source=f"generated by offsim with seed {seed} from a model of {model.model}",
        layer_bytes=model.layer_bytes if same else None,
    )
    shape = (requests * length, depth, taken)
    phase = np.where(np.arange(length) < prompt, PREFILL, DECODE).astype(np.uint8)
    return Trace(
        info,
        experts=ids.reshape(shape).astype(np.uint16),
        weights=np.ascontiguousarray(np.broadcast_to(weights.clip(0, 1), shape), np.float16),
        request=np.repeat(np.arange(requests, dtype=np.int32), length),
        position=np.tile(np.arange(length, dtype=np.int32), requests),
        phase=np.tile(phase, requests),
    )


def _learnt(model: TraceModel) -> Odds:
    """The odds of a model in its own shape."""

    def logs(name: str) -> Floats:
        return np.log([getattr(layer, name) for layer in model.layers])

    partners = np.array([layer.partners for layer in model.layers], np.int64)
    recency = np.stack([logs("prefill"), logs("decode")])
    gain = logs("gain")
    gain[0] = 0.0  # the first layer has none before it
    return Odds(logs("popularity"), recency, partners, gain)
