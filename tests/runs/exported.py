"""Runs with random weights, and raw features of clips, for tests of what is exported."""

from __future__ import annotations

import numpy as np
import torch

from pipeline import weights
from pipeline.models.build import build_model
from pipeline.models.registry import FUSIONS
from pipeline.models.spec import ModelSpec, OutputSpec, PartSpec, StreamSpec
from pipeline.runs.run import TrainedModel, load_run, save_run
from pipeline.weights import layers
from tests.tiny_language import ADDRESS, describe, weights_of

STREAMS = {"audio": StreamSpec(width=6, levels=3), "text": StreamSpec(width=5), "video": StreamSpec(width=8)}
OUTPUTS = {
    "emotion": OutputSpec(name="emotion", size=3),
    "dimensions": OutputSpec(name="dimensions", size=2),
    "frames": OutputSpec(name="frames", size=2),
}
LONGEST = 9


def make_spec(fusion="concat", **changes) -> ModelSpec:
    fields = {
        "streams": STREAMS,
        "width": 16,
        "heads": 2,
        "layers": 1,
        "fusion": PartSpec(name=fusion),
        "outputs": OUTPUTS,
        "classes": ("a", "b", "c"),
        "dimensions": ("valence", "arousal"),
        "base": "video" if "video" in changes.get("streams", STREAMS) else None,
    }
    spec = ModelSpec(**{**fields, **changes})
    if FUSIONS.find(spec.fusion.name).holds_language:
        language = describe(spec.width)
        base = layers.name_base(weights.identity(ADDRESS, architecture=dict(language.architecture)))
        spec = spec.model_copy(update={"language": language.model_copy(update={"base": base})})
    return spec


def save(folder, spec: ModelSpec, seed=0, variant="fused", normalise="train") -> TrainedModel:
    """A run folder, read back."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = build_model(spec, weights_of(spec.language) if spec.language else None)
    for value in model.trainable().values():  # what begins at zero is something, so that it matters
        if value.is_floating_point():
            value.add_(0.1 * torch.rand_like(value))
    normalisation = {}
    for name, one in spec.streams.items():
        shape = (one.levels, one.width) if one.levels and one.axis == "layer" else (one.width,)
        normalisation[name] = (rng.normal(size=shape).astype(np.float32), rng.uniform(0.5, 2, shape).astype(np.float32))
    config = {"variant": variant, "fold": 0, "seed": seed, "max_tokens": LONGEST, "normalise": normalise}
    encoders = {name: {"modality": "audio", "source": "x", "encoder": "x", "weights": "random:0"} for name in spec.streams}
    save_run(folder, model, normalisation, config | {"encoders": encoders}, [])
    return load_run(folder)


def make_clips(spec: ModelSpec, lengths=(1, 4, 2 * LONGEST, 7), seed=0):
    """Raw features of clips; the last lacks every stream but the first, the first but one lacks one."""
    rng = np.random.default_rng(seed)
    clips = []
    for number, length in enumerate(lengths):
        clip = {}
        for place, (name, one) in enumerate(spec.streams.items()):
            if (number == 1 and place == 1) or (number == len(lengths) - 1 and place):
                continue
            rows = length + place
            edges = np.linspace(0, 0.5 * rows, rows + 1)
            shape = (one.levels, one.width) if one.levels else (one.width,)
            times = np.stack([edges[:-1], edges[1:]], 1).astype(np.float32)
            if one.prompted:
                times[:1, 1] = times[:1, 0]
            clip[name] = (rng.normal(size=(rows, *shape)).astype(np.float32), times)
        clips.append(clip)
    return clips


def pad(spec: ModelSpec, clips, more=0):
    """Clips as the padded batch that `AffectoryModel` takes; what stands in the padding is noise."""
    values, mask, times = {}, {}, {}
    for name, one in spec.streams.items():
        shape = (one.levels, one.width) if one.levels else (one.width,)
        longest = max([1, *(len(clip[name][0]) for clip in clips if name in clip)]) + more
        values[name] = torch.randn(len(clips), longest, *shape)
        mask[name] = torch.zeros(len(clips), longest).bool()
        times[name] = torch.zeros(len(clips), longest, 2)
        for i, clip in enumerate(clips):
            if name in clip:
                count = len(clip[name][0])
                values[name][i, :count], mask[name][i, :count] = torch.from_numpy(clip[name][0]), True
                times[name][i, :count] = torch.from_numpy(clip[name][1])
    return {"values": values, "mask": mask, "times": times}
