"""Word vectors from a local text file (GloVe, fastText, word2vec): one row per known word.

The file is read once into the user's cache folder, as sorted word hashes and one matrix, which every
worker process maps into memory instead of parsing gigabytes.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import xxhash

from pipeline import weights
from pipeline.errors import ParamsError, WeightsError
from pipeline.features.encoders.encoder import Computed
from pipeline.features.encoders.extractor import Clip, Extractor, Missing, Prepared
from pipeline.features.encoders.family import Family
from pipeline.params import Stream
from pipeline.params.base import Flag, Group
from pipeline.storage import clip_cache
from pipeline.storage.atomic import atomic_file
from pipeline.storage.folder_lock import use_folder

from . import tokens

#: Words, the parts of English contractions (do n't, it 's) as treebank vocabularies have them, and punctuation.
WORD = re.compile(r"\w+(?=n['’]t\b)|n['’]t\b|['’](?:s|re|ve|ll|d|m)\b|\w+|[^\w\s]", re.IGNORECASE)


@dataclass(frozen=True)
class Prepare:
    """Clip → `values` (T, D) float32, the vectors of the words the file knows."""

    folder: str
    lower: bool

    def __call__(self, clip: Clip) -> Prepared:
        text = tokens.transcript(clip)
        found = [(match.group().replace("’", "'"), match.span()) for match in WORD.finditer(text)]
        hashes, vectors = _vectors(self.folder)
        wanted = np.array([_hash(word.lower() if self.lower else word) for word, _ in found], np.uint64)
        places = np.minimum(np.searchsorted(hashes, wanted), len(hashes) - 1)
        known = hashes[places] == wanted
        if not known.any():
            raise Missing("no word of the transcript is in the vocabulary")
        spans = np.array([span for _, span in found], np.float64)[known]
        times = (spans / len(text) * tokens.seconds(clip)).astype(np.float32)
        return Prepared({"values": np.array(vectors[places[known]], np.float32)}, times, cost=float(known.sum()))


def _hash(word: str) -> int:
    return xxhash.xxh3_64_intdigest(word.encode())


@lru_cache(maxsize=2)
def _vectors(folder: str) -> tuple[np.ndarray, np.ndarray]:
    return np.load(Path(folder) / "hashes.npy"), np.load(Path(folder) / "vectors.npy", mmap_mode="r")


def compile_vectors(path: Path, sha256: str) -> Path:
    """Folder with `hashes.npy` (V,) uint64 sorted and `vectors.npy` (V, D) float32, made when it is not there.

    Raises:
        WeightsError: the file is no text of words and vectors.
    """
    folder = clip_cache.root() / "vectors" / sha256
    if not (folder / "hashes.npy").is_file():
        words, rows = [], []
        for word, vector in parse_vectors(path):
            words.append(_hash(word))
            rows.append(vector)
        if not rows:
            raise WeightsError(f"{path} holds no word vectors.")
        # The first of two equal words counts, as these files list frequent words first.
        hashes, first = np.unique(np.array(words, np.uint64), return_index=True)
        for name, array in (("vectors.npy", np.stack(rows)[first]), ("hashes.npy", hashes)):
            with atomic_file(folder / name) as temporary, open(temporary, "wb") as file:
                np.save(file, array)
    with use_folder(folder):  # `cache gc` goes by the last use
        return folder


def parse_vectors(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Words and (D,) float32 vectors of a text file, plain or gzip, with or without word2vec's first line.

    Raises:
        WeightsError: a line does not hold a word and as many numbers as the first.
    """
    width = None
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                parts = line.rstrip().split(" ")
                if number == 1 and len(parts) == 2 and all(part.isdigit() for part in parts):
                    width = int(parts[1])
                    continue
                width = width or len(parts) - 1
                # Some files hold words with spaces in them: the numbers are counted from the right.
                word, numbers = " ".join(parts[:-width]), parts[-width:]
                vector = np.array(numbers, np.float32) if width > 1 and len(numbers) == width and word else None
                if vector is None:
                    raise WeightsError(f"{path}, line {number}: not a word and {width} numbers; give a GloVe text file.")
                yield word, vector
    except (UnicodeDecodeError, ValueError, OSError) as error:
        raise WeightsError(f"{path} is no text file of word vectors ({' '.join(str(error).split())[:100]}).") from error


class Glove(Family):
    """Word vectors; see the module."""

    title = "Word vectors from a local file (GloVe, fastText)"
    modalities = ("text",)
    sources = ("file",)

    class Options(Group):
        """Of a stream."""

        #: Look words up in lower case, as the uncased GloVe files want.
        lower: Flag = True

    @classmethod
    def build(cls, stream: Stream, options: Options) -> Extractor:
        """The extractor of one stream.

        Raises:
            WeightsError: the file is absent or of another format.
            ParamsError: a layer.
        """
        if stream.layer != -1:
            raise ParamsError("word vectors have no layers; leave layer at -1.")
        path = weights.locate(stream.weights)
        if path.is_dir():
            raise WeightsError(f"{path} is a folder; name the text file of vectors in it.")
        sha256 = weights.sha256(path)
        folder = compile_vectors(path, sha256)
        identity = {
            "weights": {"source": f"file:{path.name}", "sha256": sha256},
            "preprocessing": {"lower": options.lower, "words": WORD.pattern},
        }
        hashes, vectors = _vectors(str(folder))
        notes: dict[str, object] = {"words": len(hashes), "width": int(vectors.shape[1])}
        return Extractor(identity, Prepare(str(folder), options.lower), Computed, budget=1e6, notes=notes)
