"""Prepared clips → rows as they are stored: the one place where features are pooled and gradients are off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.features.encoders import pooling
from pipeline.features.encoders.extractor import Extractor, Prepared
from pipeline.threads import calm_libraries, computing

from .allocation import keep_freed_memory


class Forward:
    """An extractor's encoder on a device.

    Args:
        extractor: loaded here.
        device: `cpu` or `cuda:0`.

    Attributes:
        encoder: what `extractor.load` gave.
    """

    def __init__(self, extractor: Extractor, device: str = "cpu") -> None:
        self.encoder = extractor.load(device=device)
        self._pooling, self._rate, self._threads = extractor.pooling, extractor.rate, extractor.threads
        calm_libraries()
        if device == "cpu":
            keep_freed_memory()

    def __call__(self, batch: Sequence[Prepared]) -> list[tuple[np.ndarray, np.ndarray]]:
        """(values (T, ...) float32, times (T, 2) float32) of each clip, in order.

        Raises:
            ParamsError: unknown pooling, or a layer the model has not.
            ValueError: a clip without rows, or with other times than rows.
        """
        with computing(self._threads):
            return [
                pooling.reduce(rows, item.times, pooling=self._pooling, rate=self._rate)
                for rows, item in zip(self._encode(batch), batch, strict=True)
            ]

    def _encode(self, batch: Sequence[Prepared]) -> Any:
        if self.encoder.network is None:
            return self.encoder.encode(batch)
        import torch

        with torch.inference_mode():
            rows: Any = self.encoder.encode(batch)
            if rows and rows[0].device.type != "cpu":
                # All at once: pooling clip by clip there would wait for the device once per clip.
                rows = torch.split(torch.cat(rows).cpu(), [len(one) for one in rows])
        return rows
