"""The outputs of an extraction, gathered film by film on the disk, then in one store or as a file for each film."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType

import numpy as np

from pipeline.errors import UserError
from pipeline.storage import output_store
from pipeline.storage.atomic import atomic_file, write_json, write_text
from pipeline.storage.feature_store import Entry, Status
from pipeline.storage.seal import sum_rows

from .extraction import STATES, Extraction
from .items import Item


@dataclass
class Gathered:
    """What was extracted so far; a block, at whose end the gathered files go.

    Args:
        near: a folder on the disk that the outputs are written to.

    Attributes:
        known: film → output → (rows, shape of a row, status, reason).
    """

    near: Path
    known: dict[str, dict[str, tuple[int, tuple[int, ...], Status, str]]] = field(default_factory=dict)
    _numbers: dict[str, int] = field(default_factory=dict, init=False, repr=False)

    def __enter__(self) -> Gathered:
        self.near.mkdir(parents=True, exist_ok=True)
        self._folder = tempfile.TemporaryDirectory(dir=self.near, prefix=".gathered-")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._folder.cleanup()

    def add(self, clip: str, outputs: dict[str, Entry]) -> None:
        """One film."""
        self._numbers[clip] = len(self._numbers)
        self.known[clip] = {}
        for name, entry in outputs.items():
            self.known[clip][name] = (len(entry.values), entry.values.shape[1:], entry.status, entry.reason)
            if entry.status == Status.OK:
                np.savez(self._place(clip, name), values=entry.values, times=entry.times)

    def entries(self, name: str, ids: Iterable[str]) -> Iterator[Entry]:
        """Of one output, in the order of `ids`."""
        for clip in ids:
            _, _, status, reason = self.known[clip][name]
            if status == Status.OK:
                with np.load(self._place(clip, name)) as found:
                    yield Entry(found["values"], found["times"])
            else:
                yield Entry(np.empty((0,), np.float32), np.empty((0, 2), np.float32), status, reason)

    def write_store(self, path: Path, extraction: Extraction) -> None:
        """One HDF5 file (`pipeline/storage/output_store.py`)."""
        ids, outputs = sorted(self.known), {}
        for name in extraction.outputs:
            there = [self.known[clip][name] for clip in ids]
            shape = next((shape for _, shape, status, _ in there if status == Status.OK), (extraction.model.width,))
            reasons = [reason for _, _, _, reason in there]
            rows = [count for count, _, _, _ in there]
            outputs[name] = output_store.Output(partial(self.entries, name, ids), rows, shape, reasons)
        attributes: dict[str, object] = {"identity": extraction.identity, "random": extraction.random}
        output_store.write(path, ids, outputs, extraction.settings.dtype, attributes)

    def write_files(self, folder: Path, extraction: Extraction) -> None:
        """`OUTPUT/FILM.npy` of each, `names.txt`, and `index.json` with shapes, hashes and reasons."""
        ids, index = sorted(self.known), dict[str, dict[str, object]]()
        for name in extraction.outputs:
            for clip, entry in zip(ids, self.entries(name, ids), strict=True):
                about = index.setdefault(clip, {})
                if entry.status != Status.OK:
                    about[name] = {"status": entry.status.name.lower(), "reason": entry.reason}
                    continue
                # One row that holds others is those.
                values = entry.values[0] if len(entry.values) == 1 else entry.values
                values = np.ascontiguousarray(values.astype(extraction.settings.dtype))
                place = folder / name / f"{clip}.npy"
                place.parent.mkdir(parents=True, exist_ok=True)
                with atomic_file(place) as temporary, open(temporary, "wb") as file:
                    np.save(file, values)
                about[name] = {"shape": list(values.shape), "xxh3": f"{sum_rows(values):016x}"}
        write_text(folder / "names.txt", "".join(f"{clip}\n" for clip in ids))
        write_json(folder / "index.json", {"films": index, "identity": extraction.identity, "random": extraction.random})

    def _place(self, clip: str, name: str) -> Path:
        return Path(self._folder.name) / f"{self._numbers[clip]}-{name}.npz"


def gather(items: Iterable[Item], extraction: Extraction, gathered: Gathered) -> Iterator[tuple[str, str]]:
    """Extract, batch by batch. Yields the id of each film and why it has no states, or nothing.

    Raises:
        UserError: not one film has anything that can be read.
    """
    some, first = False, ""
    for batch in _batched(items, extraction.settings.batch):
        for item, outputs in zip(batch, extraction(batch), strict=True):
            gathered.add(item.id, outputs)
            reason = outputs[STATES].reason
            some, first = some or bool(item.rows), first or f"{item.id}: {reason}"
            yield item.id, reason
    if not some:
        raise UserError(f"not one film can be read; {first or 'none was given'}.")


def count(gathered: Gathered, name: str = STATES) -> Counter[Status]:
    """How many films have an output."""
    return Counter(found[name][2] for found in gathered.known.values())


def _batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    batch: list[Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
