"""Every row of the encoder table in small: its family, preprocessing, layer, pooling and options on seeded weights.

A row whose weights are to be fetched is run with `weights: random:0` and a small `architecture` of the same model
class. Four stored numbers per row (deviation; mean, first and last value in deviations) show a change of library or of
code; after one that is meant, the failure shows the line to put here.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.errors import WeightsError
from pipeline.features.encoders import registry
from pipeline.features.encoders.extractor import Clip, Turn
from pipeline.features.engine.forward import Forward
from pipeline.params import Stream
from pipeline.storage import output_store
from pipeline.storage.feature_store import Entry
from tests.features.encoders.small import SMALL

STREAMS = registry.read_streams(Path(__file__).resolve().parents[3] / "conf" / "stream")
GOLDEN: dict[str, tuple[float, float, float, float]] = {
    "bert_base": (1, 0.000, 0.675, -1.870),
    "bert_tiny": (1, 0.000, 1.752, -1.325),
    "chinese_hubert": (1.0255, -0.033, 1.540, 2.094),
    "clip_base": (0.84466, -0.600, -0.039, 0.109),
    "clip_face": (0.21428, -0.601, -0.042, 0.111),
    "clip_tiny": (0.92257, 0.083, 1.066, 2.099),
    "clip_zero_shot": (0.10762, 1.327, 0.852, 1.403),
    "data2vec_audio": (0.93049, 0.000, -1.878, -0.764),
    "dinov2": (0.99895, 0.000, -1.232, -0.896),
    "efficientnet_b0_face": (7.7571e-06, -0.016, -0.332, -1.442),
    "efficientnet_lite0": (1.3957, 0.995, 0.271, 0.081),
    "efficientnet_lite0_face": (1.3957, 0.995, 0.271, 0.081),
    "egemaps": (436.75, 0.253, 0.082, -0.025),
    "emotion2vec": (0.28282, 0.001, -0.952, 1.690),
    "emotion2vec_base": (0.91734, 0.000, 1.400, -0.331),
    "emotion_llama": (1.0076, 0.002, 0.672, -0.352),
    "eva02": (0.99999, 0.000, -2.096, -0.266),
    "eva_g": (0.99996, 0.000, 0.450, -0.705),
    "eva_g_cls": (0.99176, 0.000, -1.187, 1.127),
    "eva_tiny": (0.99997, 0.000, 0.149, -0.724),
    "face_mae": (1, 0.000, -0.576, -1.297),
    "face_mae_tiny": (1, 0.000, -1.044, 1.592),
    "glove": (0.92222, -0.132, -0.711, 0.886),
    "gpt2_dialogue": (0.99451, 0.000, -0.465, 2.544),
    "gpt2_tiny": (0.99518, 0.000, -1.813, 0.635),
    "hubert_base": (0.765, 0.000, 1.875, 1.331),
    "hubert_large": (0.83024, 0.000, 1.558, 2.045),
    "hubert_tiny": (0.62525, 0.528, -2.289, 0.874),
    "llama_tiny_trunk": (0.023755, 0.172, -1.086, -0.402),
    "logmel": (3.62, -0.751, -1.720, 0.094),
    "macbert": (2.6253, 0.000, 0.340, -0.559),
    "mhubert": (0.765, 0.000, 1.875, 1.331),
    "minilm": (0.65722, 0.000, 0.346, -0.551),
    "minilm_layers": (0.58685, 0.000, 0.079, -0.498),
    "mosaic": (0.048057, 0.801, 0.746, 0.068),
    "mosaic_faces": (0.070906, 0.704, 0.530, 0.002),
    "mosaic_tiny": (0.062692, 0.676, 0.000, 1.078),
    "open_clip_convnext": (0.63744, -0.002, -0.002, -0.754),
    "open_clip_tiny": (0.60353, -0.061, -1.151, -0.317),
    "own": (0.91991, -0.028, -0.530, 0.928),
    "ravdess_au": (0.76205, -0.044, -0.816, -0.459),
    "resnet50": (0.030992, 0.814, 0.635, 0.079),
    "roberta_base": (1, 0.000, 1.653, -1.226),
    "smollm2": (0.99341, 0.107, -0.053, 1.201),
    "smollm2_dialogue": (0.99341, 0.107, -0.053, 1.201),
    "smollm2_layers": (0.024313, -0.281, -0.691, 1.043),
    "llama2_7b_trunk": (0.020848, -0.047, 1.751, 0.357),
    "tinyllama_trunk": (0.02038, 0.138, 1.203, 0.248),
    "smollm2_trunk": (0.02038, 0.138, 1.203, 0.248),
    "timm_tiny": (0.99964, 0.000, -0.606, -0.230),
    "videomae": (0.74696, 0.527, 1.025, 1.300),
    "videomae_large": (0.54397, 0.724, -0.288, 1.802),
    "videomae_tiny": (0.59667, 0.487, 0.339, 2.260),
    "vit_base": (1, -0.000, 0.063, -0.919),
    "wav2vec2": (0.7976, 0.000, -0.445, -0.247),
    "wav2vec2_mean_max": (1.125, 0.760, -0.110, 1.500),
    "waveform": (0.28313, -0.000, 0.065, -0.284),
    "wavlm": (0.49544, 0.000, -1.824, 0.944),
    "whisper_base": (0.87116, 0.000, -0.892, 1.306),
    "whisper_large": (0.86978, 0.000, -0.855, 1.314),
    "whisper_random": (0.69199, 0.210, -1.048, 0.032),
    "whisper_tiny_en": (0.36543, 0.944, 0.003, 0.027),
    "whisper_tiny_en_layers": (0.47274, 0.706, -0.004, 0.125),
    "whisper_tiny_en_steps": (0.43802, 0.563, 0.043, 0.013),
    "xlm_roberta": (1, 0.000, 1.653, -1.226),
}

#: What N is of the rows (N, D).
AXES = {
    **dict.fromkeys(("emotion_llama", "eva_g", "eva_tiny"), "space"),
    **dict.fromkeys(("minilm_layers", "smollm2_layers", "whisper_tiny_en_layers"), "layer"),
}


@pytest.fixture(scope="module")
def clip(frames_clip):
    """Sixteen frames in four seconds, a falling tone with noise, a sentence after two others."""
    rng, time = np.random.default_rng(0), np.arange(4 * 16000) / 16000
    sound = 0.4 * np.sin(2 * np.pi * (300 - 20 * time) * time) + 0.02 * rng.normal(size=len(time))
    film = frames_clip(1, 16, (96, 72))
    return Clip(
        "ravdess/01-a",
        frames=film.frames,
        frame_times=film.frame_times,
        places=np.tile([0.25, 0.25, 0.5, 0.5833], (16, 1)),
        waveform=sound.astype(np.float32),
        duration=4.0,
        text="I am so happy you are here!",
        speaker="Ann",
        context=(Turn("Ben", "Did it rain?"), Turn("Ann", "No.")),
    )


@pytest.fixture
def ready(tmp_path, monkeypatch):
    """The files that rows with `file:` weights expect, in the working folder."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    (tmp_path / "weights/emotion2vec").mkdir(parents=True)
    np.save(tmp_path / "weights/emotion2vec/01-a.npy", rng.normal(size=(200, 768)).astype(np.float32))
    words = [f"{word} {' '.join(f'{x:.4f}' for x in rng.normal(size=50))}" for word in ("i", "am", "happy", "rain")]
    (tmp_path / "weights/glove.6B.50d.txt").write_text("\n".join(words) + "\n")
    (tmp_path / "corpora/ravdess").mkdir(parents=True)
    names = [f"AU{i:02}_{'r' if i < 17 else 'c'}" for i in range(35)]
    table = [",".join(["clip", *names]), ",".join(["02-a", *(f"{x:.4f}" for x in rng.normal(size=35))])]
    (tmp_path / "corpora/ravdess/au_mean.csv").write_text("\n".join(table) + "\n")
    states = Entry(rng.normal(size=(1, 1, 4096)).astype(np.float32), np.array([[0, 4]], np.float32))
    output = output_store.Output(lambda: [states], [1], (1, 4096), [""])
    (tmp_path / "data").mkdir()
    (tmp_path / "own").mkdir()
    with h5py.File(tmp_path / "own/features.h5", "w") as file:
        file["01-a"] = rng.normal(size=(8, 6)).astype(np.float32)
    output_store.write(tmp_path / "data/emotion_llama.h5", ["ravdess/01-a"], {"llama_features": output}, "float16", {})


