"""What a prediction would be without a term of the model, so that each has to earn its place."""

from collections.abc import Callable

from offsim.calibration.schema import Calibration, Figure
from offsim.policy.policy import Policy

_NOTHING = Figure(label="ESTIMATED", value=0.0, p10=0.0, p90=0.0, samples=1)


def _interference(calibration: Calibration) -> Calibration:
    free = {
        "compute_slowdown": 1.0,
        "expert_slowdown": None,
        "decode_slowdown": 1.0,
        "arrival_s": 0.0,
    }
    codecs = [codec.model_copy(update=free) for codec in calibration.codecs]
    return calibration.model_copy(update={"codecs": codecs})


def _hand_over(calibration: Calibration) -> Calibration:
    nothing = dict.fromkeys(type(calibration.handover).model_fields, _NOTHING)
    handover = calibration.handover.model_copy(update=nothing)
    return calibration.model_copy(update={"handover": handover})


def _overshoot(calibration: Calibration) -> Calibration:
    link = calibration.link.model_copy(update={"overshoot_s": _NOTHING})
    return calibration.model_copy(update={"link": link})


def _without(**fields: object) -> Callable[[Calibration], Calibration]:
    def changed(calibration: Calibration) -> Calibration:
        compute = calibration.compute.model_copy(update=fields)
        return calibration.model_copy(update={"compute": compute})

    return changed


def _foresight(calibration: Calibration) -> Calibration:
    codecs = [codec.model_copy(update={"foresight": []}) for codec in calibration.codecs]
    return _without(foresight=[])(calibration.model_copy(update={"codecs": codecs}))


TERMS: dict[str, Callable[[Calibration], Calibration]] = {
    "interference": _interference,
    "hand_over": _hand_over,
    "overshoot": _overshoot,
    "cooling": _without(cooling=[], still_cold=0.0),
    "foresight": _foresight,
    "attention": _without(attention_s=None),
}
"""By name, what takes a term out of a calibration."""
CHUNKS = "chunks"
"""The term that a policy has: loads that move in parts."""


def without(term: str, policy: Policy, calibration: Calibration) -> tuple[Policy, Calibration]:
    """A policy and a calibration as a simulator without this term would have them.

    Args:
        term: one of TERMS, or CHUNKS.
        policy: that is predicted.
        calibration: of the machine.
    """
    if term == CHUNKS:
        whole = policy.transfer.model_copy(update={"chunk_bytes": None, "pipelined": False})
        return policy.model_copy(update={"transfer": whole}), calibration
    return policy, TERMS[term](calibration)
