"""Adapters of every family: what learns is LoRA alone, and what was saved makes a fresh encoder the one that learned."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest

from pipeline.adaptation.layers import checkpoint_blocks, choose_layers, choose_parameters, find_blocks
from pipeline.errors import ParamsError, WeightsError
from pipeline.features.encoders import registry
from pipeline.features.encoders.extractor import Turn
from pipeline.features.engine.forward import Forward
from pipeline.params import Adapt, Stream
from pipeline.weights import adapters
from tests.features.encoders.test_learning import LEARNERS

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")


@pytest.fixture(scope="module")
def clips(frames_clip):
    """Two clips of different lengths with all modalities."""
    rng = np.random.default_rng(0)
    return [
        replace(
            frames_clip(i, 3 + i),
            waveform=(0.1 * rng.normal(size=5000 + 2500 * i)).astype(np.float32),
            text="so glad that you came" + " back" * i,
            speaker="Ann",
            context=(Turn("Ben", "It rains."),),
            duration=1.0,
        )
        for i in range(2)
    ]


def build(name: str, **changes):
    """A stream of the family on seeded weights, and its extractor."""
    stream = Stream(**{"encoder": name, "weights": "random:0"} | LEARNERS[name][0] | changes)
    return stream, registry.build(stream)


def taught(extractor, prepared, adapt: Adapt):
    """An encoder after three steps towards larger rows."""
    encoder = extractor.load()
    torch.manual_seed(0)
    layers = choose_layers(encoder, adapt, prepared[0], "adapt")
    tuner = adapters.attach(encoder.network, layers, r=adapt.r, alpha=adapt.alpha, dropout=0.0)
    learn(encoder, prepared)
    return encoder, tuner, layers


def learn(encoder, prepared, steps: int = 3):
    optimiser = torch.optim.Adam([v for v in encoder.network.parameters() if v.requires_grad], lr=0.02)
    for _ in range(steps):
        optimiser.zero_grad()
        sum((one * torch.linspace(-1, 1, one.numel()).view_as(one)).sum() for one in encoder.encode(prepared)).backward()
        optimiser.step()
    return optimiser


def write(folder, encoder, tuner, extractor):
    folder.mkdir()
    adapters.save(folder, adapters.learned(encoder.network), tuner)
    base = adapters.describe_base(extractor.identity["weights"])
    (folder / adapters.RECORD).write_text(json.dumps({"base": base}))
    return str(folder)


def rows(extractor, prepared):
    return [values for values, _ in Forward(extractor)(prepared)]


@pytest.mark.parametrize("name", [name for name in LEARNERS if name != "mosaic"])
def test_lora_of_every_family(name, clips, tmp_path):
    stream, extractor = build(name)
    prepared = [extractor.prepare(clip) for clip in clips]
    before = rows(extractor, prepared)
    frozen = {key: value.clone() for key, value in extractor.load().network.named_parameters()}
    encoder, tuner, layers = taught(extractor, prepared, Adapt(r=2))
    grown = dict(encoder.network.named_parameters())
    assert {key for key, value in grown.items() if value.grad is not None} == {key for key in grown if ".lora_" in key}
    assert sum(".lora_B." in key for key in grown) == len(layers) > 0
    for key, value in grown.items():
        if ".lora_" in key:
            assert value.grad.abs().max() > 0, key
        else:
            assert torch.equal(value, frozen[key.replace(".base_layer.", ".")]), key
    unmerged = [one.detach().float().numpy() for one in encoder.encode(prepared)]
    adapted = registry.build(stream.model_copy(update={"adapter": write(tmp_path / "a", encoder, tuner, extractor)}))
    merged = rows(adapted, prepared)
    for old, one, other in zip(before, unmerged, merged, strict=True):
        assert np.abs(other - old).max() > 3e-5  # DINOv2 scales what its blocks add by 1e-5
        np.testing.assert_allclose(other, one, atol=1e-5 * max(1.0, np.abs(one).max()), rtol=0)
    network = adapted.load().network
    assert {key for key, _ in network.named_parameters()} == set(frozen)  # it has its own layers again
    assert not network.training and not any(value.requires_grad for value in network.parameters())


@pytest.mark.parametrize(("name", "method"), [("mosaic", "partial"), ("clip", "partial"), ("hubert", "full")])
def test_weights_of_the_encoder_itself(name, method, clips, tmp_path):
    stream, extractor = build(name)
    prepared = [extractor.prepare(clip) for clip in clips]
    encoder = extractor.load()
    frozen = {key: value.clone() for key, value in encoder.network.named_parameters()}
    chosen = choose_parameters(encoder, Adapt(method=method), prepared[0], "adapt")
    for key, value in encoder.network.named_parameters():
        value.requires_grad_(key in chosen)
    if method == "partial":
        assert {key for key in frozen if key.startswith(f"{find_blocks(encoder.network)[-1]}.")} >= set(chosen)
    learn(encoder, prepared, steps=1)
    moved = {key for key, value in encoder.network.named_parameters() if not torch.equal(value, frozen[key])}
    assert moved == set(chosen)
    adapted = registry.build(stream.model_copy(update={"adapter": write(tmp_path / "a", encoder, None, extractor)}))
    for one, other in zip(encoder.encode(prepared), rows(adapted, prepared), strict=True):
        np.testing.assert_allclose(other, one.detach().float().numpy(), atol=1e-6, rtol=0)


def test_what_cannot_learn_is_refused_in_one_line(clips):
    _, mosaic = build("mosaic")
    with pytest.raises(ParamsError, match="x: lora goes into linear layers, and none of this encoder's can learn"):
        choose_layers(mosaic.load(), Adapt(), mosaic.prepare(clips[0]), "x")
    _, clip = build("clip")
    encoder, prepared = clip.load(), clip.prepare(clips[0])
    with pytest.raises(ParamsError, match="Unknown layer of x.targets that learns 'q_projj'. Did you mean 'q_proj'"):
        choose_layers(encoder, Adapt(targets=("q_projj",)), prepared, "x")
    with pytest.raises(ParamsError, match="x.blocks is 9, and this encoder has 2 blocks"):
        choose_layers(encoder, Adapt(blocks=9), prepared, "x")


def test_layers_that_are_not_run_or_not_reached_get_no_lora(clips):
    """WavLM reads the matrices of its projections without running them; behind the layer that is kept nothing learns."""
    spec = {"model_type": "wavlm"} | {k: v for k, v in LEARNERS["hubert"][0]["architecture"].items() if k != "model_type"}
    _, wavlm = build("hubert", architecture=spec)
    found = choose_layers(wavlm.load(), Adapt(), wavlm.prepare(clips[0]), "x")
    assert found and not any(name.endswith(("q_proj", "v_proj")) for name in found)
    _, hubert = build("hubert", layer=2)
    layers = choose_layers(hubert.load(), Adapt(), hubert.prepare(clips[0]), "x")
    assert layers == [f"encoder.layers.{i}.attention.{part}" for i in range(2) for part in ("v_proj", "q_proj")]
    _, whole = build("clip")
    last = choose_layers(whole.load(), Adapt(blocks=1, targets=("q_proj", "v_proj")), whole.prepare(clips[0]), "x")
    assert sorted(last) == [f"vision_model.encoder.layers.1.self_attn.{part}" for part in ("q_proj", "v_proj")]


@pytest.mark.parametrize("name", ["clip", "hubert", "whisper", "text", "timm"])
def test_blocks_computed_twice_give_the_same_gradients(name, clips):
    _, extractor = build(name)
    prepared = [extractor.prepare(clip) for clip in clips]
    found = []
    for twice in (False, True):
        encoder, _, _ = taught(extractor, prepared, Adapt(r=2))
        kept: list[int] = []
        if twice:
            assert checkpoint_blocks(encoder.network) > 1
        with torch.autograd.graph.saved_tensors_hooks(lambda one, kept=kept: kept.append(one.numel()) or one, lambda one: one):
            learn(encoder, prepared, steps=1)
        found.append((sum(kept), adapters.learned(encoder.network)))
    assert found[1][0] < found[0][0]
    for key, value in found[0][1].items():
        torch.testing.assert_close(found[1][1][key], value, atol=1e-6, rtol=1e-5)


def test_an_adapter_of_other_weights_is_refused(clips, tmp_path):
    stream, extractor = build("clip")
    prepared = [extractor.prepare(clip) for clip in clips]
    encoder, tuner, _ = taught(extractor, prepared, Adapt(r=2))
    folder = write(tmp_path / "a", encoder, tuner, extractor)
    with pytest.raises(WeightsError, match=r"is of other weights \(random:0\) than random:1"):
        registry.build(stream.model_copy(update={"weights": "random:1", "adapter": folder}))
    (tmp_path / "a" / adapters.RECORD).unlink()  # one from elsewhere says no more than its names and shapes
    registry.build(stream.model_copy(update={"adapter": folder}))
    with pytest.raises(WeightsError, match="fits another encoder"):
        registry.build(build("hubert")[0].model_copy(update={"adapter": folder})).load()
    wide = stream.model_copy(update={"architecture": stream.architecture | {"hidden_size": 64}, "adapter": folder})
    with pytest.raises(WeightsError, match="fits another encoder.*another shape"):
        registry.build(wide).load()
    deep = stream.model_copy(update={"architecture": stream.architecture | {"num_hidden_layers": 1}, "adapter": folder})
    with pytest.raises(WeightsError, match="fits another encoder"):
        registry.build(deep).load()
    with pytest.raises(ParamsError, match="has no network"):
        registry.build(Stream(modality="audio", source="f", encoder="logmel", weights="none", adapter=folder))
    with pytest.raises(WeightsError, match="is not there"):
        registry.build(stream.model_copy(update={"adapter": str(tmp_path / "b")}))
    config = tmp_path / "a" / adapters.CONFIG
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": "openai/clip-vit-large-patch14"}))
    with pytest.raises(WeightsError, match="is of openai/clip-vit-large-patch14, not of hf:openai/clip-vit-base-patch32"):
        adapters.identify(folder, {"sha256": "0"}, "hf:openai/clip-vit-base-patch32")
    config.write_text(json.dumps({"peft_type": "IA3"}))
    with pytest.raises(WeightsError, match="is IA3; LoRA adapters are read"):
        registry.build(stream.model_copy(update={"adapter": folder}))


def test_peft_reads_ours_and_we_read_what_peft_saved_around_the_encoder(clips, tmp_path):
    """Ours into `PeftModel`; and an adapter of a classifier, whose encoder has another name and which has a head beside it."""
    from transformers import HubertConfig, HubertForSequenceClassification

    stream, extractor = build("hubert")
    prepared = [extractor.prepare(clip) for clip in clips]
    encoder, tuner, _ = taught(extractor, prepared, Adapt(r=2))
    folder = write(tmp_path / "ours", encoder, tuner, extractor)
    plain = extractor.load()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of the two libraries about each other
        peft.PeftModel.from_pretrained(plain.network, folder)
    for one, other in zip(encoder.encode(prepared), plain.encode(prepared), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)
    classifier = HubertForSequenceClassification(HubertConfig(**stream.architecture))
    config = peft.LoraConfig(r=3, target_modules=["q_proj"], modules_to_save=["classifier"], init_lora_weights=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        around = peft.get_peft_model(classifier, config)
    around.save_pretrained(tmp_path / "theirs")
    adapted = registry.build(stream.model_copy(update={"adapter": str(tmp_path / "theirs")})).load().network
    own, base = dict(adapted.named_parameters()), dict(extractor.load().network.named_parameters())
    change = {key for key in own if not torch.equal(own[key], base[key])}
    assert change == {f"encoder.layers.{i}.attention.q_proj.weight" for i in range(4)}
    layer = around.base_model.model.hubert.encoder.layers[2].attention.q_proj
    key = "encoder.layers.2.attention.q_proj.weight"
    torch.testing.assert_close(own[key] - base[key], layer.get_delta_weight("default"), atol=1e-6, rtol=0)


def test_the_identity_follows_the_adapter(clips, tmp_path):
    stream, extractor = build("clip")
    prepared = [extractor.prepare(clip) for clip in clips]
    encoder, tuner, _ = taught(extractor, prepared, Adapt(r=2))
    adapted = stream.model_copy(update={"adapter": write(tmp_path / "a", encoder, tuner, extractor)})
    first = registry.build(adapted).identity
    assert {key for key in first if first[key] != extractor.identity.get(key)} == {"adapter"}
    learn(encoder, prepared, steps=1)
    again = stream.model_copy(update={"adapter": write(tmp_path / "b", encoder, tuner, extractor)})
    assert registry.build(again).identity["adapter"]["sha256"] != first["adapter"]["sha256"]
