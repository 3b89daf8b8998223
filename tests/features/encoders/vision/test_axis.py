"""Families that give all tokens of a picture say that these are places, and those that give one row say nothing."""

from __future__ import annotations

import pytest

from pipeline.errors import ParamsError
from pipeline.features.encoders import registry
from pipeline.features.engine.forward import Forward
from pipeline.params import Stream
from tests.features.encoders.small import VIT

SIZES = VIT | {"num_frames": 4, "tubelet_size": 2}
TIMM = {"img_size": 32, "patch_size": 16, "embed_dim": 16, "depth": 2, "num_heads": 2}
EVA = {"embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 14}
FAMILIES = {
    "vit": (VIT, {"readout": "tokens"}, {"readout": "mean"}),
    "mae": (VIT, {"readout": "tokens"}, {"readout": "cls"}),
    "clip": (VIT | {"projection_dim": 8}, {"readout": "tokens"}, {"readout": "cls"}),
    "timm": (TIMM, {"readout": "tokens", "model": "vit_tiny_patch16_224"}, {"readout": "mean", "model": "vit_tiny_patch16_224"}),
    "eva": (EVA, {"readout": "tokens", "size": 56}, {"readout": "mean", "size": 56}),
    "videomae": (SIZES, {"output": "tokens"}, {"output": "steps"}),
}


def build(name, options, **fields):
    said = {"modality": "video", "source": "data/frames.h5", "weights": "random:0", "architecture": FAMILIES[name][0]}
    return registry.build(Stream(**said, encoder=name, options=options, **fields))


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_tokens_are_places(name, frames_clip):
    _, tokens, one = FAMILIES[name]
    for options, axis in ((tokens, "space"), (one, None)):
        extractor = build(name, options)
        ((values, _),) = Forward(extractor)([extractor.prepare(frames_clip(0, 4))])
        assert extractor.axis == axis and values.ndim == (3 if axis else 2)


@pytest.mark.parametrize("name", ["vit", "mae", "clip"])
def test_layers_that_are_kept_apart_are_layers_and_not_both(name):
    _, tokens, one = FAMILIES[name]
    assert build(name, one, layer=[1, 2]).axis == "layer" and build(name, one, layer="all").axis == "layer"
    assert build(name, tokens, layer={"sum": [1, 2]}).axis == "space"
    with pytest.raises(ParamsError, match=f"encoder {name} keeps places apart with these options"):
        build(name, tokens, layer=[1, 2])
