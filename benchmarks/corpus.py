"""Clips to measure with: a manifest of transcripts, sampled frames in a store, short videos. Seeded, no real data."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.params import Params, Stream, parse
from pipeline.storage import flac, media_store, tables
from pipeline.storage.clip_cache import ClipCache, digest

WORDS = "the a of to and it was never always so very quiet loud glad sorry angry late early home again".split()
#: ViT-B/32, the image tower of CLIP's smallest published model.
VIT_B32 = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "patch_size": 32,
    "image_size": 224,
    "projection_dim": 512,
}
#: ViT-L/14.
VIT_L14 = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
    "image_size": 224,
    "projection_dim": 768,
}
#: The stand-in of the default recipe.
TINY_VIT = {
    "hidden_size": 96,
    "intermediate_size": 192,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "patch_size": 16,
    "image_size": 112,
    "projection_dim": 64,
}
TINY_TEXT = {
    "vocab_size": 1024,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}


def parameters(streams: dict[str, dict], workers: int = 2) -> Params:
    """Parameters of the smallest kind with these streams."""
    return parse(
        {
            "recipe": "benchmark",
            "corpus": {"name": "generic", "root": "."},
            "streams": streams,
            "fusion": {"name": "concat"},
            "run": {"device": "auto", "workers": workers},
        },
        "benchmark",
    )


#: As large as BERT-base, but for the vocabulary.
BASE_TEXT = {
    "model_type": "bert",
    "vocab_size": 2000,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}


def text_stream(architecture: dict | None = None) -> dict:
    return {
        "modality": "text",
        "source": "manifest.parquet",
        "encoder": "text",
        "weights": "random:0",
        "architecture": architecture or TINY_TEXT,
    }


def image_stream(architecture: dict, source: Path, **more: object) -> dict:
    return {
        "modality": "video",
        "source": str(source),
        "encoder": "clip",
        "weights": "random:0",
        "architecture": architecture,
    } | more


def transcripts(path: Path, clips: int) -> None:
    """A manifest of `clips` clips with a transcript of 8 words each, in dialogue-free sessions of 10 speakers."""
    chance = np.random.default_rng(0)
    said = chance.integers(0, len(WORDS), (clips, 8))
    tables.write(
        tables.frame(
            [
                {
                    "id": f"clip{i:06d}",
                    "corpus": "benchmark",
                    "speaker": f"s{i % 10}",
                    "duration": 2.0,
                    "text": f"{i} " + " ".join(WORDS[w] for w in said[i]),
                    "content": digest({"clip": i}),
                }
                for i in range(clips)
            ]
        ),
        path,
    )


def folds(path: Path, clips: int) -> None:
    """One fold, four fifths of the clips for training."""
    tables.write(
        tables.frame(
            [{"id": f"clip{i:06d}", "fold": 0, "role": "test" if i % 5 == 0 else "train"} for i in range(clips)],
            {"id": tables.SCHEMA["id"], "fold": tables.SCHEMA["turn"], "role": tables.SCHEMA["split"]},
        ),
        path,
    )


def pictures(chance: np.random.Generator, count: int, width: int, height: int) -> list[np.ndarray]:
    """(H, W, 3) uint8 pictures of one scene that moves: as hard to compress as a photograph, about."""
    coarse = np.asarray(
        Image.fromarray(chance.integers(0, 255, (18, 24, 3), np.uint8)).resize(
            (width + 4 * count, height), Image.Resampling.BICUBIC
        )
    ).astype(np.int16)
    grain = chance.integers(-6, 7, (height, width, 3), np.int16)
    return [np.clip(coarse[:, 4 * i : 4 * i + width] + grain, 0, 255).astype(np.uint8) for i in range(count)]


def frames(folder: Path, clips: int, count: int, *, width: int = 340, height: int = 256) -> tuple[Path, Path]:
    """A manifest and `frames.h5` of `clips` clips with `count` JPEG frames each, at 4 frames/s.

    Returns:
        Paths of the manifest and of the media store.
    """
    chance = np.random.default_rng(0)
    rows = [
        {
            "id": f"clip{i:04d}",
            "corpus": "benchmark",
            "video": f"clip{i:04d}.mp4",
            "duration": count / 4,
            "content": digest({"frames": i}),
        }
        for i in range(clips)
    ]
    starts = np.arange(count, dtype=np.float32) / 4
    times = np.stack([starts, starts + 0.25], 1)
    identity = {"kind": "frames", "benchmark": [clips, count, width, height]}
    with ClipCache("frames", identity, base=folder / "cache") as cache:
        for row in rows:
            cache.put({row["content"]: media_store.join_files([jpeg(p) for p in pictures(chance, count, width, height)], times)})
        media_store.pack(folder / "frames.h5", rows, "video", cache, identity, {})
    tables.write(tables.frame(rows), folder / "manifest.parquet")
    return folder / "manifest.parquet", folder / "frames.h5"


def sounds(folder: Path, clips: int, length: float) -> tuple[Path, Path]:
    """A manifest and `audio.h5` of `clips` clips of `length` seconds of noise at 16 kHz, a quarter longer or shorter by turns.

    Returns:
        Paths of the manifest and of the media store.
    """
    chance, rate = np.random.default_rng(0), 16000
    lengths = [length * (1 + (i % 3 - 1) / 4) for i in range(clips)]
    rows = [
        {
            "id": f"clip{i:04d}",
            "corpus": "benchmark",
            "audio": f"clip{i:04d}.wav",
            "duration": lengths[i],
            "content": digest({"sound": i}),
        }
        for i in range(clips)
    ]
    identity = {"kind": "audio", "benchmark": [clips, length], "rate": rate}
    with ClipCache("audio", identity, base=folder / "cache") as cache:
        for row, seconds in zip(rows, lengths, strict=True):
            wave = chance.uniform(-0.5, 0.5, round(seconds * rate)).astype(np.float32)
            times = np.array([[0.0, len(wave) / rate]], np.float32)
            cache.put({row["content"]: media_store.join_files([flac.encode(wave, rate)], times)})
        media_store.pack(folder / "audio.h5", rows, "audio", cache, identity, {})
    tables.write(tables.frame(rows), folder / "manifest.parquet")
    return folder / "manifest.parquet", folder / "audio.h5"


def jpeg(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def videos(folder: Path, clips: int, *, seconds: float = 3.0, width: int = 640, height: int = 360) -> Path:
    """H.264 files of 25 frames/s below `folder`, and their manifest, whose path is returned."""
    import av

    chance = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(clips):
        name = f"clip{i:04d}.mp4"
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for picture in pictures(chance, round(seconds * 25), width, height):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
        rows.append(
            {"id": f"clip{i:04d}", "corpus": "benchmark", "video": name, "duration": seconds, "content": digest({"video": i})}
        )
    tables.write(tables.frame(rows), folder / "manifest.parquet")
    return folder / "manifest.parquet"


def stream(values: dict) -> Stream:
    return Stream.model_validate(values)
