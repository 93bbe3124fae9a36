"""The real run: experts compressed in host memory, a paced link, decoders, and slots to compute in."""

from offsim.runtime.run import Run, run_offloaded
from offsim.runtime.store import ExpertStore

__all__ = ["ExpertStore", "Run", "run_offloaded"]
