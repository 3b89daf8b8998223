"""Networks as ONNX: the same numbers as from the networks, for any number of clips and rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.errors import UserError
from pipeline.export import graphs, heads
from pipeline.models.registry import CONTEXTS, FUSIONS, TEMPORALS
from pipeline.models.spec import PartSpec, StreamSpec, WindowSpec
from pipeline.runs.pretrained.model import AffectoryModel
from tests.runs.exported import STREAMS, make_clips, make_spec, pad, save

pytest.importorskip("onnx", reason="onnx is not installed (requirements-export.txt)")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (requirements-export.txt)")

POOLED = {name: one.model_copy(update={"pooling": "statistics"}) for name, one in STREAMS.items()}
KINDS = {
    **{f"fusion {name}": make_spec(name) for name in sorted(FUSIONS) if not FUSIONS.find(name).holds_language},
    **{f"temporal {name}": make_spec(temporal=PartSpec(name=name)) for name in sorted(TEMPORALS)},
    **{
        f"context {name}": make_spec(context=PartSpec(name=name, options={"turns": 2}), turns=(2, 0)) for name in sorted(CONTEXTS)
    },
    "one stream": make_spec(streams={"video": STREAMS["video"]}),
    "linear": make_spec(streams=POOLED, linear=True),
    "places": make_spec(streams={"video": StreamSpec(width=8, levels=4, axis="space"), "text": STREAMS["text"]}),
    "windows": make_spec(window=WindowSpec(tokens=9, stride=2, most=9)),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_graph_says_what_the_folder_says(tmp_path, name):
    """Other numbers of clips and rows than those it was traced with, streams missing, noise in the padding."""
    spec = KINDS[name]
    model = AffectoryModel.of([save(tmp_path / "run", spec)])
    assert heads.write_head(model, tmp_path / "head.onnx") <= graphs.PARITY
    session, head = graphs.open_session(tmp_path / "head.onnx"), heads.Head(model)
    for seed, lengths in enumerate(((6,), (1, 3, 2, 5), (4, 5, 2, 3, 1))):
        given = pad(spec, make_clips(spec, lengths, seed), more=seed)
        flat = {f"{stream}_{part}": given[part][stream] for stream in spec.streams for part in heads.PARTS}
        found = graphs.run_session(session, {name: flat[name] for name in head.inputs})
        with torch.inference_mode():
            wanted = model(**given)
        assert set(found) == {key for key in heads.OUTPUTS if key in wanted}
        for key, value in found.items():
            np.testing.assert_allclose(value, wanted[key], rtol=0, atol=graphs.PARITY, err_msg=key)


def test_a_model_that_onnx_cannot_hold_is_one_line(tmp_path):
    with pytest.raises(UserError, match="fusion llama holds layers of a language model"):
        heads.Head(AffectoryModel.of([save(tmp_path / "run", make_spec("llama"))]))


def test_eight_bits_are_near_and_smaller(tmp_path):
    spec = make_spec("gated", width=64)
    model = AffectoryModel.of([save(tmp_path / "run", spec)])
    heads.write_head(model, tmp_path / "head.onnx")
    graphs.write_eight_bits(tmp_path / "head.onnx", tmp_path / "small.onnx")
    assert (tmp_path / "small.onnx").stat().st_size < 0.6 * (tmp_path / "head.onnx").stat().st_size
    head = heads.Head(model)
    given = dict(zip(head.inputs, head.draw((5, 6, 7), 0), strict=True))
    plain, small = (graphs.run_session(graphs.open_session(tmp_path / f"{n}.onnx"), given) for n in ("head", "small"))
    gap = np.abs(plain["probabilities"] - small["probabilities"]).max()
    assert 0 < gap < 0.05


def test_a_graph_that_says_something_else_is_not_kept(tmp_path, monkeypatch):
    model = AffectoryModel.of([save(tmp_path / "run", make_spec())])
    monkeypatch.setattr(heads, "PARITY", -1.0)
    with pytest.raises(UserError, match="as ONNX the networks say something else"):
        heads.write_head(model, tmp_path / "head.onnx")


def test_a_package_that_is_not_there_is_one_line(monkeypatch):
    monkeypatch.setattr(graphs, "PACKAGES", ("onnx", "onnx_of_tomorrow"))
    with pytest.raises(UserError, match="ONNX needs onnx_of_tomorrow: pip install"):
        graphs.check_packages()
