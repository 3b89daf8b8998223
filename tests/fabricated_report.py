"""A fabricated run for the report: data card, stores, predictions, metrics; numbers that look like a real run's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from pipeline import params as parameters
from pipeline.storage import feature_store, tables
from pipeline.storage.atomic import write_json

CLASSES = ["anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise"]
ACCURACY = {"fused": 0.86, "audio": 0.62, "text": 0.5, "video": 0.7}


def make_params(**changes):
    stream = {
        "modality": "video",
        "source": "data/frames.h5",
        "encoder": "clip",
        "weights": "random:0",
        "architecture": {"width": 64},
    }
    values = {
        "recipe": "demo",
        "corpus": {"name": "demo", "root": "data/corpus"},
        "fusion": {"name": "gated"},
        "streams": {
            "video": stream,
            "audio": stream | {"modality": "audio", "encoder": "hubert", "weights": "local:weights/hubert"},
            "text": stream | {"modality": "text", "encoder": "text", "source": "data/manifest.parquet"},
        },
    }
    return parameters.parse(values | changes)


def make_data(folder: Path, rng) -> list[str]:
    folder.mkdir(parents=True)
    ids = [f"demo/s{i % 4}/dia{i // 14:02d}_utt{i % 14:02d}" for i in range(240)]
    clips = [
        {
            "id": c,
            "corpus": "demo",
            "video": f"{i}.mp4",
            "audio": f"{i}.mp4",
            "text": "Well, hello.",
            "duration": 2 + i % 3,
            "speaker": f"spk{i % 12:02d}",
            "session": f"s{i % 6}",
            "dialogue": c[:13],
            "language": "en",
            "emotion": None if i % 5 == 0 else CLASSES[i % 7],
        }
        for i, c in enumerate(ids)
    ]
    tables.write(tables.frame(clips), folder / "manifest.parquet")
    roles = ["test" if i % 5 == 0 else "val" if i % 5 == 1 else "train" for i in range(240)]
    tables.write(pl.DataFrame({"fold": [0] * 240, "id": ids, "role": roles}), folder / "folds.parquet", sort=("fold", "id"))
    histogram = {s: {c: int(rng.integers(4, 30)) for c in CLASSES} for s in ("test", "train", "val")}
    write_json(
        folder / "card.json",
        {
            "corpus": "demo",
            "title": "Talking faces (generated)",
            "licence": "CC0",
            "homepage": "",
            "roles": {role: {"emotions": counts} for role, counts in histogram.items()},
            "leaks": [],
            "notes": {"generator": "version 1, seed 0"},
        },
    )
    tables.write(
        tables.frame(
            [
                {
                    "id": "demo/s1/dia03_utt07",
                    "media": "41.mp4",
                    "stage": "manifest",
                    "reason": "unreadable",
                    "detail": "<moov> atom not found",
                },
                {
                    "id": "demo/s2/dia05_utt00",
                    "media": "70.mp4",
                    "stage": "manifest",
                    "reason": "silent",
                    "detail": "audio: peak -91 dBFS; the clip stays without it",
                },
            ],
            tables.QUARANTINE,
        ),
        folder / "quarantine.parquet",
    )
    tables.write(
        tables.frame(
            [
                {
                    "id": "demo/s0/dia01_utt02",
                    "media": "16.mp4",
                    "stage": "frames",
                    "reason": "timeout",
                    "detail": "decoding took longer than 60 s",
                }
            ],
            tables.QUARANTINE,
        ),
        folder / "frames.quarantine.parquet",
    )
    return ids


def make_features(folder: Path, ids: list[str], rng) -> None:
    for name, weights in (
        ("video", {"source": "random:0", "random": True}),
        ("audio", {"source": "local:weights/hubert", "sha256": "0f3a" * 16}),
    ):
        entries = [feature_store.Entry(rng.normal(size=(4, 32)), np.tile(np.float32([0, 1]), (4, 1))) for _ in sorted(ids)]
        entries[3] = feature_store.Entry(
            np.zeros((0, 32)), np.zeros((0, 2), np.float32), feature_store.Status.MISSING, "no sound"
        )
        entries[5] = feature_store.Entry(np.zeros((0, 32)), np.zeros((0, 2), np.float32), feature_store.Status.FAILED, "crashed")
        failures = {sorted(ids)[5]: "the encoder crashed"}
        feature_store.write(
            folder / f"{name}.h5",
            sorted(ids),
            entries,
            rows=[len(e.values) for e in entries],
            shape=(32,),
            attributes={"stream": name, "modality": name, "identity": {"weights": weights}, "failures": failures},
        )


def make_reports(folder: Path, ids: list[str], rng) -> None:
    (folder / "plots").mkdir(parents=True)
    test = ids[::5]
    rows, history, confusion = [], ["variant,fold,seed,epoch,train_loss,val_loss,val_uar"], ["actual,predicted"]
    for variant, right in ACCURACY.items():
        for seed in range(3):
            for i, clip in enumerate(test):
                truth, found = CLASSES[i % 7], CLASSES[i % 7] if rng.random() < right else CLASSES[rng.integers(7)]
                chances = rng.dirichlet(np.ones(7)) * 0.5
                chances[CLASSES.index(found)] += 0.5
                valence, arousal = np.sin(i), np.cos(i * 1.7)
                rows.append(
                    {
                        "variant": variant,
                        "fold": 0,
                        "seed": seed,
                        "id": clip,
                        "speaker": f"spk{i % 12:02d}",
                        "truth": truth,
                        "predicted": CLASSES[int(chances.argmax())],
                        **dict(zip((f"p_{c}" for c in CLASSES), chances, strict=True)),
                        "valence": valence * 0.8 + rng.normal() * 0.12,
                        "arousal": arousal * 0.7 + rng.normal() * 0.15,
                        "truth_valence": valence,
                        "truth_arousal": arousal,
                    }
                )
                if variant == "fused":
                    confusion.append(f"{truth},{rows[-1]['predicted']}")
            for epoch in range(1, 18 + 3 * seed):
                fall, level = np.exp(-epoch / 6), 0.05 * rng.normal()
                history.append(
                    f"{variant},0,{seed},{epoch},{1.9 * fall + 0.1:.4f},{1.7 * fall + 0.4 + level * 0.5:.4f},"
                    f"{right * (1 - fall) + level * 0.4:.4f}"
                )
    pl.DataFrame(rows).write_parquet(folder / "predictions.parquet")

    def interval(mean, half=0.03):
        return {"mean": mean, "low": mean - half, "high": mean + half}

    write_json(
        folder / "metrics.json",
        {
            v: {
                "accuracy": interval(a + 0.01),
                "uar": interval(a, 0.02),
                "weighted_f1": interval(a - 0.005),
                "ece": interval(0.07, 0.01),
                "valence_ccc": interval(a - 0.02),
                "arousal_ccc": interval(a - 0.08),
                "valence_rmse": interval(0.3 - a / 5),
                "ccc": interval(a - 0.05),
                "uar_strict": {"mean": a, "low": None, "high": None},
            }
            for v, a in ACCURACY.items()
        },
    )
    write_json(
        folder / "per_class.json",
        {
            v: {
                c: {
                    "precision": interval(a - k / 50),
                    "recall": interval(a - k / 70),
                    "support": 7,
                    "f1": interval(a - k / 60),
                }
                for k, c in enumerate(CLASSES)
            }
            for v, a in ACCURACY.items()
        },
    )
    pl.DataFrame(
        [
            {
                "variant": v,
                "speaker": f"spk{k:02d}",
                "clips": 4,
                "accuracy": a - 0.3 * rng.random(),
                "uar": a - 0.3 * rng.random(),
                "valence_ccc": a - k / 40,
                "at_most": 0.6 + 0.03 * ((k * 7) % 12),
            }
            for v, a in ACCURACY.items()
            for k in range(12)
        ]
    ).write_parquet(folder / "per_speaker.parquet")
    write_json(
        folder / "comparisons.json",
        {
            v: {
                "metric": "uar",
                "fused": interval(0.86),
                "other": interval(a),
                "difference": 0.86 - a,
                "difference_low": 0.82 - a,
                "difference_high": 0.9 - a,
                "p": 0.0002 if a < 0.6 else 0.0132,
            }
            for v, a in ACCURACY.items()
            if v != "fused"
        },
    )
    write_json(
        folder / "baselines.json",
        {
            "chance": {"uar": 1 / 7, "accuracy": 1 / 7, "weighted_f1": 0.14, "valence_ccc": 0.0, "arousal_ccc": 0.0, "ccc": 0.0},
            "majority": {
                "uar": 1 / 7,
                "accuracy": 0.17,
                "weighted_f1": 0.05,
                "valence_ccc": 0.0,
                "valence_rmse": 0.6,
                "ccc": 0.0,
            },
        },
    )
    write_json(
        folder / "run.json",
        {
            "commit": "0123456789ab",
            "python": "3.11.9",
            "versions": {"torch": "2.0.0", "numpy": "2.0.0"},
            "seeds": [0, 1, 2],
            "folds": [0],
            "unit": "speaker",
            "groups": 12,
            "alone": 0,
            "before": {"summary": {"uar": 0.81}, "changed": [["fusion.name", "concat", "gated"]]},
        },
    )
    time = np.arange(0, 4, 0.25)
    pl.DataFrame(
        [
            {
                "id": clip,
                "time": t,
                "truth_valence": np.sin(t + k) * 0.7,
                "pred_valence": np.sin(t + k) * 0.6 + rng.normal() * 0.02 * k,
                "truth_arousal": np.cos(t * 1.3 + k) * 0.6,
                "pred_arousal": np.cos(t * 1.3 + k) * 0.5 + rng.normal() * 0.02 * k,
            }
            for k, clip in enumerate(test[:12])
            for t in time
        ]
    ).write_parquet(folder / "traces.parquet")
    (folder / "plots" / "history.csv").write_text("\n".join(history) + "\n")
    (folder / "plots" / "confusion.csv").write_text("\n".join(confusion) + "\n")
    make_trust(folder)
    missing = [
        "kept,streams,metric,mean,low,high",
        "audio+text+video,3,uar,0.86,0.84,0.88",
        "audio+video,2,uar,0.8,0.77,0.83",
        "audio+text,2,uar,0.68,0.6,0.76",
        "text+video,2,uar,0.74,0.7,0.78",
        "audio,1,uar,0.55,0.5,0.6",
        "text,1,uar,0.4,0.35,0.45",
        "video,1,uar,0.66,0.6,0.72",
    ]
    (folder / "plots" / "missing.csv").write_text("\n".join(missing) + "\n")


def make_trust(folder: Path) -> None:
    """What tells how far the figures can be trusted."""

    def interval(mean, half=0.05):
        return {"mean": mean, "low": mean - half, "high": mean + half}

    worth = {"audio": 0.2, "text": 0.1, "video": 0.42}
    recall = {name: {c: interval(value - 0.06 * k) for k, c in enumerate(CLASSES)} for name, value in worth.items()}
    shapley = {"streams": list(worth), "none": interval(0.14, 0), "full": interval(0.86), "recall": recall}
    shapley["uar"] = {name: interval(value) for name, value in worth.items()}
    fit = {"r": -0.71, "p": 0.0005, "slope": -0.3, "intercept": 0.95, "clips": 48, "dimensions": ["valence", "arousal"]}
    write_json(folder / "trust.json", {"shapley": shapley, "difficulty": fit})
    probe = {"before": interval(0.8), "after": interval(0.45), "chance": 1 / 12, "speakers": 12, "clips": 100, "runs": []}
    write_json(folder / "probe.json", probe)
    rows = ["coverage,metric,mean,low,high,least,most"]
    for k in range(1, 21):
        rows += [f"{k / 20},{m},{0.99 - k / 160},{0.95 - k / 140},{min(1, 1.02 - k / 200)},," for m in ("accuracy", "uar")]
    (folder / "plots" / "selective.csv").write_text("\n".join(rows) + "\n")
    rows = ["bucket,clips,easiest,hardest,difficulty,uar,fitted"]
    for k in range(20):
        rows.append(
            f"{k + 1},3,{k / 20},{k / 20 + 0.04},{k / 20 + 0.02},{0.95 - 0.015 * k + 0.04 * np.sin(k * 2.3)},{0.95 - 0.015 * k}"
        )
    (folder / "plots" / "difficulty.csv").write_text("\n".join(rows) + "\n")


def make_run(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    ids = make_data(folder / "data", rng)
    make_features(folder / "features", ids, rng)
    make_reports(folder / "reports", ids, rng)
    return folder
