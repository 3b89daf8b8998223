"""EMO-DB: ten actors say ten German sentences in seven emotions (Burkhardt et al. 2005)."""

from __future__ import annotations

import re

from . import table
from .acted import read_takes
from .adapter import Adapter, Tables

EMOTIONS = {"W": "anger", "L": "boredom", "E": "disgust", "A": "fear", "F": "happiness", "T": "sadness", "N": "neutral"}
SENTENCES = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}
_NAME = re.compile(r"(03|08|09|10|11|12|13|14|15|16)([ab]\d\d)([WLEAFTN])([a-f])", re.ASCII)


def parse_name(stem: str) -> dict:
    """Columns told by a name like `03a01Fa`.

    Raises:
        ValueError: it is no such name.
    """
    match = _NAME.fullmatch(stem)
    if not match or match[2] not in SENTENCES:
        raise ValueError("the name is not SPEAKER SENTENCE EMOTION VERSION")
    return {
        "speaker": match[1],
        "text": SENTENCES[match[2]],
        "emotion": EMOTIONS[match[3]],
        "language": "de",
        "labels": table.labels(version=match[4]),
    }


class EmoDb(Adapter):
    """Adapter of EMO-DB."""

    title = "EMO-DB, Berlin database of emotional speech"
    licence = "free to use, cite the authors"
    homepage = "http://emodb.bilderbar.info"
    layout = "wav/<speaker><sentence><emotion><version>.wav"
    classes = tuple(EMOTIONS.values())

    def read(self) -> Tables:
        """One clip per file."""
        return read_takes(self, parse_name)
