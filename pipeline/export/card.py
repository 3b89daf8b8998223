"""The model card of an exported folder: what it is of, its figures with intervals, its limits, what was random."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline.evaluation.intervals import Interval
from pipeline.evaluation.provenance import read_json, read_record, tell_intervals
from pipeline.evaluation.results import choose_headline, name_metric, read_scores
from pipeline.features.encoders.registry import read_streams
from pipeline.params import Params
from pipeline.runs.folders import ENSEMBLE
from pipeline.runs.pretrained.member import find_shape
from pipeline.runs.run import TrainedModel

#: Of all that is measured, what a card shows.
SHOWN = ("uar", "accuracy", "macro_f1", "weighted_f1", "ece", "ccc", "valence_ccc", "arousal_ccc", "dominance_ccc", "frame_ccc")
#: Names the hub knows metrics by.
KNOWN = {"uar": "recall", "accuracy": "accuracy", "macro_f1": "f1", "weighted_f1": "f1", "ccc": "ccc"}


@dataclass
class Facts:
    """What is exported.

    Attributes:
        identities: stream → what made its features. onnx: sentences on what lies in `onnx/`.
    """

    variant: str
    fold: int
    runs: list[TrainedModel]
    identities: dict[str, Mapping[str, Any]]
    licence: str
    onnx: list[str] = field(default_factory=list)

    @property
    def encoders(self) -> dict[str, dict[str, Any]]:
        """Stream → parameters of its extractor."""
        return {name: spec for run in self.runs for name, spec in run.config["encoders"].items()}

    @property
    def stand_ins(self) -> list[str]:
        """What learned nothing: streams, and `fusion` where its language model is drawn at random."""
        held = any(one.model.spec.language and one.model.spec.language.weights.startswith("random:") for one in self.runs)
        drawn = [name for name, spec in sorted(self.encoders.items()) if str(spec["weights"]).startswith("random:")]
        return [*drawn, *(["fusion"] if held else [])]


def write_card(params: Params, facts: Facts, data: Path, reports: Path, left: list[str]) -> str:
    """The text of `README.md`.

    Args:
        data: with `card.json`. reports: with `metrics.json` and `run.json`. left: what the export left out, and why.
    """
    card = read_json(data / "card.json")
    card = card if isinstance(card, dict) else {}
    corpus = str(card.get("corpus") or params.corpus.name)
    scores = read_scores(reports).get(facts.variant, {})
    parts = [
        _front(facts, card, corpus, scores),
        f"# {' + '.join(sorted(facts.encoders))} on {corpus}\n",
        _warn(facts, scores),
        _describe(facts),
        _use(facts),
        _figures(facts, scores, read_record(reports)),
        _data(card, corpus),
        _encoders(facts),
        _limits(facts, card, read_record(reports)),
        _onnx(facts, left),
    ]
    return "\n".join(part for part in parts if part).rstrip() + "\n"


def _front(facts: Facts, card: dict[str, Any], corpus: str, scores: Mapping[str, Interval]) -> str:
    spec = facts.runs[0].model.spec
    modalities = sorted({spec["modality"] for spec in facts.encoders.values()})
    shown = [name for name in SHOWN if name in scores]
    front: dict[str, Any] = {
        "license": facts.licence,
        "library_name": "affectory",
        "tags": ["affectory", "emotion-recognition", *modalities, *(["valence-arousal"] if spec.dimensions else [])],
        "metrics": sorted({KNOWN[name] for name in shown if name in KNOWN}),
    }
    if card.get("languages"):
        front["language"] = card["languages"]
    if shown:
        results = [{"type": KNOWN.get(n, n), "name": name_metric(n), "value": round(scores[n].mean, 4)} for n in shown]
        task = {"type": "other", "name": "emotion recognition"}
        found = {"task": task, "dataset": {"type": corpus, "name": corpus}, "metrics": results}
        front["model-index"] = [{"name": f"affectory-{corpus}", "results": [found]}]
    text = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.dump(front, text)
    return f"---\n{text.getvalue()}---\n"


def _warn(facts: Facts, scores: Mapping[str, Interval]) -> str:
    said = []
    if facts.stand_ins:
        said.append(
            f"**Random weights: {', '.join(facts.stand_ins)}.** These encoders learned nothing from anyone; this model is a "
            "stand-in that shows the machinery, and its figures say nothing of emotion."
        )
    if (unit := facts.runs[0].config["normalise"]) in ("speaker", "session"):
        said.append(f"**Transductive**: features were normalised per {unit}, with unlabelled test clips among them.")
    if not scores:
        said.append("**Not evaluated**: there were no figures of this model when the folder was written.")
    return "".join(f"> {one}\n\n" for one in said).rstrip("\n")


def _describe(facts: Facts) -> str:
    runs, spec = facts.runs, facts.runs[0].model.spec
    kinds = sorted({"a linear model" if run.model.spec.linear else f"fusion `{run.model.spec.fusion.name}`" for run in runs})
    says = []
    if spec.classes:
        says.append(f"probabilities of {len(spec.classes)} classes ({', '.join(spec.classes)})")
    if spec.dimensions:
        over = ", over time as well" if any("frames" in run.model.spec.outputs for run in runs) else ""
        says.append(f"{' and '.join(spec.dimensions)} from -1 to 1{over}")
    count = "one network" if len(runs) == 1 else f"the mean of {len(runs)} networks"
    return (
        f"Variant `{facts.variant}`, fold {facts.fold}: {count} ({', '.join(kinds)}; seeds "
        f"{', '.join(str(run.config['seed']) for run in runs)}). It gives {' and '.join(says)}. It reads features of frozen "
        "encoders (below); a stream that a clip lacks is left out.\n"
    )


def _use(facts: Facts) -> str:
    streams = facts.runs[0].model.spec.streams
    shapes = {name: ", ".join(map(str, find_shape(one))) for name, one in streams.items()}
    values = ", ".join(f'"{name}": torch.zeros(1, 10, {shape})' for name, shape in shapes.items())
    times = ", ".join(f'"{name}": seconds' for name in streams)
    return f"""## Use

