"""Several channels to one, as a listener with one loudspeaker should hear them."""

from __future__ import annotations

from functools import lru_cache

import av
import numpy as np

_HALF = 0.5
_MINUS_3_DB = 0.5**0.5

#: Channel → its share in the mean of the two channels that ITU-R BS.775 folds all others into: centre and surrounds at
#: -3 dB, a single rear channel divided between both surrounds at -3 dB, the low-frequency effects left out.
_SHARES = {
    **dict.fromkeys(("FL", "FR", "DL", "DR", "WL", "WR", "FLC", "FRC"), _HALF),
    "FC": _MINUS_3_DB,
    **dict.fromkeys(("BL", "BR", "SL", "SR", "SDL", "SDR", "TFL", "TFR", "TBL", "TBR", "TSL", "TSR"), _HALF * _MINUS_3_DB),
    **dict.fromkeys(("BC", "TC", "TFC", "TBC"), _HALF),
    "LFE": 0.0,
    "LFE2": 0.0,
}
#: Channels of files that do not name them, by their number: FLAC's order (RFC 9639, 9.1.3), which is WAV's too.
_ORDERS = {3: "3.0", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}


def to_mono(block: np.ndarray, layout: str, channel: int | None = None) -> np.ndarray:
    """(C, S) → (S,) float32: one channel, or all of them mixed.

    One or two channels give their mean. More are folded to two by ITU-R BS.775 and those averaged, so a voice in the centre
    arrives 3 dB below its own level, as if it stood with the same power in a stereo file's two channels. Nothing is scaled
    to the loudest possible sum: that would lower all speech by 8 dB for the sake of explosions. Channels nobody names count
    by their number as WAV and FLAC order them (3 to 8), else they are averaged.

    Args:
        block: samples by channel.
        layout: FFmpeg's name of the channels' arrangement.
        channel: the number of the one that is wanted; a mono source has but one to give.
    """
    if channel is not None and block.shape[0] > 1:
        return block[channel].astype(np.float32)
    if block.shape[0] <= 2:
        mean: np.ndarray = block.mean(axis=0, dtype=np.float32)
        return mean
    mixed: np.ndarray = np.asarray(_shares(layout, block.shape[0]), np.float32) @ block.astype(np.float32, copy=False)
    return mixed


@lru_cache
def _shares(layout: str, count: int) -> tuple[float, ...]:
    names = _names(layout)
    if not names or any(name not in _SHARES for name in names):
        names = _names(_ORDERS.get(count, ""))
    return tuple(_SHARES[name] for name in names) if len(names) == count else (1.0 / count,) * count


def _names(layout: str) -> list[str]:
    try:
        return [channel.name for channel in av.AudioLayout(layout).channels]
    except ValueError:
        return []
