"""A store whose blobs lie in a folder of `offsim compress`, so that memory need not hold them."""

from offsim.codec.folder import ExpertFolder
from offsim.codec.registry import codec_named
from offsim.model.experts import ExpertShape
from offsim.policy.bounds import Bounds
from offsim.runtime.store import ExpertStore


def shelved_store(folder: ExpertFolder) -> ExpertStore:
    """The experts of a folder; payloads are memory-mapped and come from the page cache or the disk.

    A checksum is looked at when its blob is first used, and the blob is not used if it does not
    hold.

    Args:
        folder: that `offsim compress` finished.

    Returns:
        A store like that of `ExpertStore.holding` under the same codec and bounds. Its
        `largest_error` is what the blobs promise, the loosest bound of any, since the weights are
        not here to compare with. One absolute bound for all is its `bound`, as a policy has it.

    Raises:
        InputError: its codec cannot be had here.
    """
    job = folder.index.job
    shape = ExpertShape(job.layers, job.experts, job.hidden, job.width, job.dtype_bytes)
    loosest = max(
        part.header.bound for file in folder.files for three in file.experts for part in three
    )
    bounds = None if job.bounds is None else Bounds.model_validate(job.bounds)
    bound = loosest if job.bounds is not None else 0.0
    if bounds is not None and not bounds.rules and bounds.default.kind == "abs":
        bound, bounds = bounds.default.value, None
    codec = codec_named(job.codec, job.options)
    return ExpertStore(shape, codec, bound, folder.blobs(), loosest, bounds)
