"""Tables of a calibration and of a trace, as the report and the CSV files show them."""

import pandas as pd

from offsim.calibration.schema import Calibration, DeviceFigures


def codec_table(calibration: Calibration) -> pd.DataFrame:
    """A row a codec and bound, MEASURED. MB are of the stored dtype (bf16)."""
    stored = calibration.model.expert_bytes
    bits = 8 * stored / (3 * calibration.model.hidden * calibration.model.width)
    rows = [
        {
            "codec": f.codec,
            "bound": f.bound,
            "placement": f.placement,
            "ratio_bf16": f.ratio,
            "bits_per_weight": bits / f.ratio,
            "largest_error_bf16": f.largest_error,
            "fallbacks": f.fallbacks,
            "encode_MB_per_s": stored / f.encode_s.value / 1e6,
            "decode_MB_per_s": stored / f.decode_s.value / 1e6,
            "decode_ms_per_expert": f.decode_s.value * 1e3,
            "compute_slowdown": f.compute_slowdown,
            "decode_slowdown": f.decode_slowdown,
        }
        for f in calibration.codecs
    ]
    return pd.DataFrame(rows)


def compute_table(calibration: Calibration) -> pd.DataFrame:
    """Rows of part, tokens, milliseconds and their spread, MEASURED."""
    parts = ("first", "dense", "dispatch", "expert", "head")
    return pd.DataFrame(
        [
            {
                "part": part,
                "tokens": point.size,
                "ms": point.seconds.value * 1e3,
                "p10_ms": point.seconds.p10 * 1e3,
                "p90_ms": point.seconds.p90 * 1e3,
                "samples": point.seconds.samples,
            }
            for part in parts
            for point in getattr(calibration.compute, part)
        ]
    )


def link_table(calibration: Calibration) -> pd.DataFrame:
    """Rows of bytes, microseconds and GB/s of plain copies, MEASURED."""
    return pd.DataFrame(
        [
            {
                "bytes": point.size,
                "us": point.seconds.value * 1e6,
                "GB_per_s": point.size / point.seconds.value / 1e9,
            }
            for point in calibration.link.copies
        ]
    )


def copies_table(calibration: Calibration, device: DeviceFigures) -> pd.DataFrame:
    """A row a size: GB/s from each kind of host memory, all copies side by side together.

    Args:
        calibration: whose link are the copies from pinned memory, one at a time.
        device: that was measured.
    """
    columns = {"pinned": (1, calibration.link.copies)}
    for one in device.copies:
        beside = "" if one.channels == 1 else f" x{one.channels}"
        columns[f"{one.memory}{beside}"] = (one.channels, one.copies)
    rates = {
        name: [channels * point.size / point.seconds.value / 1e9 for point in copies]
        for name, (channels, copies) in columns.items()
    }
    return pd.DataFrame({"bytes": [point.size for point in calibration.link.copies], **rates})


def decoder_table(device: DeviceFigures) -> pd.DataFrame:
    """A row a decoder, codec and bound; MB are of the stored dtype."""
    rows = [
        {
            "decoder": one.decoder,
            "codec": one.codec,
            "bound": one.bound,
            "ratio": one.ratio,
            "decode_MB_per_s": one.blob_bytes * one.ratio / one.decode_s.value / 1e6,
            "decode_ms_per_expert": one.decode_s.value * 1e3,
        }
        for one in device.decoders
    ]
    return pd.DataFrame(rows)
