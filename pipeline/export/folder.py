"""`export`: the trained networks of a variant and fold as a folder for the Hugging Face hub, complete or absent."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
from transformers.utils import logging as transformers_log

from pipeline.errors import UserError
from pipeline.params import Params, Stream
from pipeline.runs.ensemble import find_members
from pipeline.runs.folders import CONFIG, FUSED, WEIGHTS
from pipeline.runs.pretrained.model import AffectoryModel
from pipeline.runs.run import load_run
from pipeline.serving.exported import ADAPTERS, PREPROCESSING, describe
from pipeline.storage.atomic import atomic_folder, write_json, write_text
from pipeline.storage.feature_store import Store

from .card import Facts, write_card
from .eight_bits import shrink_towers
from .graphs import check_packages, write_eight_bits
from .heads import LENGTHS, Head, write_head
from .held_out import Entries, ask_graph, list_clips, measure
from .towers import write_towers

#: What may lie in a folder that is written over.
OURS = {CONFIG, WEIGHTS, PREPROCESSING, "README.md", ADAPTERS, "onnx"}


def export(
    params: Params,
    out: str | Path,
    *,
    variant: str = FUSED,
    fold: int = 0,
    models: str | Path = "models/runs",
    features: str | Path = "features",
    data: str | Path = "data",
    reports: str | Path = "reports",
    licence: str = "other",
    onnx: bool = False,
    encoders: bool = False,
    int8: bool = False,
) -> list[str]:
    """Write `config.json`, `model.safetensors`, `preprocessing.json` and `README.md`; with `onnx`, a folder `onnx/` beside them.

    Args:
        variant, fold: which networks; their mean is what the folder predicts.
        licence: of what is exported, for the card's front matter.
        onnx: the networks as ONNX; see `heads.write_head`. encoders: theirs too, where that can be; see `towers.write_tower`.
        int8: the networks in eight bits too, with `encoders` also those, with what that costs on held-out clips.

    Returns:
        A line on each thing that was left out, and why.

    Raises:
        UserError: `out` is a folder of something else, or features are normalised over all clips of a speaker.
        StoreError: nothing was trained, or no such variant or fold.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or {path.name for path in out.iterdir()} - OURS):
        raise UserError(f"{out} is there and holds what no export wrote; name another folder, or remove it.")
    if (encoders or int8) and not onnx:
        raise UserError("--encoders and --int8 are of ONNX; give --onnx as well.")
    if onnx:
        check_packages()
    members = find_members(models, variant, fold)
    runs = [load_run(folder) for folder in members]
    model = AffectoryModel.of(runs, list(members.values()))
    identities = {name: read_identity(Path(features) / f"{name}.h5") for run in runs for name in run.streams}
    facts = Facts(variant, fold, runs, {name: one for name, one in identities.items() if one}, licence)
    lines: list[str] = []
    with atomic_folder(out) as made:
        with _without_bars():
            model.save_pretrained(made)
        shutil.copymode(made / CONFIG, made / WEIGHTS)  # the library gives it to its owner alone
        write_json(made / PREPROCESSING, describe(params, runs, facts.identities))
        for run in runs:
            for name, spec in run.config["encoders"].items():
                if spec.get("adapter"):
                    shutil.copytree(spec["adapter"], made / ADAPTERS / name, dirs_exist_ok=True)
        if onnx:
            found, left = write_heads(model, made / "onnx", fold, Path(features), Path(data), int8=int8)
            lines += left
            facts.onnx += found
        if encoders:
            streams = {name: Stream.model_validate(spec) for name, spec in facts.encoders.items()}
            found, left = write_towers(streams, made / "onnx")
            lines += left
            facts.onnx += found
        if encoders and int8:
            found, left = shrink_towers(model, streams, made / "onnx", fold, Path(features), Path(data))
            lines += left
            facts.onnx += found
        write_text(made / "README.md", write_card(params, facts, Path(data), Path(reports), lines))
    return lines


def write_heads(
    model: AffectoryModel, folder: Path, fold: int, features: Path, data: Path, *, int8: bool
) -> tuple[list[str], list[str]]:
    """`head.onnx`, and with `int8` `head_int8.onnx`.

    Returns:
        Sentences for the card, and lines on what was left out.
    """
    folder.mkdir(parents=True)
    worst = write_head(model, folder / "head.onnx")
    head = Head(model)
    said = [
        f"`onnx/head.onnx` takes {', '.join(f'`{name}`' for name in head.inputs)} and was compared with the networks over "
        f"{len(LENGTHS)} batches of other lengths and missing streams: largest difference {worst:.1e}. "
        + (f"It takes at most {head.limit} rows per stream and does not shorten longer clips. " if head.limit else "")
        + "It judges each clip by itself."
    ]
    if not int8:
        return said, []
    write_eight_bits(folder / "head.onnx", folder / "head_int8.onnx")
    try:
        ids = list_clips(model, fold, features, data)
        stores: dict[str, Entries] = {name: Store(features / f"{name}.h5") for name in model.config.streams}
        plain, smaller = (ask_graph(model, folder / name, stores) for name in ("head.onnx", "head_int8.onnx"))
        loss = measure(model, plain, smaller, ids, fold, data)
    except UserError as error:
        return said, [f"what eight bits cost was not measured: {error}"]
    return [*said, f"`onnx/head_int8.onnx` has its matrices in eight bits. {loss}"], []


@contextmanager
def _without_bars() -> Iterator[None]:
    """A file is written at once: a bar of one step is noise."""
    shown = transformers_log.is_progress_bar_enabled()
    transformers_log.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_log.enable_progress_bar()


def read_identity(store: Path) -> dict[str, Any]:
    """What made the features of a store; empty when there is none."""
    if not store.is_file():
        return {}
    with h5py.File(store, "r", locking=False) as file:
        found = json.loads(file.attrs.get("identity", "{}"))
    return found if isinstance(found, dict) else {}
