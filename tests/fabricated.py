"""A fabricated corpus of features: manifest, folds, truth, annotations and three stores, no media."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from pipeline import params as parameters
from pipeline.features import index
from pipeline.storage import feature_store, tables

CLASSES = ("anger", "joy", "neutral", "sadness")
WIDTHS = {"audio": (6,), "text": (5,), "video": (8,)}


class Fabricated:
    """Files below `folder`; audio tells one bit of the class, video the other, text a bit of both."""

    def __init__(
        self,
        folder: Path,
        *,
        clips: int = 60,
        folds: int = 1,
        levels: int = 0,
        noise: float = 0.4,
        seed: int = 0,
        axis: str = "layer",
    ) -> None:
        self.folder, self.axis = folder, axis
        self.rng = np.random.default_rng(seed)
        self.ids = [f"demo/clip{i:03d}" for i in range(clips)]
        self.classes = self.rng.integers(0, 4, clips)
        self.widths = {**WIDTHS, **({"audio": (levels, 6)} if levels else {})}
        self.folds(folds)
        self.tables()
        for name, shape in self.widths.items():
            self.store(name, shape, noise)

    def path(self, name: str) -> Path:
        return self.folder / name

    def folds(self, count: int) -> None:
        rows = []
        for i, clip in enumerate(self.ids):
            for fold in range(count):
                part = i % 5 if count == 1 else (i - fold) % 5
                role = {0: "test", 1: "val"}.get(part, "train")
                rows.append({"id": clip, "fold": fold, "role": role, "part": part - 1 if part else None})
        self.roles = pl.DataFrame(rows)
        tables.write(self.roles, self.path("data/folds.parquet"), sort=("fold", "id"))
        self.single = count == 1

    def tables(self) -> None:
        """Held-out labels are null in the manifest of a single fold and there in k-fold, as in the real stage."""
        tests = set(self.roles.filter(pl.col("role") == "test")["id"])
        full, frames = [], []
        for i, clip in enumerate(self.ids):
            high, right = divmod(int(self.classes[i]), 2)
            row = {
                "id": clip,
                "corpus": "demo",
                "speaker": f"s{i % 6}",
                "emotion": CLASSES[self.classes[i]],
                "valence": 0.8 * right - 0.4,
                "arousal": 0.8 * high - 0.4,
                "duration": 4.0,
            }
            full.append(row)
            frames += [
                {"id": clip, "time": t, "valence": row["valence"] * np.cos(t), "arousal": row["arousal"]}
                for t in np.arange(0, 4, 0.5)
            ]
        seen = [{k: v for k, v in r.items() if not (self.single and r["id"] in tests and k in tables.LABELS)} for r in full]
        tables.write(tables.frame(seen), self.path("data/manifest.parquet"))
        truth = tables.frame(full).filter(pl.col("id").is_in(list(tests))).select("id", *tables.LABELS)
        tables.write(truth, self.path("data/truth.parquet"))
        annotations = tables.frame(frames, tables.ANNOTATIONS)
        held = pl.col("id").is_in(list(tests))
        tables.write(
            annotations.filter(~held) if self.single else annotations, self.path("data/annotations.parquet"), sort=("id", "time")
        )
        tables.write(annotations.filter(held), self.path("data/truth_annotations.parquet"), sort=("id", "time"))

    def store(self, name: str, shape: tuple[int, ...], noise: float, *, ids: list[str] | None = None) -> None:
        """Every ninth clip lacks text, every thirteenth failed in video."""
        entries = []
        for i, clip in enumerate(ids or self.ids):
            status = feature_store.Status.OK
            if name == "text" and i % 9 == 4:
                status = feature_store.Status.MISSING
            if name == "video" and i % 13 == 7:
                status = feature_store.Status.FAILED
            length = int(self.rng.integers(2, 7)) if status == feature_store.Status.OK else 0
            kind = int(self.classes[self.ids.index(clip)]) if clip in self.ids else 0
            signal = {"audio": kind // 2, "video": kind % 2, "text": kind / 3}[name] - 0.5
            values = self.rng.normal(3.0, noise, (length, *shape))
            values[..., 0] += 2 * signal
            edges = np.linspace(0, 4, length + 1)
            entries.append(
                feature_store.Entry(values.astype(np.float32), np.stack([edges[:-1], edges[1:]], 1).astype(np.float32), status)
            )
        source = "random:0" if name == "audio" else "local:x"
        feature_store.write(
            self.path(f"features/{name}.h5"),
            ids or self.ids,
            entries,
            rows=[len(e.values) for e in entries],
            shape=shape,
            attributes={"stream": name, "modality": name, "identity": {"weights": {"source": source}}}
            | ({"axis": self.axis} if len(shape) > 1 else {}),
        )

    def params(self, **groups: dict) -> parameters.Params:
        """Small parameters; a group given replaces single keys."""
        base = {
            "recipe": "demo",
            "corpus": {"name": "demo", "root": "."},
            "fusion": {"name": "concat"},
            "streams": {n: {"modality": n, "source": "x", "encoder": "x", "weights": "random:0"} for n in WIDTHS},
            "temporal": {"width": 16, "heads": 2},
            "run": {"workers": 0, "device": "cpu"},
            "training": {"seeds": 1, "epochs": 4, "batch_size": 16, "unimodal": False, "linear": None},
        }
        for name, values in groups.items():
            base[name] = {**base.get(name, {}), **values}
        return parameters.parse(base)

    def index(self, params: parameters.Params | None = None) -> Path:
        out = self.path("data/index.h5")
        index.build(
            params or self.params(),
            features=self.path("features"),
            manifest=self.path("data/manifest.parquet"),
            folds=self.path("data/folds.parquet"),
            out=out,
        )
        return out

    @property
    def files(self) -> dict[str, Path]:
        """Keyword arguments of `train`."""
        return {name: self.path(f"data/{name}.parquet") for name in ("manifest", "folds", "annotations")}
