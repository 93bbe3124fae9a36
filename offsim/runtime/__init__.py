"""The real run: blobs in host memory and on disk, a paced link, decoders, slots to compute in."""

from offsim.runtime.driven import run_driven
from offsim.runtime.pipeline import check_transfer
from offsim.runtime.run import Run, check_placement, run_offloaded
from offsim.runtime.store import ExpertStore

__all__ = [
    "ExpertStore",
    "Run",
    "check_placement",
    "check_transfer",
    "run_driven",
    "run_offloaded",
]
