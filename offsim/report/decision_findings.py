"""What the page to decide by says: what to do, what that buys, how sure it is."""

from collections import Counter

import numpy as np

from offsim.report.text import bound_text, form_order, form_text, milliseconds, percent
from offsim.study.optimize.latency import Both
from offsim.study.optimize.proof_file import Proof, gain

GOALS = {"tpot": "TPOT", "ttft": "TTFT"}
FEWEST_PRICES = 2


def recommended(proof: Proof) -> list[str]:
    """What to do."""
    answer = proof.answer
    assert answer.bounds is not None
    layers, experts = proof.model.layers, proof.model.experts
    used, at = answer.bounds.table(layers, experts)
    counts = Counter(at.ravel().tolist())
    parts = [
        f"{percent(counts[number] / at.size)} of the matrices "
        f"{'at' if form.codec is None else 'under'} {form_text(form)}"
        for number, form in sorted(enumerate(used), key=lambda pair: form_order(pair[1]))
    ]
    codecs = " and ".join((answer.codec, *answer.bounds.codecs))
    own = "a bound" if not answer.bounds.codecs else "a codec and bound"
    return [
        *_dominated(proof),
        f"Store the experts of {proof.model.name} with {codecs}, {own} a {proof.by}: "
        f"{', '.join(parts)}.",
        f"It is for {proof.policy}, over a link of {proof.link_bytes_per_s / 1e6:.1f} MB/s, and "
        f"for a budget of {proof.budget}"
        + ("." if proof.budget.startswith("kl") else f", which is KL {proof.nats:.2g}."),
    ]


def _dominated(proof: Proof) -> list[str]:
    """A bound, zones or another codec that was measured to be better in both, if there is one."""
    rival = proof.fastest_of("uniform", "zones", "other")
    if rival is None:
        return []
    ours, theirs = (proof.latency(way).measured for way in (proof.answer, rival))
    if theirs >= ours:
        return []
    return [
        f"In the runs {rival.name.replace(', ', ' of ')} was better than the table that was found: "
        f"{milliseconds(theirs)} ms against {milliseconds(ours)}, {percent(1 - theirs / ours)} "
        f"less, and KL {rival.kl.mean:.2g} against {proof.answer.kl.mean:.2g}. Take that, unless a "
        "longer proof says otherwise. What the search found is:"
    ]


def buys(proof: Proof) -> list[str]:
    """What it gains and what it costs, MEASURED."""
    goal, answer = GOALS[proof.goal], proof.answer
    ours = proof.latency(answer).measured
    said = [f"{goal} is {milliseconds(ours)} ms."]
    raw = next((way for way in proof.ways if way.kind == "raw"), None)
    if raw is not None:
        without = proof.latency(raw).measured
        said[0] = (
            f"{goal} is {milliseconds(ours)} ms, against {milliseconds(without)} ms without "
            f"compression: {percent(1 - ours / without)} less."
        )
    said.append(_against_one_bound(goal, ours, proof))
    if (other := _against_another_codec(proof)) is not None:
        said.append(other)
    within = "within" if answer.kl.mean <= proof.nats else "above"
    said.append(
        f"It loses KL {answer.kl.mean:.2g} nats a token ({answer.kl.low:.2g} to "
        f"{answer.kl.high:.2g}), {within} the budget of {proof.nats:.2g}{_answered(proof)}."
    )
    if (adaptive := _adaptive(proof)) is not None:
        said.append(adaptive)
    return said


def _answered(proof: Proof) -> str:
    answer, change = proof.answer, proof.answer.ica_change
    if answer.ica is None or change is None:
        return ""
    return (
        f"; of {proof.items} items {percent(answer.ica)} are answered rightly, "
        f"{percent(change.mean, signed=True)} ({percent(change.low, signed=True)} to "
        f"{percent(change.high, signed=True)}) of what is without an error"
    )


def _adaptive(proof: Proof) -> str | None:
    """Whether a bound that goes by the router's weight is better than the answer."""
    every = [way for way in proof.ways if way.kind == "adaptive"]
    if not every:
        return None
    ours = proof.latency(proof.answer).measured
    within = [way for way in every if way.kl.mean <= max(proof.nats, proof.answer.kl.mean)]
    best = min(within, key=lambda way: proof.latency(way).measured, default=None)
    if best is None:
        return "No bound that goes by the router's weight loses as little as was allowed."
    theirs = proof.latency(best).measured
    verdict = "less" if theirs < ours else "more"
    return (
        f"A bound that goes by the router's weight ({best.name}) takes {milliseconds(theirs)} ms, "
        f"{percent(abs(1 - theirs / ours))} {verdict}, and loses KL {best.kl.mean:.2g}."
    )


def _against_one_bound(goal: str, ours: float, proof: Proof) -> str:
    found = gain(proof)
    if found is None:
        rival = proof.fastest_of("uniform")
        if rival is None:
            return "No single bound of the ladder loses as little as it does."
        theirs = proof.latency(rival).measured
        return (
            f"The fastest single bound that loses no more ({rival.name}) takes "
            f"{milliseconds(theirs)} ms: the answer takes {percent(1 - ours / theirs)} less."
        )
    two = " and ".join(found.between)
    said = (
        f"A single bound that loses as much (between {two}) would take "
        f"{milliseconds(found.seconds)} ms: the answer takes {_saved(found.share)} "
        f"({percent(-found.high, signed=True)} to {percent(-found.low, signed=True)} over repeats, "
        f"{_sign(found.low, found.high)})."
    )
    expected = gain(proof, predicted=True)
    if expected is not None:
        said += f" {_saved(expected.share)} was predicted.".capitalize()
    return said if found.share > 0 else f"{said} {_why(proof)}".rstrip()


