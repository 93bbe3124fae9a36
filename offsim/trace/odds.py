"""Odds by which synthetic traces draw experts, and the draw itself."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from offsim.trace.format import DECODE, PREFILL

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(slots=True)
class Odds:
    """Natural logarithms of odds; what is drawn depends on their differences alone.

    Attributes:
        popularity: [layers, experts], by id.
        recency: [phases, layers, experts], by place in the LRU stack, 0 for the last one taken.
        partners: [layers, experts], ids of the layer before.
        gain: [layers], added where the partner was taken; 0 in the first layer.
    """

    popularity: Floats
    recency: Floats
    partners: Integers
    gain: Floats


def counts(values: Integers, experts: int) -> Floats:
    """How often each value is there, [layers, experts], of values [tokens, layers, top_k]."""
    layers = values.shape[1]
    flat = values + experts * np.arange(layers)[None, :, None]
    found = np.bincount(flat.ravel(), minlength=layers * experts)
    return found.reshape(layers, experts).astype(np.float64)


def history(ids: Integers, experts: int) -> Integers:
    """Recency of every expert as it was taken, of the shape of `ids` [tokens, layers, top_k].

    Experts that were not taken yet stand in the order of their popularity.
    """
    rank = np.argsort(np.argsort(-counts(ids, experts), axis=1), axis=1)
    ranks = np.zeros_like(ids)
    for token, top in enumerate(ids):
        ranks[token] = np.take_along_axis(rank, top, 1)
        rank = _taken(rank, top)
    return ranks


def _taken(rank: Integers, top: Integers) -> Integers:
    """Recency ranks [..., experts] after the experts `top` [..., top_k] were taken in turn."""
    before = np.take_along_axis(rank, top, -1)
    after = rank.copy()
    for slot in range(top.shape[-1]):
        after += before[..., slot, None] > rank
    last = top.shape[-1] - 1 - np.arange(top.shape[-1])  # the last slot is the most recent
    np.put_along_axis(after, top, np.broadcast_to(last, top.shape), -1)
    return after


def walk(
    odds: Odds, requests: int, prompt: int, tokens: int, top_k: int, rng: np.random.Generator
) -> tuple[Integers, Integers]:
    """Draw the tokens of requests that each begin on an LRU stack of their own.

    The experts of a token come out in the order of a race of exponential times whose rates are
    the odds, which is drawing one after the other without replacement. A layer needs its own
    token before and the layer before of the same token, so step s does layer l of token s - l:
    all layers and requests at once.

    Returns:
        Ids, and their recency before they were taken: each
        [requests, prompt + tokens, layers, top_k].
    """
    length, (layers, experts) = prompt + tokens, odds.popularity.shape
    popularity, recencies, gain = (
        np.exp(part) for part in (odds.popularity, odds.recency, odds.gain)
    )
    ids = np.zeros((requests, length, layers, top_k), np.int64)
    ranks = np.zeros_like(ids)
    drawn = rng.standard_exponential((requests, layers, experts)) / popularity
    rank = np.argsort(np.argsort(drawn, axis=-1), axis=-1)
    taken = np.zeros((requests, layers, experts), bool)
    for step in range(length + layers - 1):
        now = np.arange(max(0, step - length + 1), min(layers, step + 1))
        part, token = slice(int(now[0]), int(now[-1]) + 1), step - now
        place = rank[:, part]
        recency = recencies[np.where(token < prompt, PREFILL, DECODE), now]
        rates = np.take_along_axis(np.broadcast_to(recency, place.shape), place, -1)
        rates *= popularity[part]
        partners = np.broadcast_to(odds.partners[part], place.shape)
        # Layer 0 looks at the last one here, and has no gain.
        hit = np.take_along_axis(taken[:, now - 1], partners, -1)
        times = rng.standard_exponential(place.shape) / rates
        times /= np.where(hit, gain[part, None], 1.0)
        top = np.argpartition(times, top_k - 1, axis=-1)[..., :top_k]
        order = np.argsort(np.take_along_axis(times, top, -1), axis=-1)
        top = np.take_along_axis(top, order, -1)
        ids[:, token, now] = top
        ranks[:, token, now] = np.take_along_axis(place, top, -1)
        rank[:, part] = _taken(place, top)
        fresh = np.zeros(place.shape, bool)
        np.put_along_axis(fresh, top, True, -1)
        taken[:, part] = fresh
    return ids, ranks


def stretched(
    learnt: Odds, learnt_k: int, shape: tuple[int, int, int], rng: np.random.Generator
) -> Odds:
    """Odds for another shape.

    Args:
        learnt: from a trace.
        learnt_k: experts that a token of it takes in a layer.
        shape: layers, experts and top-k wanted.
        rng: gives popular experts and partners their ids.
    """
    layers, experts, top_k = shape
    had_layers, had = learnt.popularity.shape
    places = np.linspace(0, had_layers - 1, layers).round().astype(np.int64)
    # Popular experts first, at the same quantiles; then each layer gives them ids of its own.
    ordered = -np.sort(-learnt.popularity, axis=1)
    quantiles = (np.arange(experts) + 0.5) / experts * had - 0.5
    popularity = np.empty((layers, experts))
    for layer, place in enumerate(places):
        spread = np.interp(quantiles, np.arange(had), ordered[place])
        popularity[layer] = rng.permutation(spread)
    # The token before fills the first top_k recencies, older ones the rest.
    recency = np.concatenate(
        [
            _resampled(learnt.recency[..., :learnt_k], top_k),
            _resampled(learnt.recency[..., learnt_k:], experts - top_k),
        ],
        axis=-1,
    )[:, places]
    rivals = [max(1, all_ - some) / some for all_, some in ((experts, top_k), (had, learnt_k))]
    crowd = rivals[0] / rivals[1]
    older = recency[..., top_k:].mean(-1, keepdims=True) if experts > top_k else 0.0
    recency[..., :top_k] = older + _among(recency[..., :top_k] - older, crowd)
    partners = np.stack([rng.permutation(experts) for _ in range(layers)])
    gain = _among(learnt.gain[places], crowd)
    gain[0] = 0.0
    return Odds(popularity, recency, partners, gain)


def _among(logs: Floats, crowd: float) -> Floats:
    """Odds above 1 among `crowd` times as many rivals; those of 1 or less stay."""
    return np.where(logs > 0, np.log1p(np.expm1(np.maximum(logs, 0)) * crowd), logs)


def _resampled(values: Floats, count: int) -> Floats:
    """Values along the last axis at `count` even places; zeros where there is nothing to read."""
    have = values.shape[-1]
    if not count or not have:
        return np.zeros((*values.shape[:-1], count))
    at = np.clip((np.arange(count) + 0.5) / count * have - 0.5, 0, have - 1)
    low = np.floor(at).astype(np.int64)
    high = np.minimum(low + 1, have - 1)
    result: Floats = values[..., low] + (at - low) * (values[..., high] - values[..., low])
    return result
