"""What a designer asks about: a trace under a policy on a machine, and the same with one change."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from offsim.calibration.schema import Calibration, CodecFigures, Figure
from offsim.policy.policy import HALF, Policy
from offsim.policy.tiers import Sizes
from offsim.record import Metrics, RunRecord
from offsim.simulate import predict, simulate
from offsim.simulate.band import Band, band
from offsim.simulate.costs import Costs
from offsim.simulate.mixture import calibrated, stored
from offsim.simulate.predictor import Predictor
from offsim.simulate.simulation import EngineName
from offsim.trace import Trace

DECODED = {"keep": "decoded", "decoded_share": HALF}
"""Fields of a policy whose device keeps no blobs."""
_NOTHING = Figure(label="ESTIMATED", value=0.0, p10=0.0, p90=0.0, samples=1)


@dataclass(frozen=True)
class Case:
    """One simulation that can be asked for.

    Attributes:
        trace: the router's decisions.
        policy: codec, bound, cache, prefetcher.
        calibration: of the machine and model.
        link_bytes_per_s: pace of the link; None for the machine's own.
        profile: a trace that a policy may learn from.
    """

    trace: Trace
    policy: Policy
    calibration: Calibration
    link_bytes_per_s: float | None = None
    profile: Trace | None = None

    def predict(self) -> Metrics:
        """What it takes; raises as `offsim.simulate.predict`."""
        return predict(*self._parts)

    def predictor(self) -> Predictor:
        """Of the same under one table of bounds after another; raises as `Predictor`."""
        return Predictor(*self._parts)

    def band(self) -> Band:
        """Where its metrics lie when they are measured; raises as `offsim.simulate.band.band`."""
        return band(*self._parts)

    def record(self, engine: EngineName = "fast", noise_seed: int | None = None) -> RunRecord:
        """Every load and wait; arguments and errors as of `offsim.simulate.simulate`."""
        return simulate(*self._parts, engine, noise_seed)

    @property
    def _parts(self) -> tuple[Trace, Policy, Calibration, float | None, Trace | None]:
        return self.trace, self.policy, self.calibration, self.link_bytes_per_s, self.profile

    @property
    def figures(self) -> CodecFigures:
        """Of the policy's codec; of all experts together where it has a table of bounds.

        Raises:
            InputError: as for `offsim.simulate.mixture.stored`.
        """
        return stored(self.calibration, self.policy).figures

    @property
    def experts(self) -> int:
        """Experts of a layer."""
        return self.calibration.model.experts

    @property
    def slots(self) -> float:
        """Experts that a layer can keep, or its share of one pool; all of them at most."""
        layers = self.trace.layers
        return min(sum(self.policy.pools(layers)), layers * self.experts) / layers

    @property
    def kept_bytes(self) -> Sizes:
        """Bytes that an expert takes on the device, in each tier where there are two."""
        costs = Costs(self.calibration, self.policy, self.link_bytes_per_s)
        return costs.sizes.kept(self.policy.keep)

    @property
    def bandwidth(self) -> float:
        """Of the link, bytes/s: its pace, but no more than the machine's own."""
        own = self.calibration.link.bytes_per_s
        return own if self.link_bytes_per_s is None else min(own, self.link_bytes_per_s)

    def with_policy(self, **changes: Any) -> "Case":
        """The same under a policy that differs in these fields."""
        return replace(self, policy=self.policy.model_copy(update=changes))

    def at_bandwidth(self, bytes_per_s: float) -> "Case":
        """The same over a link of this bandwidth; its latency, or its overshoot, stays.

        A paced link may then be faster than the machine's own, which is no limit here.
        """
        link = self.calibration.link
        if self.link_bytes_per_s is None:
            pace, own = None, bytes_per_s
        else:
            pace, own = bytes_per_s, max(link.bytes_per_s, bytes_per_s)
        changed = link.model_copy(update={"bytes_per_s": own})
        calibration = self.calibration.model_copy(update={"link": changed})
        return replace(self, calibration=calibration, link_bytes_per_s=pace)

    def with_fewer_bits(self, bits: float) -> "Case":
        """The same with blobs that are smaller by so many bits a weight, decoded as fast."""
        model = self.calibration.model
        less = model.hidden * model.width * bits / 8

        def smaller(figures: CodecFigures) -> dict[str, Any]:
            blobs, matrices = figures.blob_bytes, figures.matrix_bytes
            return {
                "blob_bytes": [[_less(size, 3 * less) for size in row] for row in blobs],
                "matrix_bytes": None
                if matrices is None
                else [[[_less(size, less) for size in one] for one in row] for row in matrices],
            }

        return self._with_codec(smaller)

    def without_loads(self) -> "Case":
        """The same as if every expert were always there: compute alone, to within 1 ps a load."""

        def free(figures: CodecFigures) -> dict[str, Any]:
            return {
                "decode_s": _NOTHING,
                "unpack_s": None if figures.unpack_s is None else _NOTHING,
                "compute_slowdown": 1.0,
                "expert_slowdown": None,
                "decode_slowdown": 1.0,
                "arrival_s": 0.0,
            }

        case = self._with_codec(free).with_policy(
            cache="lru",
            slots=self.experts,
            extra=0,
            prefetch="none",
            host_bytes=None,
            host_tokens=0,
            **DECODED,
            low=None,
        )
        old = case.calibration
        handover = dict.fromkeys(type(old.handover).model_fields, _NOTHING)
        calibration = old.model_copy(
            update={
                "link": old.link.model_copy(update={"latency_s": 0.0, "bytes_per_s": math.inf}),
                "handover": old.handover.model_copy(update=handover),
                "compute": old.compute.model_copy(update={"cooling": []}),
            }
        )
        return replace(case, calibration=calibration, link_bytes_per_s=None)

    def _with_codec(self, change: Callable[[CodecFigures], dict[str, Any]]) -> "Case":
        """The same with other figures of the policy's codec, at each of its bounds."""
        own = calibrated(self.calibration, self.policy)
        codecs = [
            one.model_copy(update=change(one)) if any(one is mine for mine in own) else one
            for one in self.calibration.codecs
        ]
        return replace(self, calibration=self.calibration.model_copy(update={"codecs": codecs}))


def _less(nbytes: int, less: float) -> int:
    return max(0, round(nbytes - less))