From ready-made features, raw as the encoders give them; `times` are the seconds each row begins and ends at, `mask` says which
rows are there:

```python
import torch
from pipeline.runs.pretrained.model import AffectoryModel

model = AffectoryModel.from_pretrained(".")
seconds = torch.stack([torch.arange(10.0), torch.arange(10.0) + 1], -1)[None]
found = model({{{values}}}, times={{{times}}})
print(found.probabilities, found.dimensions)
```

From a film, where the encoders can be had: `Predictor.from_pretrained(".").predict("clip.mp4")` of `pipeline.serving.predictor`.
"""


def _figures(facts: Facts, scores: Mapping[str, Interval], record: dict[str, Any]) -> str:
    shown = [name for name in SHOWN if name in scores]
    if not shown:
        return ""
    lead = choose_headline(shown, str(facts.runs[0].config.get("select", "")))
    rows = [
        f"| {name_metric(n)} | {scores[n].mean:.3f} | {_bounds(scores[n])} |" for n in [lead, *(n for n in shown if n != lead)]
    ]
    seeds, folds = record.get("seeds") or [], record.get("folds") or []
    of = "of the one prediction that the mean of the networks makes" if facts.variant == ENSEMBLE else "of each network alone"
    over = [f"{len(seeds)} seeds"] * (len(seeds) > 1 and facts.variant != ENSEMBLE) + [f"{len(folds)} folds"] * (len(folds) > 1)
    mean = f", the mean over {' and '.join(over)}" if over else ""
    elsewhere = f" Fold {facts.fold} of {len(folds)} is in this folder." if len(folds) > 1 else ""
    table = "\n".join(["| figure | mean | 95 % interval |", "|---|---|---|", *rows])
    return f"## Figures\n\nOn held-out clips, {of}{mean}.{elsewhere}\n\n{table}\n\n{tell_intervals(record)}\n"


def _bounds(one: Interval) -> str:
    if one.bounded:
        return f"{one.low:.3f} to {one.high:.3f}"
    return f"none; single groups and seeds {one.least:.3f} to {one.most:.3f}" if one.ranged else "none"


def _data(card: dict[str, Any], corpus: str) -> str:
    lines = [f"- Corpus: {corpus}" + (f" ({card['licence']})" if card.get("licence") else "")]
    if card.get("clips"):
        lines.append(f"- {card['clips']:,} clips, {card.get('hours', 0):.2f} hours")
    for role in ("train", "val", "test"):
        if count := (card.get("roles") or {}).get(role, {}).get("clips"):
            lines.append(f"- {role}: {count:,} clips")
    if card.get("emotions"):
        lines.append("- Labels: " + ", ".join(f"{name} {count:,}" for name, count in card["emotions"].items()))
    lines += [f"- {name}: {value}" for name, value in (card.get("notes") or {}).items() if isinstance(value, str | int)]
    return "## Data\n\n" + "\n".join(lines) + "\n"


def _encoders(facts: Facts) -> str:
    ready = [(one, about) for one, about in read_streams().values()] if Path("conf/stream").is_dir() else []
    rows = []
    for name, spec in sorted(facts.encoders.items()):
        weights = facts.identities.get(name, {}).get("weights")
        sha = str(weights.get("sha256", "")) if isinstance(weights, Mapping) else ""
        licences = {about["licence"] for one, about in ready if one.weights == spec["weights"] and "licence" in about}
        rate = f"{spec['rate']:g} /s" if spec.get("rate") else "–"
        cells = (name, spec["modality"], spec["encoder"], f"`{spec['weights']}`", f"`{sha}`" if sha else "–", spec.get("layer"))
        rows.append((*cells, spec.get("pooling"), rate, min(licences, default="see its publisher")))
    head = ("stream", "modality", "encoder", "weights", "sha256", "layer", "pooling", "rows", "licence")
    table = [head, tuple("---" for _ in head), *rows]
    text = "\n".join(f"| {' | '.join(map(str, row))} |" for row in table)
    return f"## Encoders\n\nNot in this folder. `preprocessing.json` holds all that decides their features.\n\n{text}\n"


def _limits(facts: Facts, card: dict[str, Any], record: dict[str, Any]) -> str:
    spec, longest = facts.runs[0].model.spec, max(run.config["max_tokens"] or 0 for run in facts.runs)
    lines = [
        "It says how people who labelled such clips would label one, not what anyone feels; decide nothing about people by it.",
        "Other languages, cameras, microphones or ways of speaking than those of the corpus were not looked at.",
        "Random: the weights at the start, the order of clips, dropout"
        + (f", and the whole of {', '.join(facts.stand_ins)}" if facts.stand_ins else "")
        + f"; seeds {', '.join(str(run.config['seed']) for run in facts.runs)}.",
    ]
    if spec.window is None and longest:
        lines.append(f"Of a longer clip than {longest} rows per stream, rows side by side are averaged.")
    if any(spec.turns):
        lines.append(f"It was trained with {spec.turns[0]} earlier turns; without them (`history`) it judges a clip alone.")
    if card.get("leaks"):
        lines.append(f"Splits share what they should not: {'; '.join(str(one) for one in card['leaks'])}.")
    lines += [str(one) for one in record.get("undefined") or []]
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines) + "\n"


def _onnx(facts: Facts, left: list[str]) -> str:
    if not facts.onnx and not left:
        return ""
    return "## ONNX\n\n" + "\n".join(f"- {line}" for line in [*facts.onnx, *(f"Left out: {one}" for one in left)]) + "\n"
