"""Prepared clips → rows as they are stored: the one place where features are pooled and gradients are off."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from pipeline.devices import APPLE
from pipeline.errors import DeviceError
from pipeline.features.encoders import pooling
from pipeline.features.encoders.encoder import Layered
from pipeline.features.encoders.extractor import Extractor, Prepared
from pipeline.params.features import Layer
from pipeline.threads import calm_libraries, computing

from .allocation import keep_freed_memory

#: (values (T, ...) float32, times (T, 2) float32) of a clip.
Pooled = tuple[np.ndarray, np.ndarray]


class Forward:
    """An extractor's encoder on a device, and what is read of it for other streams of the same network.

    Args:
        extractor: loaded here.
        device: `cpu`, `cuda:0` or `mps`.
        others: of the other streams; their rows come from the same pass.
        held: of the same stream before; its network is taken when it reads all that is asked of this one.

    Attributes:
        encoder: what `extractor.load` gave. layers: that it reads. fresh: it was loaded here.
    """

    def __init__(
        self, extractor: Extractor, device: str = "cpu", others: Sequence[Extractor] = (), held: Forward | None = None
    ) -> None:
        self._readouts, self._threads, self._device = (extractor, *others), extractor.threads, device
        asked: list[Layer] = []
        for one in self._readouts:
            asked += [one.layer] * (one.layer not in asked)
        self.fresh = held is None or not all(layer in held.layers for layer in asked)
        self.layers: list[Layer] = asked if self.fresh or held is None else held.layers
        if self.fresh or held is None:
            several = {"layers": tuple(asked)} if len(asked) > 1 else {}
            self.encoder = extractor.load(device=device, **several)
        else:
            self.encoder = held.encoder
        calm_libraries()
        if device == "cpu":
            keep_freed_memory()

    def __call__(self, batch: Sequence[Prepared]) -> list[Pooled]:
        """(values (T, ...) float32, times (T, 2) float32) of each clip, in order.

        Raises:
            ParamsError: unknown pooling, or a layer the model has not.
            ValueError: a clip without rows, or with other times than rows.
        """
        return [one for one in self._read(batch, self._readouts[:1])[0] if one is not None]

    def read_all(self, batch: Sequence[Prepared]) -> list[list[Pooled | None]]:
        """The same for the extractor and each of the others, by one pass of the network; None where one keeps no row.

        Raises:
            ParamsError, ValueError: as above, for any of them.
        """
        return self._read(batch, self._readouts)

    def _read(self, batch: Sequence[Prepared], readouts: Sequence[Extractor]) -> list[list[Pooled | None]]:
        with computing(self._threads):
            each = self._encode(batch, [one.layer for one in readouts])
            return [
                [
                    _pool(one, rows, item, item.kept[i] if item.kept else None)
                    for rows, item in zip(each[self.layers.index(one.layer)], batch, strict=True)
                ]
                for i, one in enumerate(readouts)
            ]

    def _encode(self, batch: Sequence[Prepared], layers: Sequence[Layer]) -> dict[int, Any]:
        """Rows of each clip, by the place of their layer among those the encoder reads."""
        if self.encoder.network is None:
            return {0: self.encoder.encode(batch)}
        import torch

        wanted = {self.layers.index(layer) for layer in layers}
        with torch.inference_mode(), self._naming_what_lacks():
            if isinstance(self.encoder, Layered) and len(self.layers) > 1:
                each: list[Any] = self.encoder.encode_layers(batch)
            else:
                each = [self.encoder.encode(batch)]
            return {place: _fetch(rows) for place, rows in enumerate(each) if place in wanted}

    @contextmanager
    def _naming_what_lacks(self) -> Iterator[None]:
        """An operation or number type that Apple's GPU lacks is the encoder's matter, and no clip's."""
        try:
            yield
        except (NotImplementedError, TypeError) as error:
            if self._device != APPLE or "mps" not in str(error).lower():
                raise
            why = str(error).partition(". ")[0].partition("\n")[0]
            raise DeviceError(f"this encoder cannot run on mps ({why}); set run.device to cpu.") from error


def _pool(readout: Extractor, rows: Any, item: Prepared, kept: np.ndarray | None) -> Pooled | None:
    if kept is not None and not kept.any():
        return None
    return pooling.reduce(rows, item.times, pooling=readout.pooling, rate=readout.rate, mask=kept)


def _fetch(rows: Any) -> Any:
    """Rows of each clip on the processor."""
    if rows and rows[0].device.type != "cpu":
        import torch

        # All at once: pooling clip by clip there would wait for the device once per clip.
        return torch.split(torch.cat(rows).cpu(), [len(one) for one in rows])
    return rows
