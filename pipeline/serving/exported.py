"""An exported folder as what a predictor needs: its networks, the encoders they were trained on, how files are decoded."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from pipeline import params as parameters
from pipeline.errors import StoreError
from pipeline.params import Params, Stream
from pipeline.runs.pretrained.member import Normalise
from pipeline.runs.pretrained.model import AffectoryModel, find_file
from pipeline.runs.run import TrainedModel
from pipeline.weights import adapters

#: Beside `config.json`: how a file becomes the features the networks read.
PREPROCESSING = "preprocessing.json"
VERSION = 1
#: Groups of the parameters that decide how a file is decoded.
DECODING = ("decode", "faces", "asr", "integrity")
#: Folder of the adapters of encoders, by stream.
ADAPTERS = "adapters"


class Exported(NamedTuple):
    """What `open_exported` finds; the fields are those of a `Predictor`."""

    runs: list[TrainedModel]
    encoders: dict[str, Stream]
    params: Params
    weights: list[float]


def describe(params: Params, runs: Sequence[TrainedModel], identities: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The content of `preprocessing.json`.

    Args:
        identities: stream → what made its features, as its store says it; streams without a store are not in it.

    Returns:
        JSON values. Per stream `encoder` (the parameters of its extractor), `facts` (what the runs know of it) and `identity`;
        paths on this machine stand in them where weights lie in a folder.
    """
    streams: dict[str, Any] = {}
    for run in runs:
        for name, spec in run.config["encoders"].items():
            facts = run.config.get("streams", {}).get(name, {})
            encoder = {**spec, "adapt": None}
            if encoder.get("adapter"):
                encoder["adapter"] = f"{ADAPTERS}/{name}"
            kept = {key: facts[key] for key in ("source", "random", "adapter") if key in facts}
            streams[name] = {"encoder": encoder, "facts": kept, "identity": dict(identities.get(name, {}))}
    return {
        "version": VERSION,
        "streams": streams,
        "normalise": sorted({run.config["normalise"] for run in runs}),
        **params.model_dump(mode="json", include=set(DECODING)),
    }


def open_exported(folder: str | os.PathLike, **hub: Any) -> Exported:
    """Read a folder that `export` wrote, or what the hub calls by that name; encoders are not loaded.

    Raises:
        StoreError: it is none, or of another version. ParamsError: an encoder or option of it is not known here.
    """
    says = json.loads(Path(find_file(folder, PREPROCESSING, **hub)).read_text(encoding="utf-8"))
    if says.get("version") != VERSION:
        raise StoreError(f"{folder} was exported by another version of this pipeline; export it anew.")
    model = AffectoryModel.from_pretrained(folder, **hub)
    streams = says["streams"]
    encoders = {name: _place_adapter(folder, name, dict(one["encoder"]), hub) for name, one in streams.items()}
    values = {
        "recipe": "exported",
        "corpus": {"name": "exported", "root": "."},
        "streams": encoders,
        "fusion": {"name": "concat"},
        **{name: says[name] for name in DECODING},
    }
    params = parameters.parse(values, f"{folder}/{PREPROCESSING}")
    (normalise,) = says["normalise"]
    runs = []
    for member, one in zip(model.list_members(), model.config.members, strict=True):
        named = tuple(member.model.spec.streams)
        config = {name: one[name] for name in ("variant", "fold", "seed", "max_tokens")} | {
            "normalise": normalise,
            "streams": {name: streams[name]["facts"] for name in named},
            "encoders": {name: encoders[name] for name in named},
        }
        norms = {name: cast(Normalise, norm) for name, norm in member.normalisation.items()}
        statistics = {name: (norm.mean.numpy(), norm.std.numpy()) for name, norm in norms.items()}
        runs.append(TrainedModel(config, member.model.eval(), statistics))
    return Exported(runs, params.streams, params, [float(one["weight"]) for one in model.config.members])


def _place_adapter(folder: str | os.PathLike, name: str, encoder: dict[str, Any], hub: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a stream with the adapter where it lies on this machine."""
    if not encoder.get("adapter"):
        return encoder
    found = [find_file(folder, f"{ADAPTERS}/{name}/{file}", **hub) for file in (adapters.CONFIG, adapters.WEIGHTS)]
    return encoder | {"adapter": str(Path(found[0]).parent)}
