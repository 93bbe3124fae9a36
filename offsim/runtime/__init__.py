"""The real run: experts as blobs in host memory, a paced link, decoders, slots to compute in."""

from offsim.runtime.driven import run_driven
from offsim.runtime.pipeline import check_transfer
from offsim.runtime.run import Run, run_offloaded
from offsim.runtime.store import ExpertStore

__all__ = ["ExpertStore", "Run", "check_transfer", "run_driven", "run_offloaded"]
