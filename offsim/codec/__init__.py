"""Compressors of expert weights: one file a codec, one interface, one registry.

`encode` and `decode` are the way in: they keep the promise that no weight is off by more than the
bound, in the dtype that the checkpoint stores and the device computes with.
"""

from offsim.codec.base import Codec
from offsim.codec.blob import Blob
from offsim.codec.bounded import decode, encode
from offsim.codec.registry import CODECS, codec_named

__all__ = ["CODECS", "Blob", "Codec", "codec_named", "decode", "encode"]
