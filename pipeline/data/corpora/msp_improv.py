"""MSP-IMPROV: dyads improvise towards a target sentence (Busso et al. 2017)."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from pipeline.errors import CorpusError

from . import folder, table
from .adapter import Adapter, Tables
from .msp import MspOptions, emotion_of, is_kept, read_text

CODES = {"A": "angry", "H": "happy", "S": "sad", "N": "neutral", "O": "other"}
LAYOUT = (
    "Evalution.txt, Audio/session{N}/S{SS}{E}/{P,R,S,T}/MSP-IMPROV-*.wav, the same below Video/ (.avi), "
    "transcripts as <name>.txt in any folder"
)
_NAME = re.compile(r"(?:MSP|UTD)-IMPROV-(S\d\d)([AHSN])-([FM])(0[1-6])-([PRST])-([FM]{2})(\d\d)", re.ASCII)
_LINE = re.compile(
    r"((?:UTD|MSP)-IMPROV-[\w-]+)\.(?:avi|wav)\s*;\s*([A-Z])\s*;\s*A:([\d.]+|NaN)\s*;"
    r"\s*V:([\d.]+|NaN)\s*;\s*D:([\d.]+|NaN)\s*;.*",
    re.ASCII,
)


def parse_name(name: str) -> dict:
    """Columns told by a name like `MSP-IMPROV-S01A-F01-P-FM01`.

    Raises:
        ValueError: it is no such name.
    """
    match = _NAME.fullmatch(name)
    if not match:
        raise ValueError("the name is not MSP-IMPROV-S##E-G##-T-GG##")
    sentence, target, sex, session, kind, order, turn = match.groups()
    return {
        "speaker": f"{sex}{session}",
        "session": session,
        "turn": int(turn),
        # Both actors of a scene share it: the speaker's own letter is not part of it.
        "dialogue": f"{session}-{sentence}{target}-{kind}",
        "labels": table.labels(target=CODES[target], scenario=kind, order=order),
    }


class MspImprov(Adapter):
    """Adapter of MSP-IMPROV."""

    title = "MSP-IMPROV, dyadic improvisations"
    licence = "on request from UT Dallas MSP Lab"
    homepage = "https://ecs.utdallas.edu/research/researchlabs/msp-lab/MSP-Improv.html"
    layout = LAYOUT
    classes = tuple(CODES.values())
    scale = (1.0, 5.0)

    class Options(MspOptions):
        pass

    options: Options

    def read(self) -> Tables:
        """One clip per evaluated turn."""
        options = self.options
        root = self.root
        path = next((p for name in ("Evalution.txt", "Evaluation.txt") for p in sorted(root.rglob(name))), None)
        if path is None:
            raise CorpusError(f"{root} holds no Evalution.txt. Expected {LAYOUT}.")
        result = Tables(clips=[])
        media = {Path(p).stem: p for p in folder.files(root, (".wav",), result.problems)}
        films = {Path(p).stem: p for p in folder.files(root, (".avi", ".mp4"))}
        spoken = {Path(p).stem: p for p in folder.files(root, (".txt",))}
        others: Counter[str] = Counter()
        for line, text in enumerate(table.text_of(path, options.encoding).splitlines(), 1):
            # Lines of single raters and blanks stand between the lines of the turns.
            if "-IMPROV-" not in text:
                continue
            match = _LINE.fullmatch(text.strip())
            try:
                if not match:
                    raise ValueError("not a turn")
                name = match[1].replace("UTD-", "MSP-")
                columns = parse_name(name)
                arousal, valence, dominance = (table.rescale(table.number(match[i], *self.scale), *self.scale) for i in (3, 4, 5))
                emotion = emotion_of(match[2], CODES)
            except ValueError as error:
                result.problems.append(folder.problem(None, path.name, "row", f"line {line}: {error}"))
                continue
            if not is_kept(emotion, options.classes):
                others[emotion or "no agreement"] += 1
                if options.others == "drop":
                    continue
                emotion = None
            result.clips.append(
                {
                    "id": f"msp_improv/{name}",
                    "corpus": "msp_improv",
                    "language": "en",
                    **columns,
                    "emotion": emotion,
                    "video": films.get(name),
                    "audio": media.get(name) or films.get(name) or f"Audio/{name}.wav",
                    "text": read_text(root, spoken.get(name), options.encoding),
                    "valence": valence,
                    "arousal": arousal,
                    "dominance": dominance,
                }
            )
        result.notes["turns of no class asked for" + (", left out" if options.others == "drop" else "")] = dict(
            sorted(others.items())
        )
        return result
