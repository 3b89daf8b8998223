"""Held-out clips disturbed, encoded again and predicted: what noise and blur do to the models that are there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.devices import pick_devices
from pipeline.errors import StoreError, UserError
from pipeline.features.encoders.extractor import Clip, Missing
from pipeline.features.engine.entries import encode_batch
from pipeline.features.engine.forward import Forward
from pipeline.features.engine.reader import Job, Reader
from pipeline.features.engine.stats import Stats
from pipeline.features.extract import Plan, plan_stream
from pipeline.params import Params, Stream
from pipeline.progress import track
from pipeline.runs.folders import FUSED, LINEAR, RunName, list_runs
from pipeline.runs.inputs import Features
from pipeline.runs.predict import predict_clip
from pipeline.runs.run import TrainedModel, load_run
from pipeline.storage import tables
from pipeline.threads import computing

from .adapted import check_adapter
from .disturb import DISTURBANCES, Disturbance

#: Clip → stream → what its encoder gives; streams a clip lacks are left out.
Encoded = dict[str, dict[str, Features]]


def predict_disturbed(
    params: Params,
    clips: Sequence[str],
    *,
    seed: int = 0,
    manifest: str | Path = "data/manifest.parquet",
    folds: str | Path = "data/folds.parquet",
    models: str | Path = "models/runs",
) -> tuple[pl.DataFrame, dict[str, list[str]]]:
    """Predict clips as they are and in every disturbance of `DISTURBANCES` that a stream is reached by.

    The stored media of the clips are read, disturbed and encoded as in the stage `extract`; a clip is predicted by the runs
    of the fold that holds it out, alone, without earlier turns.

    Args:
        clips: ids of held-out clips.
        seed: of the noise and the blocks' places.

    Returns:
        Predictions (`kind` and `level`, null for clips as they are, `variant`, `fold`, `seed`, `id`, `predicted`, `p_<class>`,
        dimensions), and which streams each kind reaches.

    Raises:
        StoreError: nothing was trained.
        UserError: features are normalised per speaker or session, which a clip by itself cannot be; or nothing is reached.
    """
    runs = _load(models)
    first = next(iter(runs.values()))
    chosen = first.config.get("params", {}).get("training", {})
    if (unit := first.config.get("normalise", chosen.get("normalise"))) in ("speaker", "session"):
        raise UserError(f"the models' features are normalised per {unit}; a disturbed clip by itself cannot be. Take `train`.")
    encoders = {name: Stream.model_validate(spec) for name, spec in first.config["encoders"].items()}
    plans = {name: plan_stream(name, stream, manifest) for name, stream in encoders.items()}
    for name, plan in plans.items():
        check_adapter(name, plan.stream, plan.parts[0].extractor, list(runs.values()))
    reached = {
        kind: names
        for kind in dict.fromkeys(one.kind for one in DISTURBANCES)
        if (names := [name for name, plan in plans.items() if _reaches(kind, plan)])
    }
    if not reached:
        raise UserError("no stream reads sound or pictures that could be disturbed; text and imported features stay as they are.")
    device = pick_devices(params.run.device, encodes=True)[0]
    todo = [one for one in DISTURBANCES if one.kind in reached]
    plain: Encoded = {clip: {} for clip in clips}
    changed: dict[Disturbance, Encoded] = {one: {clip: {} for clip in clips} for one in todo}
    with track(len(plans) * len(clips), "robustness") as advance:
        for name, plan in plans.items():
            encode = _Encode(plan, device)
            for clip in clips:
                read = encode.read(clip)
                features = read and encode(read)
                for one, encoded in ((None, plain), *changed.items()):
                    if read and one and one.kind in reached and name in reached[one.kind]:
                        features = encode(one.apply(read, seed))
                    elif one:
                        features = plain[clip].get(name)
                    if features:
                        encoded[clip][name] = features
                advance(1)
    held = tables.read(folds).filter(pl.col("role") == "test").join(pl.DataFrame({"id": list(clips)}), on="id")
    with computing(params.training.threads):  # else the last digits would be the machine's
        rows = [
            {"kind": one and one.kind, "level": one and one.level, **_predict(run, name, clip, encoded[clip])}
            for one, encoded in ((None, plain), *changed.items())
            for name, run in runs.items()
            for clip in held.filter(pl.col("fold") == name.fold)["id"].sort()
        ]
    return pl.DataFrame(rows, infer_schema_length=None), reached


class _Encode:
    """One stream: stored media of a clip, and a clip to rows as the store would have them."""

    def __init__(self, plan: Plan, device: str) -> None:
        self.plan, self.forward = plan, Forward(plan.parts[0].extractor, device)
        self.reader = Reader(None, plan.stream.modality, plan.source)
        self.jobs = {job.id: job for job in plan.jobs}

    def read(self, clip: str) -> Clip | None:
        found = self.reader.read_clip(self.jobs[clip])
        return found if isinstance(found, Clip) else None

    def __call__(self, clip: Clip) -> Features | None:
        try:
            prepared = self.plan.parts[0].extractor.prepare(clip)
        except Missing:
            return None
        entry = encode_batch(self.forward, [(Job(clip.id, clip.id), prepared)], Stats()).get(clip.id)
        if entry is None or not len(entry.values):
            return None
        # The store rounds; the model was trained on what came out of it.
        return entry.values.astype(self.plan.stream.store.dtype).astype(np.float32), entry.times.astype(np.float32)


def _reaches(kind: str, plan: Plan) -> bool:
    return plan.stream.encoder != "import" and Disturbance(kind, 0).reaches(plan.stream.modality)


def _load(models: str | Path) -> dict[RunName, TrainedModel]:
    """Runs of the variants that read every stream."""
    found = {name: folder for name, folder in list_runs(models).items() if name.variant in (FUSED, LINEAR)}
    if not found:
        raise StoreError(f"{models} holds no trained model of all streams. Run `dvc repro train`.")
    return {name: load_run(folder) for name, folder in found.items()}


def _predict(run: TrainedModel, name: RunName, clip: str, features: dict[str, Features]) -> dict[str, object]:
    found = predict_clip(run, features)
    row: dict[str, object] = {"variant": name.variant, "fold": name.fold, "seed": name.seed, "id": clip}
    if found.probabilities is not None:
        row["predicted"] = found.emotion
        row |= {f"p_{label}": float(p) for label, p in zip(found.classes, found.probabilities, strict=True)}
    if found.dimensions is not None:
        row |= {label: float(value) for label, value in zip(found.names, found.dimensions, strict=True)}
    return row
