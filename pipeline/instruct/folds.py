"""Every fold of the protocol: taught on its training clips, asked about its held-out ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.devices import pick_devices
from pipeline.errors import StoreError
from pipeline.params import Params
from pipeline.serving.composed.items import open_corpus
from pipeline.storage import tables
from pipeline.storage.feature_store import Store
from pipeline.threads import computing
from pipeline.training.data.labels import class_names, fold_numbers, fold_roles, without_test_labels

from . import saved
from .answer import answer, fit_temperatures
from .examples import make_examples, read_records, split_examples
from .learn import Progress, learn
from .settings import Settings
from .tutor import Tutor

FOLDS, TRUTH = Path("data/folds.parquet"), Path("data/truth.parquet")


@dataclass
class Corpus:
    """The clips of a corpus.

    Attributes:
        table: the manifest. records: of the settings' file.
    """

    table: pl.DataFrame
    stores: dict[str, Store]
    records: dict[str, dict[str, Any]]
    classes: tuple[str, ...]
    params: Params

    @classmethod
    def open(cls, settings: Settings, params: Params) -> Corpus:
        """
        Raises:
            StoreError: a stream has no store. CorpusError: see `read_records`.
        """
        table, stores = open_corpus(settings.find_streams(), params)
        records = read_records(settings.records) if settings.records else {}
        return cls(table, stores, records, class_names(table, params), params)

    def fold(self, number: int) -> pl.DataFrame:
        """The clips with their `role`, and without any label of a test clip."""
        roles = fold_roles(tables.read(FOLDS), self.table["id"].to_list(), number)
        return without_test_labels(self.table.with_columns(pl.Series("role", roles)))

    def device(self) -> str:
        """To compute on."""
        return str(pick_devices(self.params.run.device)[0])


def choose_folds(asked: Sequence[int]) -> list[int]:
    """Those asked for, or all.

    Raises:
        StoreError: there is no such fold.
    """
    known = fold_numbers(FOLDS)
    if wrong := [one for one in asked if one not in known]:
        raise StoreError(f"there is no fold {wrong[0]}; known: {known}.")
    return list(asked) or known


def teach(
    settings: Settings, params: Params, number: int, folder: Path, *, fresh: bool = False, on_epoch: Callable | None = None
) -> bool:
    """Teach one fold into a folder; whether there was anything to do.

    Raises:
        ParamsError: the folder holds another run, or no clip has an answer.
    """
    corpus = Corpus.open(settings, params)
    table = corpus.fold(number)
    split = split_examples(table, settings, corpus.classes, corpus.records)
    told = [saved.describe(settings), saved.find_base(settings), number, corpus.classes]
    told += [[vars(one) for one in (*split.train, *split.val)], {name: store.attributes for name, store in corpus.stores.items()}]
    about = hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()
    state = folder.with_name(f"{folder.name}.state")
    if fresh:
        state.unlink(missing_ok=True)
    elif (folder / saved.RECORD).is_file() and saved.read_record(folder)["data"]["about"] == about:
        return False
    known = [*corpus.classes, *(one.answer for one in split.train)]
    with computing(settings.threads):
        tutor = Tutor.open(settings, table, corpus.stores, corpus.classes, corpus.device(), known)
        state.parent.mkdir(parents=True, exist_ok=True)
        progress: Progress = learn(tutor, split, state=state, about=about, on_epoch=on_epoch)
        temperatures = fit_temperatures(tutor, split.val)
    data = {"about": about, "corpus": params.corpus.name, "fold": number, "train": len(split.train), "val": len(split.val)}
    saved.save(folder, tutor, progress, data | {"known": sorted(set(known))}, temperatures)
    state.unlink()
    return True


def open_taught(folder: Path, params: Params) -> tuple[Tutor, Corpus, dict[str, Any]]:
    """What was taught, ready to be asked; test clips have no labels in it.

    Raises:
        WeightsError: it is not there, or of another language model.
    """
    record = saved.read_record(folder)
    settings = saved.read_settings(record, folder)
    corpus = Corpus.open(settings, params)
    classes, known = tuple(record["classes"]), record["data"]["known"]
    tutor = Tutor.open(settings, corpus.fold(record["data"]["fold"]), corpus.stores, classes, corpus.device(), known)
    saved.load(folder, tutor)
    return tutor, corpus, record


def examine(folder: Path, params: Params, *, constrained: bool = False) -> Iterator[dict[str, Any]]:
    """Rows of `answer`, with `fold`, of the held-out clips of the fold that a folder was taught on."""
    tutor, corpus, record = open_taught(folder, params)
    number = record["data"]["fold"]
    held = corpus.fold(number).filter(pl.col("role") == "test")
    known = [name for name in tables.LABELS if name in held.columns]
    truth = tables.read(TRUTH).select("id", *known)
    held = held.drop(known).join(truth, on="id", how="left", maintain_order="left")
    examples = make_examples(held, tutor.settings.tasks, tutor.classes, corpus.records)
    with computing(tutor.settings.threads):
        for row in answer(tutor, examples, record["temperatures"], constrained=constrained):
            yield {"fold": number, **row}
