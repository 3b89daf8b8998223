"""Families are found, streams are checked, and the encoder table of the documentation is the registry's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import ParamsError
from pipeline.features.encoders import registry
from pipeline.params import Stream

ROOT = Path(__file__).resolve().parents[3]
STREAMS = registry.read_streams(ROOT / "conf" / "stream")


def stream(**kwargs) -> Stream:
    return Stream(
        **{
            "modality": "video",
            "source": "data/frames.h5",
            "encoder": "clip",
            "weights": "random:0",
            "architecture": {"image_size": 32},
        }
        | kwargs
    )


def test_visual_families_are_there():
    assert {"clip", "open_clip", "timm", "eva", "mae", "videomae", "mosaic", "zero_shot"} <= set(registry.FAMILIES)
    assert all(registry.FAMILIES[name].title for name in registry.FAMILIES)


def test_building_a_stream_loads_no_library_of_networks():
    code = (
        "import sys; from pipeline.features.encoders import registry; from pipeline.params import Stream; "
        "registry.build(Stream(modality='video', source='f', encoder='clip', weights='random:0', "
        "architecture={'image_size': 32})); sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": "clp"}, "Unknown encoder 'clp'. Did you mean 'clip'"),
        ({"modality": "audio"}, "reads video, face, not audio"),
        ({"weights": "timm:resnet50"}, "not timm:resnet50"),
        ({"weights": "nothing"}, "no scheme"),
        ({"architecture": {}}, "need an architecture"),
        ({"options": {"redout": "cls"}}, "Did you mean 'readout'"),
        ({"options": {"normalise": "false"}}, "clip.options.normalise: Input should be a valid boolean"),
        (
            {"encoder": "logmel", "modality": "audio", "weights": "none", "options": {"bins": True}},
            "logmel.options.bins: .* integer",
        ),
        ({"encoder": "pooling"}, "Unknown encoder 'pooling'"),
        ({"options": {"readout": 3}}, "clip.options.readout"),
        ({"options": {"readout": "cl"}}, "Unknown clip.options.readout 'cl'. Did you mean 'cls'"),
    ],
)
def test_a_stream_that_does_not_fit_is_one_line(change, message):
    with pytest.raises(ParamsError, match=message) as caught:
        registry.build(stream(**change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", list(STREAMS))
def test_ready_made_streams_name_a_family_that_takes_them(name):
    one, card = STREAMS[name]
    family = registry.FAMILIES[one.encoder]
    assert one.modality in family.modalities
    assert one.weights.partition(":")[0] in family.sources
    assert set(one.options) <= set(family.Options.model_fields)
    assert card["title"].endswith(".") or "." in card["title"]


@pytest.mark.parametrize("name", [name for name, (one, _) in STREAMS.items() if one.modality in ("video", "face")])
def test_cards_of_visual_streams_state_width_and_licence(name):
    assert {"title", "width", "licence"} <= set(STREAMS[name][1])


def test_documentation_table_is_generated_from_the_registry():
    page = (ROOT / "docs" / "encoders.md").read_text(encoding="utf-8")
    assert registry.refresh_page(page, ROOT / "conf" / "stream") == page, (
        "docs/encoders.md is behind conf/stream; run `python -m pipeline.features.encoders.registry`"
    )


def test_a_file_that_is_no_stream(tmp_path):
    (tmp_path / "x.yaml").write_text("modality: video\nsource: f\nencoder: clip\nweights: random:0\ncolour: red\n")
    with pytest.raises(ParamsError, match="x.yaml: unknown parameter colour"):
        registry.read_streams(tmp_path)
