"""Reading corpora of acted sentences whose file names say all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import PurePosixPath

from pipeline.errors import CorpusError
from pipeline.reasons import BENIGN

from . import folder
from .adapter import Adapter, Tables


def read_takes(adapter: Adapter, parse_name: Callable[[str], dict]) -> Tables:
    """One clip per name, sound and film joined by it.

    Args:
        parse_name: name without suffix → columns it tells; ValueError when it is no name of the corpus.

    Raises:
        CorpusError: no recording is below the root.
    """
    found: dict[str, dict] = {}
    problems: list[dict] = []
    for path in folder.files(adapter.root, folder.AUDIO + folder.VIDEO, problems):
        stem = PurePosixPath(path).stem
        try:
            columns = parse_name(stem)
        except ValueError as error:
            problems.append(folder.problem(None, path, "name", str(error)))
            continue
        clip = found.setdefault(stem, {"id": f"{adapter.name}/{stem}", "corpus": adapter.name, **columns})
        clip["session"] = clip["speaker"]
        kind = "audio" if path.lower().endswith(folder.AUDIO) else "video"
        if kind in clip:
            # CREMA-D ships the sound twice; the uncompressed copy is the one to use.
            taken, path = sorted((clip[kind], path), key=lambda one: not one.lower().endswith(".wav"))
            problems.append(folder.problem(None, path, "surplus", f"another copy of the take {taken}"))
            clip[kind] = taken
        else:
            clip[kind] = path
    if not found:
        raise CorpusError(f"{adapter.root} holds no recording of {adapter.name}. Expected {adapter.layout}.")
    for problem in problems:
        # A film that leads nowhere is that of a take whose sound may be there.
        if problem["reason"] not in BENIGN and (take := found.get(PurePosixPath(problem["media"]).stem)):
            problem["id"] = take["id"]
    clips = [clip | {"audio": clip.get("audio") or clip.get("video")} for _, clip in sorted(found.items())]
    return Tables(
        clips,
        problems=problems,
        notes={
            "speakers": len({clip["speaker"] for clip in clips}),
            "clips per emotion": dict(sorted(Counter(clip["emotion"] for clip in clips).items())),
        },
    )
