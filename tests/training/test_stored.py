"""Rows gathered from the mapped stores: the bits of the loader that went clip by clip, and nothing held that need not be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import StoreError
from pipeline.models.batch import shorten
from pipeline.storage import feature_store
from pipeline.storage.feature_store import Entry, Status, Store, View
from pipeline.storage.index import IndexedStream
from pipeline.training.data.resident import load_stream
from pipeline.training.data.stored import Stored, send

LENGTHS = (4, 0, 9, 1, 12, 3)
VIEWS = {"mirror": (4, 0, 9, 0, 12, 3), "speed": (5, 0, 8, 1, 11, 2)}


def entries(counts, shape, rng):
    for count in counts:
        times = np.stack([np.arange(count), np.arange(1, count + 1)], 1).astype(np.float32) / 4
        status = Status.OK if count else Status.MISSING
        yield Entry(rng.normal(0, 3, (count, *shape)).astype(np.float32), times, status)


def indexed(path: Path, *, shape=(5,), views=(), trunk=False, **options) -> tuple[list[str], IndexedStream]:
    """A store of six clips, and an index that knows four of them and another, in another order of rows."""
    rng = np.random.default_rng(0)
    ids = [f"clip{i}" for i in range(len(LENGTHS))]
    feature_store.write(
        path,
        ids,
        entries(LENGTHS, shape, rng),
        rows=LENGTHS,
        shape=shape,
        views={name: View(entries(VIEWS[name], shape, rng), VIEWS[name]) for name in views},
        **options,
    )
    known = ["clip0", "clip1", "clip2", "clip3", "clip4", "clipX"]
    row = np.array([0, 1, 2, 3, 4, -1])
    status = np.array([Status.OK if i >= 0 and LENGTHS[i] else Status.MISSING for i in row], np.uint8)
    mean, std = rng.normal(size=(2, *shape[-2:])).astype(np.float32)
    facts = {"trunk": '{"depth": 1, "base": "x"}' if trunk else "null", "axis": "layer"}
    return known, IndexedStream(Store(path), row, status, mean[None], np.abs(std)[None] + 0.1, facts)


def clip_by_clip(ids, stream, limit, trunk):
    """What the rows have to be: each clip read, normalised, shortened; then all joined."""
    mean, std = stream.mean[0], stream.std[0]
    parts, times, lengths = [], [], []
    for store in (stream.store, *stream.store.views.values()):
        for r, state in zip(stream.row, stream.status, strict=True):
            if state != Status.OK:
                lengths.append(0)
                continue
            source = store if store.status[r] == Status.OK else stream.store
            low, high = source.offsets[r], source.offsets[r + 1]
            values = source.values[low:high].astype(np.float32)
            values = values if trunk else (values - mean) / std
            values, spans = shorten(values, source.times[low:high], limit or len(values))
            parts.append(values.astype(np.float32))
            times.append(spans)
            lengths.append(len(values))
    return np.concatenate(parts), np.concatenate(times).astype(np.float32), np.concatenate([[0], np.cumsum(lengths)])


CASES = {
    "plain": {},
    "float32": {"dtype": "float32"},
    "layers": {"shape": (3, 5)},
    "views": {"views": ("mirror", "speed")},
    "long": {"limit": 3},
    "long clips of views": {"views": ("mirror",), "limit": 5, "shape": (2, 3)},
    "compressed": {"compression": "gzip", "views": ("speed",)},
    "a language model's states": {"trunk": True, "limit": 3},
}


@pytest.mark.parametrize("name", CASES)
def test_the_bits_are_those_of_reading_clip_by_clip(tmp_path, name):
    options = dict(CASES[name])
    limit, trunk = options.pop("limit", None), options.get("trunk", False)
    ids, stream = indexed(tmp_path / "s.h5", **options)
    found = load_stream(stream, ids, (stream.mean[0], stream.std[0]), limit, None, 0, "cpu")
    values, times, offsets = clip_by_clip(ids, stream, None if trunk else limit, trunk)
    assert isinstance(found.values, Stored) and found.values.shape == values.shape and found.values.dim() == values.ndim
    assert found.values[:].numpy().tobytes() == values.tobytes()
    assert found.times.numpy().tobytes() == times.tobytes() and found.offsets.tolist() == offsets.tolist()
    keep = torch.arange(len(values)) % 3 == 1
    assert torch.equal(found.values[keep], torch.from_numpy(values)[keep]) and torch.equal(
        found.values[4:6], torch.from_numpy(values)[4:6]
    )
    order = torch.randperm(len(values), generator=torch.Generator().manual_seed(0)).repeat(2)
    assert torch.equal(found.values.take(order), torch.from_numpy(values)[order])
    rows = torch.tensor([4, 0, 1])
    tokens = found.tokens(rows)
    for b, row in enumerate(rows.tolist()):
        low, high = offsets[row : row + 2]
        assert torch.equal(tokens.values[b, : high - low], torch.from_numpy(values[low:high]))
        assert not tokens.values[b, high - low :].any() and tokens.mask[b].sum() == high - low


def test_truth_over_time_stands_at_the_centres_of_the_tokens(tmp_path):
    ids, stream = indexed(tmp_path / "s.h5", views=("mirror",))
    known = np.array([[0.0, 0.0], [4.0, 4.0]])
    found = load_stream(stream, ids, (stream.mean[0], stream.std[0]), 5, {"clip2": known}, 1, "cpu")
    centres = found.times.mean(1)
    for view in (0, 1):
        low, high = found.offsets[view * 6 + 2 : view * 6 + 4].tolist()
        assert high - low == 5
        torch.testing.assert_close(found.targets[low:high, 0], centres[low:high])
    assert torch.isfinite(found.targets).sum() == 10


def test_nothing_is_read_before_it_is_asked_for_and_then_it_is_checked(tmp_path):
    path = tmp_path / "s.h5"
    ids, stream = indexed(path)
    found = load_stream(stream, ids, (stream.mean[0], stream.std[0]), None, None, 0, "cpu")
    content = bytearray(path.read_bytes())
    begin = stream.store._blocks[0]._offset
    content[begin : begin + 2] = bytes(2)
    path.write_bytes(content)
    assert found.lengths.tolist() == [4, 0, 9, 1, 12, 0]
    with pytest.raises(StoreError, match="other rows than were written, of clip clip0"):
        found.tokens(torch.tensor([3]))


def test_on_a_device_the_rows_are_the_same(tmp_path, monkeypatch):
    """The way that rows of a GPU go, with the processor in its place."""
    ids, stream = indexed(tmp_path / "s.h5", views=("mirror", "speed"))
    for limit in (None, 3):
        found = load_stream(stream, ids, (stream.mean[0], stream.std[0]), limit, None, 0, "cpu").values
        held = [*(send(one.values, torch.device("cpu")) for one in found.sources), *([found._thinned] if limit else [])]
        assert held[0].dtype == torch.float16
        order = torch.arange(len(found)).flip(0)
        mapped = found.take(order)
        found.__dict__["_held"] = (torch.from_numpy(found.places), held)
        assert torch.equal(found.take(order), mapped)


def test_slices_that_go_to_a_device_are_all_of_it(monkeypatch):
    monkeypatch.setattr("pipeline.training.data.stored.SLICE", 64)
    values = np.random.default_rng(0).normal(size=(37, 5)).astype(np.float16)
    assert torch.equal(send(values, torch.device("cpu")), torch.from_numpy(values))
