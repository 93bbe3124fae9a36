"""A machine with four bounds, and a model whose layers are unlike."""

from itertools import pairwise

from offsim.accuracy.sensitivity import Sensitivity
from offsim.accuracy.sensitivity_parts import CodecLoss, Joint
from offsim.calibration.schema import CodecFigures
from offsim.codec.bounds import Bound
from offsim.policy.bounds import Bounds
from offsim.study.case import Case
from tests.accuracy.sensitive import LADDER, quadratic, ranged
from tests.builders import codec_figures
from tests.study.cases import ALTERNATING, case

COSTS = (1.0, 4.0, 16.0)
"""Of the layers: 1, 4 and 16 times the square of the bound, nats a token."""
BYTES = dict(zip(LADDER, (800, 600, 400, 200), strict=True))
"""Of a blob at each bound; a raw expert has 1000."""


def codecs() -> list[CodecFigures]:
    return [
        codec_figures(),
        *(codec_figures("cuszp", bound, blob_bytes=size) for bound, size in BYTES.items()),
    ]


def machine(**policy: object) -> Case:
    """Every layer waits for one blob a token, over 1000 bytes/s."""
    return case(ALTERNATING, *codecs(), **{"codec": "cuszp", "bound": LADDER[0], **policy})


def losses(kind: str = "abs") -> Sensitivity:
    """Joint injections with a KL of 0.01, 0.1 and 1 dropped ICA by 2, 1 and 20 points."""
    joints = tuple(
        Joint(
            varied="layers",
            bounds=Bounds(default=Bound(0.5)),
            kl=ranged(kl),
            nll=ranged(kl),
            ica_drop=ranged(drop),
            predicted=ranged(kl),
        )
        for kl, drop in ((0.01, 0.02), (0.1, 0.01), (1.0, 0.2))
    )
    assert all(a < b for a, b in pairwise(LADDER))
    return quadratic(*COSTS).model_copy(update={"kind": kind, "joints": joints})


def of_codec(codec: str, *kl: float) -> CodecLoss:
    """A codec that takes no bound and loses so much in each layer, nats a token."""
    return CodecLoss(codec=codec, kl=tuple(map(ranged, kl)))
