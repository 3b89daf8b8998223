"""What a language model is given of each film: rows of every stream, and the words; read from raw files or from stores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from pipeline.devices import pick_devices
from pipeline.errors import StoreError, UserError
from pipeline.features import transcribe
from pipeline.features.encoders import registry
from pipeline.features.encoders.vision import eva
from pipeline.params import Params, Stream
from pipeline.serving.predictor import Predictor
from pipeline.serving.spoken import Spoken
from pipeline.storage import tables
from pipeline.storage.feature_store import Entry, Status, Store
from pipeline.storage.output_store import is_output

from .settings import Settings, is_image


@dataclass(frozen=True)
class Item:
    """One film.

    Attributes:
        rows: stream → (n, D) float32: of `image` all rows of the picture, of another one row.
        lacks: stream → (status, reason) of those it has not.
        text: what is said. duration: seconds.
    """

    id: str
    rows: dict[str, np.ndarray]
    lacks: dict[str, tuple[Status, str]] = field(default_factory=dict)
    text: str | None = None
    duration: float = 0.0


def read_rows(name: str, values: np.ndarray) -> np.ndarray:
    """(T, ...) rows of a stream as a prompt has them: their mean over time, (n, D).

    Raises:
        StoreError: they are not of that stream's kind.
    """
    if values.ndim != (3 if is_image(name) else 2):
        wanted = "the rows of a picture (eva with options.readout merged)" if is_image(name) else "one vector an instant"
        raise StoreError(f"stream {name} gives rows of shape {values.shape[1:]}; it has to give {wanted}.")
    mean = values.astype(np.float32).mean(0)
    return mean if is_image(name) else mean[None]


def name_films(paths: Sequence[Path]) -> list[str]:
    """An id for each film: its name, or its path where two have the same name.

    Raises:
        UserError: a film is named twice.

    >>> name_films([Path("a/one.mp4"), Path("b/one.mp4"), Path("two.mp4")])
    ['a/one', 'b/one', 'two']
    """
    stems = [path.stem for path in paths]
    names = [stem if stems.count(stem) == 1 else path.with_suffix("").as_posix() for stem, path in zip(stems, paths, strict=True)]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"{twice[0]} is named twice; name each film once, and films of one folder differently.")
    return names


def read_films(paths: Sequence[Path], texts: Sequence[str], settings: Settings, params: Params) -> Iterator[Item]:
    """Films through the encoders of the settings, one at a time; one that cannot be read has a reason in place of rows.

    Args:
        texts: what is said in each; none = words are recognised where `asr.weights` is set.

    Raises:
        UserError: not a text for each film, or a film named twice. WeightsError: an encoder's weights are not there.
    """
    if texts and len(texts) != len(paths):
        raise UserError(f"{len(paths)} films and {len(texts)} texts; give --text once for each film, in their order, or never.")
    names = name_films(paths)
    if settings.decode is not None:
        params = params.model_copy(update={"decode": params.decode.model_copy(update={"video": settings.decode})})
    encoders, taken = share_towers(settings.find_streams())
    predictor = Predictor(
        [], encoders, params.model_copy(update={"streams": encoders}), pick_devices(params.run.device, encodes=True)[0]
    )
    for name in encoders:
        predictor.extractor(name)
    said: Sequence[str | None] = texts or [None] * len(paths)
    films = zip(names, paths, said, strict=True)
    return (_read_film(predictor, name, path, text, taken) for name, path, text in films)


def _read_film(
    predictor: Predictor, clip: str, path: Path, text: str | None, taken: Mapping[str, tuple[str, eva.Readout]]
) -> Item:
    source = predictor.source(path, Spoken(text))
    found, use = predictor.features(source)
    values = {name: one for name, (one, _) in found.items()}
    lacks = {name: (one.status, one.reason) for name, one in use.items() if name not in found}
    for name, (tower, readout) in taken.items():
        if tower in lacks:
            lacks[name] = lacks[tower]
        else:
            values[name] = eva.read_rows(torch.from_numpy(found[tower][0]), readout).numpy()
    rows = {name: read_rows(name, one) for name, one in values.items()}
    return Item(clip, rows, lacks, source.words() if rows else None, source.duration if rows else 0.0)


def share_towers(streams: Mapping[str, Stream]) -> tuple[dict[str, Stream], dict[str, tuple[str, eva.Readout]]]:
    """Encoders that run, and stream → (encoder, readout) of those that take other tokens of the same tower: it runs once."""
    towers: dict[str, list[str]] = {}
    alike = {}
    for name, stream in streams.items():
        readout = stream.options.get("readout", "merged")
        if stream.encoder == "eva" and readout in ("merged", "cls"):
            alike[name] = stream.model_copy(update={"options": {**stream.options, "readout": "tokens"}})
            towers.setdefault(alike[name].model_dump_json(), []).append(name)
    encoders, taken = dict(streams), dict[str, tuple[str, eva.Readout]]()
    for names in (names for names in towers.values() if len(names) > 1):
        encoders[names[0]] = alike[names[0]]
        for name in names:
            taken[name] = (names[0], streams[name].options.get("readout", "merged"))
        for name in names[1:]:
            del encoders[name]
    return encoders, taken


def read_corpus(
    settings: Settings, params: Params, folder: Path = Path("features"), manifest: Path = Path("data/manifest.parquet")
) -> Iterator[Item]:
    """Clips of a corpus from the stores that `extract` made of these very streams, with recognised words where `asr` is on.

    Raises:
        StoreError: a stream has no store.
    """
    table, stores = open_corpus(settings.find_streams(), params, folder, manifest)
    return (read_clip(row, stores) for row in table.iter_rows(named=True))


def open_corpus(
    streams: Mapping[str, Stream], params: Params, folder: Path = Path("features"), manifest: Path = Path("data/manifest.parquet")
) -> tuple[pl.DataFrame, dict[str, Store]]:
    """The manifest, sorted by `id`, with recognised words where `asr` is on, and the store of each stream.

    Raises:
        StoreError: a stream has no store.
    """
    table, stores = tables.read(manifest).sort("id"), find_stores(streams, folder)
    if params.asr.weights:
        table = transcribe.fill_texts(table, transcribe.TABLE)
    return table, stores


def read_clip(row: Mapping[str, Any], stores: Mapping[str, Store]) -> Item:
    """The rows of one clip of the manifest."""
    rows, lacks, clip = {}, dict[str, tuple[Status, str]](), row["id"]
    for name, store in stores.items():
        entry = store[clip] if clip in store else Entry(np.empty(0), np.empty(0), Status.MISSING)
        if entry.status == Status.OK:
            rows[name] = read_rows(name, entry.values)
        else:
            lacks[name] = (entry.status, f"{store.path.name} has no rows of this clip")
    return Item(clip, rows, lacks, row["text"], row["duration"] or 0.0)


def find_stores(streams: Mapping[str, Stream], folder: Path) -> dict[str, Store]:
    """Stream → the store in a folder that was made with its very encoder, whatever the store is called.

    Raises:
        StoreError: there is none, with the command that makes it.
    """
    stores = [Store(path) for path in sorted(folder.glob("*.h5")) if not is_output(path)]
    found = {}
    for name, stream in streams.items():
        wanted = registry.build(stream).identity
        for store in stores:
            made = store.attributes.get("identity")
            if isinstance(made, dict) and all(made.get(key) == value for key, value in wanted.items()):
                found[name] = store
                break
        else:
            raise StoreError(
                f"{folder} has no store of the stream {name} as the settings have it; add it to the run "
                f"(-S +stream@streams.{name}=…) and run `dvc repro`, or leave it out of the settings."
            )
    return found
