"""MSP-Podcast: sentences of podcasts, rated by crowds (Lotfian & Busso 2019)."""

from __future__ import annotations

from collections import Counter

from pipeline.errors import CorpusError

from . import folder, table
from .adapter import Adapter, Tables
from .msp import MspOptions, emotion_of, is_kept, read_text

CODES = {
    "A": "angry",
    "S": "sad",
    "H": "happy",
    "U": "surprise",
    "F": "fear",
    "D": "disgust",
    "C": "contempt",
    "N": "neutral",
    "O": "other",
}
#: Spellings of the table in the releases.
TABLES = ("labels_consensus.csv", "labels_concensus.csv")
LAYOUT = "Labels/labels_consensus.csv (or labels_concensus.csv), Audios/*.wav, Transcripts/*.txt"
PARTITIONS = {"train": "train", "development": "val", "validation": "val", "test1": "test"}


class MspPodcast(Adapter):
    """Adapter of MSP-Podcast."""

    title = "MSP-Podcast, natural speech"
    licence = "on request from UT Dallas MSP Lab"
    homepage = "https://ecs.utdallas.edu/research/researchlabs/msp-lab/MSP-Podcast.html"
    layout = LAYOUT
    classes = tuple(CODES.values())
    scale = (1.0, 7.0)

    class Options(MspOptions):
        #: Further test partitions to take in, e.g. [Test2]; they become test clips too.
        also_test: tuple[str, ...] = ()

    options: Options

    def read(self) -> Tables:
        """One clip per sentence of the consensus table."""
        options = self.options
        root = self.root
        places = (folder / name for folder in (root / "Labels", root) for name in TABLES)
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            raise CorpusError(f"{root} holds no {' or '.join(TABLES)}. Expected {LAYOUT}.")
        partitions = PARTITIONS | {name.lower(): "test" for name in options.also_test}
        result = Tables(clips=[])
        others: Counter[str] = Counter()
        elsewhere: Counter[str] = Counter()
        columns = ("FileName", "EmoClass", "EmoAct", "EmoVal", "EmoDom", "SpkrID", "Split_Set")
        for line, row in table.rows_of(path, columns, encoding=options.encoding):
            try:
                emotion = emotion_of(row["EmoClass"], CODES)
                vad = {
                    name: table.rescale(table.number(row[column], *self.scale), *self.scale)
                    for name, column in (("valence", "EmoVal"), ("arousal", "EmoAct"), ("dominance", "EmoDom"))
                }
            except ValueError as error:
                result.problems.append(folder.problem(None, path.name, "row", f"line {line}: {error}"))
                continue
            split = partitions.get(row["Split_Set"].lower())
            if split is None:
                elsewhere[row["Split_Set"]] += 1
                continue
            if not is_kept(emotion, options.classes):
                others[emotion or "no agreement"] += 1
                if options.others == "drop":
                    continue
                emotion = None
            stem = row["FileName"].removesuffix(".wav")
            speaker = row["SpkrID"]
            sheet = f"Transcripts/{stem}.txt"
            inside = folder.inside(root, sheet) and (root / sheet).is_file()
            result.clips.append(
                {
                    "id": f"msp_podcast/{stem}",
                    "corpus": "msp_podcast",
                    "split": split,
                    "audio": f"Audios/{stem}.wav",
                    # Hundreds of people nobody identified are not one speaker.
                    "speaker": None if speaker.lower() in ("", "unknown", "nan") else speaker,
                    "text": read_text(root, sheet if inside else None, options.encoding),
                    "language": "en",
                    "emotion": emotion,
                    **vad,
                }
            )
        result.notes["sentences of no class asked for" + (", left out" if options.others == "drop" else "")] = dict(
            sorted(others.items())
        )
        result.notes["sentences left out, by partition"] = dict(sorted(elsewhere.items()))
        return result
