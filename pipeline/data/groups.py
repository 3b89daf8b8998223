"""Groups of clips that stay together, and how they are parted evenly over the classes."""

from __future__ import annotations

import numpy as np
import polars as pl

from pipeline.errors import CorpusError, ParamsError
from pipeline.storage.tables import SCHEMA


class Groups:
    """Groups of clips that stay together, and how many clips of each class each one holds.

    Args:
        counts: (G, K) clips per group and class.
        index: (N,) group of each clip.
        column: the manifest column, for messages.
    """

    def __init__(self, counts: np.ndarray, index: np.ndarray, column: str) -> None:
        self.counts, self.index, self.column = counts, index, column
        self.count, self.size = len(counts), int(counts.sum())

    def subset(self, kept: np.ndarray) -> Groups:
        return Groups(self.counts[kept], np.empty(0, int), self.column)

    def partition(self, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(G,) part of each group, parts near `shares` of every class (greedy, largest group first).

        Raises:
            CorpusError: there are fewer groups than parts with a share.
        """
        wanted = np.flatnonzero(shares > 0)
        if self.count < len(wanted):
            raise CorpusError(
                f"protocol.group: column {self.column} has {self.count} groups, {len(wanted)} are "
                "needed. Choose another protocol.group or protocol.val_group (`id` goes clip by clip), or fewer folds."
            )
        order = rng.permutation(self.count)
        order = order[np.argsort(-self.counts[order].sum(axis=1), kind="stable")]
        total = np.maximum(self.counts.sum(axis=0), 1)
        target = shares[wanted, None] * total  # (P, K) clips each part should hold
        held = np.zeros_like(target)
        weight = 1 / (target * total)
        part = np.empty(self.count, int)
        for group in order:
            add = self.counts[group]
            # Change of the squared deviation from the target, relative to the target.
            cost = ((2 * (held - target) + add) * add * weight).sum(axis=1)
            best = int(np.argmin(cost))
            held[best] += add
            part[group] = best
        self._fill_empty(part, len(wanted))
        return wanted[part]

    def _fill_empty(self, part: np.ndarray, parts: int) -> None:
        sizes = self.counts.sum(axis=1)
        for empty in sorted(set(range(parts)) - set(part.tolist())):
            members = np.bincount(part, minlength=parts)
            donors = np.flatnonzero(members[part] > 1)
            # From the fullest part, its smallest group.
            fullest = part[donors[np.argmax(np.bincount(part, sizes, parts)[part[donors]])]]
            among = donors[part[donors] == fullest]
            part[among[np.argmin(sizes[among])]] = empty


def group_clips(table: pl.DataFrame, name: str, stratify: bool, key: str = "group") -> Groups:
    if name not in SCHEMA:
        raise ParamsError(f"protocol.{key}: {name} is not a manifest column. Known: {', '.join(SCHEMA)}.")
    column = table[name].cast(pl.String)
    if column.null_count() == table.height:
        raise CorpusError(
            f"protocol.{key}: no clip of this corpus has a {name}. Choose another column (`id` splits clip by clip)."
        )
    labels = table.select(
        # The prefix keeps a clip id from meeting a group of the same name.
        pl.when(column.is_null()).then("clip " + table["id"]).otherwise("group " + column).alias("group"),
        # Of several corpora each is spread over the parts by itself.
        pl.concat_str(pl.col("corpus").fill_null(""), pl.col("emotion").fill_null(""), separator="\0").alias("class"),
    )
    names, index = np.unique(labels["group"].to_numpy(), return_inverse=True)
    classes, label = (
        np.unique(labels["class"].to_numpy(), return_inverse=True) if stratify else (np.zeros(1), np.zeros(table.height, int))
    )
    counts = np.zeros((len(names), len(classes)))
    np.add.at(counts, (index, label), 1)
    return Groups(counts, index, name)
