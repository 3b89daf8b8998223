"""Encoders in eight bits, and what that costs: held-out clips go through the smaller graph, are pooled as ever and judged.

Matrices are made smaller, convolutions stay as they are: a family of convolutions alone has nothing to gain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import ParamsError, StoreError, UserError
from pipeline.features.engine.forward import Forward
from pipeline.features.engine.reader import Job, Reader
from pipeline.features.plan import plan_stream
from pipeline.params import Stream
from pipeline.runs.pretrained.model import AffectoryModel
from pipeline.storage.feature_store import Entry, Status, Store

from .graphs import open_session, write_eight_bits
from .held_out import Entries, ask_graph, list_clips, measure
from .towers import find_kind

if TYPE_CHECKING:
    import onnxruntime

#: Most held-out clips that are encoded again.
MOST = 256


def shrink_towers(
    model: AffectoryModel, streams: Mapping[str, Stream], folder: Path, fold: int, features: Path, data: Path
) -> tuple[list[str], list[str]]:
    """`encoder_<stream>_int8.onnx` beside each `encoder_<stream>.onnx` of `folder`, where it is smaller.

    Returns:
        Sentences for the card, and lines on what was left out.
    """
    said, left = [], []
    for name, stream in sorted(streams.items()):
        plain, path = folder / f"encoder_{name}.onnx", folder / f"encoder_{name}_int8.onnx"
        if not plain.is_file():
            continue
        if not write_eight_bits(plain, path):
            path.unlink()
            left.append(f"stream {name}: its encoder is of convolutions, which stay as they are: no eight bits.")
            continue
        sizes = [round(one.stat().st_size / 1e6, 1) for one in (path, plain)]
        start = f"`onnx/{path.name}` has its matrices in eight bits, {sizes[0]} MB in place of {sizes[1]}."
        try:
            said.append(f"{start} {_measure(model, name, stream, path, fold, features, data)}")
        except UserError as error:
            said.append(start)
            left.append(f"stream {name}: what eight bits cost was not measured: {error}")
    return said, left


def _measure(model: AffectoryModel, name: str, stream: Stream, path: Path, fold: int, features: Path, data: Path) -> str:
    """How near the rows of held-out clips are, and what the networks make of them.

    Raises:
        StoreError: clips, their media or their labels are not there.
    """
    ids = list_clips(model, fold, features, data)
    ids = [ids[i] for i in np.unique(np.linspace(0, len(ids) - 1, min(MOST, len(ids))).astype(int))]
    stores: dict[str, Entries] = {one: Store(features / f"{one}.h5") for one in model.config.streams}
    fresh = encode(name, stream, open_session(path), [one for one in ids if one in stores[name]], data / "manifest.parquet")
    near = [compare(fresh[one].values, stores[name][one].values) for one in fresh]
    if not near:
        raise StoreError(f"no held-out clip has the stream {name}.")
    plain, smaller = (ask_graph(model, path.with_name("head.onnx"), one) for one in (stores, stores | {name: fresh}))
    told = measure(model, plain, smaller, ids, fold, data)
    return f"Rows as they are stored, of {len(near)} held-out clips: cosine {np.mean(near):.4f}, at least {min(near):.4f}. {told}"


def compare(found: np.ndarray, wanted: np.ndarray) -> float:
    """Cosine of two clips' rows, each as one long vector.

    >>> compare(np.array([[1.0, 0.0]]), np.array([[2.0, 0.0]]))
    1.0
    """
    a, b = (np.asarray(x, np.float64).ravel() for x in (found, wanted))
    return float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12))


def encode(
    name: str, stream: Stream, session: onnxruntime.InferenceSession, ids: Sequence[str], manifest: Path
) -> dict[str, Entry]:
    """Rows of clips by a graph in place of the network, prepared, pooled and rounded as in the store of the stream.

    Raises:
        StoreError: the media are not there. UserError: a clip that cannot be read now.
    """
    try:
        plan = plan_stream(name, stream, manifest)
    except OSError as error:
        raise StoreError(f"the media of stream {name} are not there ({error}); run `dvc repro` (or `dvc pull`).") from error
    extractor, wanted = plan.parts[0].extractor, set(ids)
    forward = Forward(extractor)
    kind = find_kind(forward.encoder)
    if kind is None:
        raise ParamsError(f"stream {name}: encoders of family {stream.encoder} are not written as ONNX.")
    kind(forward.encoder).answer_by(session)
    reader, found = Reader(extractor.prepare, stream.modality, plan.source), {}
    for job in (job for job in plan.jobs if job.id in wanted):
        found[job.id] = _encode(forward, reader, job, stream)
    return {one: entry for one, entry in found.items() if entry.status == Status.OK}


def _encode(forward: Forward, reader: Reader, job: Job, stream: Stream) -> Entry:
    prepared = reader(job)
    if isinstance(prepared, tuple):
        return Entry(np.empty((0,), np.float32), np.empty((0, 2), np.float32), prepared[0], prepared[1])
    ((values, times),) = forward([prepared])
    return Entry(values.astype(stream.store.dtype).astype(np.float32), times)