def small(name: str) -> Stream:
    """The row on weights that need no fetching."""
    one = STREAMS[name][0]
    if one.weights.partition(":")[0] in ("random", "file", "none"):
        address = one.weights.replace("${corpus.root}", "corpora/ravdess").replace("${.source}", one.source)
        return one.model_copy(update={"weights": address})
    return one.model_copy(update={"weights": "random:0", "architecture": SMALL[name]})


@pytest.mark.parametrize("name", list(STREAMS))
def test_row(name, clip, ready):
    try:
        extractor = registry.build(small(name))
    except WeightsError as absent:
        if name != "egemaps":
            raise
        pytest.skip(str(absent))
    prepared = extractor.prepare(clip)
    ((values, times),) = Forward(extractor)([prepared])
    scale = float(values.std())
    found = [scale, *(float(x) / scale for x in (values.mean(), values.flat[0], values.flat[-1]))]
    line = f'"{name}": ({found[0]:.5g}, {", ".join(f"{x:.3f}" for x in found[1:])}),'
    assert len(values) == len(times) and np.isfinite(values).all()
    assert extractor.axis == AXES.get(name) and (values.ndim == 3) == (name in AXES)
    rate = STREAMS[name][0].rate
    if rate:
        assert len(values) == 4 * rate
    stored = GOLDEN.get(name, (np.nan,) * 4)
    loose = 4 if small(name).dtype == "float16" else 1
    np.testing.assert_allclose(found[0], stored[0], rtol=3e-3 * loose, err_msg=line)
    np.testing.assert_allclose(found[1:], stored[1:], atol=5e-3 * loose, err_msg=line)


def test_every_row_and_every_family_has_stored_numbers():
    assert set(GOLDEN) == set(STREAMS), "a new file in conf/stream needs its numbers here"
    assert {one.encoder for one, _ in STREAMS.values()} == set(registry.FAMILIES)
    away = {name for name, (one, _) in STREAMS.items() if one.weights.partition(":")[0] not in ("random", "file", "none")}
    assert set(SMALL) == away
