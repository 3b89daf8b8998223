"""Encoders can learn: `encode` is differentiable from the first layer to the last, and gives the rows that are stored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.features.encoders import registry
from pipeline.features.encoders.extractor import Turn
from pipeline.features.engine.forward import Forward
from pipeline.params import Stream
from pipeline.threads import computing
from tests.features.encoders.small import SMALL

torch = pytest.importorskip("torch")

VISION = {"modality": "face", "source": "f"}
AUDIO = {"modality": "audio", "source": "f"}
TEXT = {"modality": "text", "source": "f"}
#: Family → stream on seeded weights, and a parameter of its first and of its last layer.
LEARNERS = {
    "hubert": (AUDIO | {"architecture": SMALL["hubert_base"]}, "feature_extractor.conv_layers.0.conv.weight", "layers.3.final_"),
    "data2vec": (
        AUDIO | {"encoder": "hubert", "architecture": SMALL["data2vec_audio"]},
        "feature_extractor.conv_layers.0.conv.weight",
        "layers.3.final_",
    ),
    "whisper": (AUDIO | {"architecture": SMALL["whisper_base"]}, "conv1.weight", "layers.3.fc2"),
    "emotion2vec": (AUDIO | {"architecture": SMALL["emotion2vec_base"]}, "front.0.conv.weight", "blocks.2.mlp.fc2"),
    "text": (TEXT | {"architecture": SMALL["bert_base"]}, "embeddings.word_embeddings.weight", "layer.3.output.dense"),
    "dialogue": (TEXT | {"architecture": SMALL["smollm2"]}, "embed_tokens.weight", "layers.1.mlp.down_proj"),
    "trunk": (TEXT | {"architecture": SMALL["smollm2"]}, "embed_tokens.weight", "layers.0.mlp.down_proj"),
    "clip": (VISION | {"architecture": SMALL["clip_base"]}, "patch_embedding.weight", "visual_projection.weight"),
    "zero_shot": (VISION | {"architecture": SMALL["clip_zero_shot"]}, "text_model.embeddings.token_", "visual_projection.weight"),
    "open_clip": (VISION | {"architecture": SMALL["open_clip_convnext"]}, "stem.0.weight", "head.proj.weight"),
    "timm": (VISION | {"architecture": SMALL["dinov2"]}, "patch_embed.proj.weight", "blocks.1.mlp.fc2"),
    "mosaic": (VISION | {"architecture": SMALL["mosaic"]}, "conv1.weight", "layer4.0.bn3"),
    "eva": (VISION | {"architecture": SMALL["eva_g"], "options": {"size": 28}}, "patch_embed.proj.weight", "blocks.1.mlp.fc2"),
    "mae": (VISION | {"architecture": SMALL["face_mae"]}, "patch_embeddings.projection.weight", "layers.1.mlp.fc2"),
    "vit": (VISION | {"architecture": SMALL["vit_base"]}, "patch_embeddings.projection.weight", "layers.1.mlp.fc2"),
    "videomae": (VISION | {"architecture": SMALL["videomae"]}, "patch_embeddings.projection.weight", "layer.1.output.dense"),
}


def test_every_family_with_a_network_is_here():
    without = {"logmel", "egemaps", "glove", "import", "waveform"}
    assert {spec.get("encoder", name) for name, (spec, *_) in LEARNERS.items()} == set(registry.FAMILIES) - without


@pytest.fixture(scope="module")
def clips(frames_clip):
    """Two clips of different lengths with all modalities."""
    rng = np.random.default_rng(0)
    return [
        replace(
            frames_clip(i, 4 + i),
            waveform=(0.1 * rng.normal(size=6000 + 2500 * i)).astype(np.float32),
            text="so glad that you came" + " back" * i,
            speaker="Ann",
            context=(Turn("Ben", "It rains."),),
            duration=1.0,
        )
        for i in range(2)
    ]


@pytest.mark.parametrize("name", list(LEARNERS))
def test_gradients_reach_the_first_and_the_last_layer(name, clips):
    spec, first, last = LEARNERS[name]
    extractor = registry.build(Stream(**{"encoder": name, "weights": "random:0"} | spec))
    prepared = [extractor.prepare(clip) for clip in clips]
    encoder = extractor.load()
    assert not encoder.network.training and not any(p.requires_grad for p in encoder.network.parameters())
    with computing(1):  # as the engine does: sums in another order end in other last bits
        alone = encoder.encode(prepared)
    for one, item, (values, _) in zip(alone, prepared, Forward(extractor)(prepared), strict=True):
        assert len(one) == len(item.times)
        np.testing.assert_array_equal(one.float().numpy(), values)
    encoder.network.requires_grad_(True)
    rows = encoder.encode(prepared)
    # No plain sum: behind a last LayerNorm, that of a row is constant.
    sum((one * torch.linspace(-1, 1, one.numel()).view_as(one)).sum() for one in rows).backward()
    found = dict(encoder.network.named_parameters())
    for part in (first, last):
        reached = [key for key in found if part in key and found[key].grad is not None and found[key].grad.abs().max() > 0]
        assert reached, f"no gradient reaches {part}; there are {sorted(found)[:200]}"


def test_a_change_of_weights_changes_what_encode_gives(clips):
    """A step of learning on `network` is one on `encode`: nothing is copied aside, and padding still does not matter."""
    spec, *_ = LEARNERS["hubert"]
    extractor = registry.build(Stream(**{"encoder": "hubert", "weights": "random:0"} | spec))
    prepared = [extractor.prepare(clip) for clip in clips]
    encoder = extractor.load()
    encoder.network.requires_grad_(True)
    optimiser = torch.optim.SGD(encoder.network.parameters(), lr=0.01)
    before = encoder.encode(prepared)[0]
    (before * torch.linspace(-1, 1, before.numel()).view_as(before)).sum().backward()
    optimiser.step()
    after = encoder.encode(prepared)[0].detach()
    assert (after - before.detach()).abs().max() > 1e-3
    (alone,) = encoder.encode(prepared[:1])
    torch.testing.assert_close(alone.detach(), after, atol=1e-5, rtol=0)
