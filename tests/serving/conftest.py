"""A tiny trained pipeline on real media files: eight clips, three stand-in encoders, two seeds."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import polars as pl
import pytest

from pipeline import params as parameters
from pipeline.data import media
from pipeline.features import extract, index
from pipeline.storage import tables
from pipeline.training import stage as train

EMOTIONS = ("joy", "sadness")


def film(
    path: Path,
    *,
    seconds: float = 1.0,
    seed: int = 0,
    video: bool = True,
    audio: bool = True,
    loud: float = 0.3,
    portrait: np.ndarray | None = None,
) -> Path:
    """An mp4 with a moving square (or `portrait`, moving) and a tone."""
    rng = np.random.default_rng(seed)
    with av.open(str(path), "w") as container:
        if video:
            stream = container.add_stream("libx264", rate=12)
            stream.width = stream.height = 64 if portrait is None else portrait.shape[0]
            stream.pix_fmt = "yuv420p"
        if audio:
            sound = container.add_stream("aac", rate=16000)
            sound.layout = "mono"
        if video:
            colour = rng.integers(60, 255, 3)
            for i in range(int(12 * seconds)):
                picture = np.full((64, 64, 3), 30, np.uint8)
                picture[8:40, i % 30 : i % 30 + 24] = colour
                if portrait is not None:
                    picture = np.roll(portrait, 2 * i, axis=1)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
        if audio:
            time = np.arange(int(16000 * seconds)) / 16000
            wave = (loud * np.sin(2 * np.pi * (180 + 40 * seed) * time)).astype(np.float32)
            for at in range(0, len(wave), 1024):
                frame = av.AudioFrame.from_ndarray(wave[None, at : at + 1024], format="fltp", layout="mono")
                frame.sample_rate, frame.pts, frame.time_base = 16000, at, Fraction(1, 16000)
                container.mux(sound.encode(frame))
            container.mux(sound.encode())
    return path


@pytest.fixture(scope="session")
def make_film():
    return film


def _params(root: Path) -> parameters.Params:
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    return parameters.parse(
        {
            "recipe": "test",
            "corpus": {"name": "test", "root": str(root)},
            "decode": {"video": {"fps": 4, "size": 64}},
            "streams": {
                "video": {
                    "modality": "video",
                    "source": "data/frames.h5",
                    "encoder": "clip",
                    "weights": "random:0",
                    "architecture": small | {"patch_size": 16, "image_size": 32, "projection_dim": 16},
                },
                "audio": {
                    "modality": "audio",
                    "source": "data/audio.h5",
                    "encoder": "hubert",
                    "weights": "random:0",
                    "rate": 4,
                    "pooling": "mean",
                    "architecture": small
                    | {"conv_dim": [16] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2},
                },
                "text": {
                    "modality": "text",
                    "source": "data/manifest.parquet",
                    "encoder": "text",
                    "weights": "random:0",
                    "architecture": small | {"vocab_size": 512, "max_position_embeddings": 64},
                },
            },
            "task": {"level": "frame"},
            "temporal": {"width": 16, "layers": 1, "heads": 2},
            "fusion": {"name": "gated"},
            "training": {"seeds": 2, "epochs": 2, "batch_size": 4, "unimodal": False, "linear": None},
            "run": {"workers": 0, "device": "cpu"},
        }
    )


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Folder with `corpus`, `data`, `features` and `models`, made by the real stages; params; clip rows."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "corpus").mkdir()
    before = {name: os.environ.get(name) for name in ("AFFECTORY_CACHE",)}
    os.environ["AFFECTORY_CACHE"] = str(folder / "cache")
    origin = Path.cwd()
    os.chdir(folder)
    try:
        params = _params(folder / "corpus")
        rows = []
        for i in range(8):
            kind = {"video": i != 6, "audio": i != 5}
            film(folder / "corpus" / f"clip{i}.mp4", seconds=1 + i % 3 / 2, seed=i, **kind)
            rows.append(
                {
                    "id": f"clip{i}",
                    "corpus": "test",
                    "text": f"I saw {i} birds today." if i != 4 else None,
                    "video": f"clip{i}.mp4" if kind["video"] else None,
                    "audio": f"clip{i}.mp4" if kind["audio"] else None,
                    "duration": 1 + i % 3 / 2,
                    "emotion": EMOTIONS[i % 2],
                    "valence": 0.5 - i % 2,
                    "arousal": 0.1 * i - 0.4,
                    "content": f"{i:032x}",
                }
            )
        tables.write(tables.frame(rows), Path("data/manifest.parquet"))
        moments = [
            {"id": row["id"], "time": at, "valence": row["valence"], "arousal": row["arousal"]}
            for row in rows[:6]
            for at in (0.1, 0.6)
        ]
        tables.write(tables.frame(moments, tables.ANNOTATIONS), "data/annotations.parquet", sort=("id", "time"))
        roles = ["train"] * 6 + ["val"] * 2
        tables.write(
            pl.DataFrame({"fold": [0] * 8, "id": [r["id"] for r in rows], "role": roles}),
            "data/folds.parquet",
            sort=("fold", "id"),
        )
        media.extract_frames(params)
        media.extract_audio(params)
        for name in params.streams:
            extract.extract(params, name)
        index.build(params)
        train.train(params)
    finally:
        os.chdir(origin)
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)
    return SimpleNamespace(folder=folder, params=params, rows=rows, models=folder / "models" / "runs")
