"""The real run: experts as blobs in host memory, a paced link, decoders, slots to compute in."""

from offsim.runtime.run import Run, run_offloaded
from offsim.runtime.store import ExpertStore

__all__ = ["ExpertStore", "Run", "run_offloaded"]
