"""What a language model is given of each film: rows of every stream, and the words; read from raw files or from stores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipeline.devices import pick_devices
from pipeline.errors import StoreError, UserError
from pipeline.features.encoders import registry
from pipeline.params import Params, Stream
from pipeline.serving.predictor import Predictor
from pipeline.serving.source import Spoken
from pipeline.storage import tables
from pipeline.storage.feature_store import Status, Store

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
        UserError: not a text for each film, or an encoder's weights are not there.
    """
    if texts and len(texts) != len(paths):
        raise UserError(f"{len(paths)} films and {len(texts)} texts; give --text once for each film, in their order, or never.")
    if settings.decode is not None:
        params = params.model_copy(update={"decode": params.decode.model_copy(update={"video": settings.decode})})
    streams = settings.find_streams()
    predictor = Predictor([], streams, params.model_copy(update={"streams": streams}), pick_devices(params.run.device)[0])
    for name in streams:
        predictor.extractor(name)  # weights that are not there are an error before the first film
    for place, (clip, path) in enumerate(zip(name_films(paths), paths, strict=True)):
        source = predictor.source(path, Spoken(texts[place] if texts else None))
        found, use = predictor.features(source)
        lacks = {name: (one.status, one.reason) for name, one in use.items() if name not in found}
        rows = {name: read_rows(name, values) for name, (values, _) in found.items()}
        yield Item(clip, rows, lacks, source.words() if rows else None, source.duration if rows else 0.0)


def read_corpus(
    settings: Settings, folder: Path = Path("features"), manifest: Path = Path("data/manifest.parquet")
) -> Iterator[Item]:
    """Clips of a corpus from the stores that `extract` made of these very streams.

    Raises:
        StoreError: a stream has no store.
    """
    stores = find_stores(settings.find_streams(), folder)
    for row in tables.read(manifest).sort("id").iter_rows(named=True):
        rows, lacks = {}, {}
        for name, store in stores.items():
            entry = store[row["id"]] if row["id"] in store else None
            if entry is not None and entry.status == Status.OK:
                rows[name] = read_rows(name, entry.values)
            else:
                status = entry.status if entry is not None else Status.MISSING
                lacks[name] = (status, f"{store.path.name} has no rows of this clip")
        yield Item(row["id"], rows, lacks, row["text"], row["duration"] or 0.0)


def find_stores(streams: Mapping[str, Stream], folder: Path) -> dict[str, Store]:
    """Stream → the store in a folder that was made with its very encoder, whatever the store is called.

    Raises:
        StoreError: there is none, with the command that makes it.
    """
    stores = {path: Store(path) for path in sorted(folder.glob("*.h5")) if not path.name.startswith("emotion_llama")}
    found = {}
    for name, stream in streams.items():
        wanted = registry.build(stream).identity
        for store in stores.values():
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
