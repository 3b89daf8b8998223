"""In an order given."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from pipeline.errors import ParamsError, StoreError, one_of
from pipeline.models.batch import Outputs, Targets
from pipeline.params.base import Flag
from pipeline.training.data.labels import extra_labels

from .base import Roll
from .ordering import Ordered, OrderOptions

WHERE = "training.curriculum.options"


class Preset(Ordered):
    """Clips by a number of their own, the lowest first; a clip without it joins at the end."""

    class Options(OrderOptions):
        """Where the number is.

        Attributes:
            column: of the manifest, a key of its `labels`, or a column of the file at `path`.
            path: CSV or parquet with `id`, a row per clip; null = the manifest.
            descending: the highest first.
        """

        column: str = "curriculum_order"
        path: str | None = None
        descending: Flag = False

    options: Options
    order: Tensor

    @property
    def files(self) -> tuple[Path, ...]:
        """See `Curriculum.files`."""
        return () if self.options.path is None else (Path(self.options.path),)

    def observe(self, roll: Roll) -> None:
        """See `Curriculum.observe`."""
        super().observe(roll)
        values = self._look_up(roll.table) if self.options.path else _read_column(roll.table, self.options.column)
        order = torch.tensor([float("nan") if v is None else v for v in values], dtype=torch.float64)
        if bool(order.isnan().all()):
            place = self.options.path or "the manifest"
            raise StoreError(f"{WHERE}: no training clip has a number {self.options.column!r} in {place}.")
        self.order = (-order if self.options.descending else order).to(roll.emotion.device)

    def _look_up(self, table: pl.DataFrame) -> list[float | None]:
        path, column = Path(self.options.path or ""), self.options.column
        if not path.is_file():
            raise ParamsError(f"{WHERE}.path: {path} is not there.")
        try:
            found = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path, infer_schema_length=None)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise ParamsError(f"{WHERE}.path: {path} cannot be read ({str(error).splitlines()[0]}).") from error
        for name in ("id", column):
            if name not in found.columns:
                raise one_of(f"column of {path}", name, found.columns)
        if not found[column].dtype.is_numeric():
            raise ParamsError(f"{WHERE}.column: {column!r} of {path} is not of numbers.")
        ids = found["id"].cast(pl.String)
        if len(twice := ids.filter(ids.is_duplicated())):
            raise ParamsError(f"{WHERE}.path: {path} has more than one row of {twice[0]!r}.")
        known = dict(zip(ids, found[column].cast(pl.Float64), strict=True))
        return [known.get(clip) for clip in table["id"]]

    def score(self, targets: Targets, last: Outputs | None) -> Tensor:
        """See `Ordered.score`."""
        return self.order


def _read_column(table: pl.DataFrame, column: str) -> list[float | None]:
    if column in table.columns and table[column].dtype.is_numeric():
        return table[column].cast(pl.Float64).to_list()
    values: list[float | None] = []
    known = {name for name in table.columns if table[name].dtype.is_numeric()}
    for labels in extra_labels(table):
        known |= set(labels)
        value = labels.get(column)
        values.append(float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None)
    if column not in known:
        raise one_of(f"column of numbers in {WHERE}.column", column, known)
    return values
