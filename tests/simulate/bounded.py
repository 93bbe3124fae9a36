"""A machine that is calibrated at several bounds."""

import numpy as np

from offsim.calibration.schema import Calibration, DiskFigures, ForesightFigures, KeptFigures
from tests.builders import calibration, codec_figures, figure, sized

LADDER = (0.25, 0.5, 1.0)


def machine(layers: int, experts: int, seed: int, attention: float | None = None) -> Calibration:
    """Bounds of which each has other bytes, and other figures of everything."""
    rng = np.random.default_rng(seed)
    codecs = []
    for rung, bound in enumerate(LADDER):
        made = codec_figures(
            "cuszp",
            bound,
            layers=layers,
            experts=experts,
            decode_s=0.4 - 0.1 * rung,
            compute_slowdown=1.5 + rung / 4,
            decode_slowdown=1.25 + rung / 8,
        )
        parts = rng.integers(250 - 50 * rung, 350 - 50 * rung, (layers, experts, 3))
        ahead = ForesightFigures(
            prefetch="gate", distance=1, seconds=sized((1, 0.25), (4, 0.5 + rung))
        )
        kept = KeptFigures(decode_s=figure(0.2 + 0.1 * rung), expert=sized((1, 0.75)))
        update = {
            "matrix_bytes": parts.tolist(),
            "blob_bytes": parts.sum(-1).tolist(),
            "foresight": [ahead],
            "kept": kept,
            "chunk_s": 0.01 * rung,
            "alone_s": figure(0.5),
        }
        codecs.append(made.model_copy(update=update))
    figures = calibration(*codecs, layers=layers, experts=experts, handover_s=0.01)
    each = None if attention is None else figure(attention)
    compute = figures.compute.model_copy(
        update={"attention_s": each, "first": sized((1, 0.5), (4, 1.25))}
    )
    disk = DiskFigures(label="MEASURED", latency_s=0.1, bytes_per_s=2000.0)
    return figures.model_copy(update={"compute": compute, "disk": disk})