def _against_another_codec(proof: Proof) -> str | None:
    """How the answer stands beside the fastest of the other codecs that lose no more."""
    rival = proof.fastest_of("other")
    if rival is None:
        return None
    ours, theirs = proof.latency(proof.answer), proof.latency(rival)
    shares = [1 - one / other for one, other in zip(ours.repeats, theirs.repeats, strict=True)]
    low, high = np.percentile(shares, (10, 90))
    return (
        f"Of the other codecs that lose no more, {rival.name} is the fastest, with "
        f"{milliseconds(theirs.measured)} ms and KL {rival.kl.mean:.2g}: the answer takes "
        f"{_saved(1 - ours.measured / theirs.measured)} ({percent(-high, signed=True)} to "
        f"{percent(-low, signed=True)} over repeats, {_sign(low, high)})."
    )


def _saved(share: float) -> str:
    return f"{percent(abs(share))} {'less' if share >= 0 else 'more'}"


def _why(proof: Proof) -> str:
    """Why different bounds did not pay."""
    if proof.around is None or len(proof.around.prices) < FEWEST_PRICES:
        return ""
    low, high = np.percentile(proof.around.prices, (10, 90))
    return (
        f"Different bounds pay where places ask unlike prices for time: here the loss for a saved "
        f"millisecond differs by a factor of {high / low:.1f} between the {proof.by}s (ESTIMATED, "
        "10th to 90th percentile), while a mixture of two bounds loses more than one bound between "
        "them, since losses grow faster than bounds."
    )


def known_tasks(proof: Proof) -> list[str]:
    """What a bound for each task buys; nothing where that was not tried."""
    found = proof.by_task
    if found is None:
        return []
    goal, one, each = GOALS[proof.goal], found.one.latency, found.each.latency
    shares = [1 - ours / theirs for ours, theirs in zip(each.repeats, one.repeats, strict=True)]
    low, high = np.percentile(shares, (10, 90))
    share = 1 - each.measured / one.measured
    gained = found.gained
    said = [
        f"One bound for all tasks, {bound_text(found.single)}, takes {milliseconds(one.measured)} "
        f"ms of {goal} in the mean over the tasks; a bound for each takes "
        f"{milliseconds(each.measured)} ms: {_saved(share)} ({percent(-high, signed=True)} to "
        f"{percent(-low, signed=True)} over repeats, {_sign(low, high)}). "
        f"{_saved(1 - each.simulated / one.simulated)} was predicted.",
        f"With it {percent(abs(gained.mean))} {'more' if gained.mean >= 0 else 'fewer'} of "
        f"{found.items} items are answered rightly ({percent(gained.low, signed=True)} to "
        f"{percent(gained.high, signed=True)}, {_sign(gained.low, gained.high)}).",
        "Both are the fastest by the simulator that lost no more right answers than the loosest "
        "single bound within the budget, on items of their own; each task is served by itself, "
        "from an empty cache on.",
    ]
    return said if found.decisions_equal else [*said, "Decision logs are DIFFERENT."]


def _sign(low: float, high: float) -> str:
    """Whether an interval leaves the sign open."""
    return "beyond the noise" if low > 0 or high < 0 else "within the noise"


def sure(proof: Proof) -> list[str]:
    """How far the prediction held, and what the search can say."""
    answer = proof.answer
    both = proof.latency(answer)
    every = [proof.latency(way) for way in proof.ways]
    errors = [abs(one.simulated / one.measured - 1) for one in every]
    said = [
        f"{GOALS[proof.goal]} was predicted as {milliseconds(both.simulated)} ms{_band(both)}; it "
        f"is off by {percent(both.simulated / both.measured - 1, signed=True)}. Over all "
        f"{len(errors)} ways of this page the median error is {percent(float(np.median(errors)))} "
        f"and the largest {percent(max(errors))}; nothing was fitted to these runs."
    ]
    if (guess := answer.kl_estimated) is not None:
        said.append(
            f"The loss was estimated as KL {guess.mean:.2g} ({guess.low:.2g} to {guess.high:.2g}) "
            f"by the sensitivity, and is {answer.kl.mean:.2g} on texts and items of their own."
        )
    if proof.exact:
        said.append(
            f"All choices within the budget were simulated ({proof.simulations}): by the model, "
            "none is faster."
        )
    else:
        said.append(
            f"{proof.simulations} choices were simulated; by what single changes are worth, none "
            f"within the budget is faster by more than {percent(proof.gap)}."
        )
    logs = all(way.decisions_equal for way in proof.ways if way.kind != "adaptive")
    said.append(
        f"Each way was run {len(both.repeats)} times, interleaved; decision logs of runs and "
        f"simulations are {'equal' if logs else 'DIFFERENT'}. Measured on {proof.machine.cpu}, "
        f"{proof.machine.measured_on}, by offsim {proof.offsim}: the latency is of this machine, "
        "the loss of this model."
    )
    return said


def _band(both: Both) -> str:
    if both.low is None or both.high is None:
        return ""
    return f" (90 % band {milliseconds(both.low)} to {milliseconds(both.high)})"
