"""The command: studies by name, or one made of `KEY=V1,V2`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.params import Params
from pipeline.progress import track
from pipeline.training.sources import Sources

from .answer import Held, answer, check_sources, plan_study
from .definition import Study, make_study, read_study
from .page import write_study
from .tell import format_text
from .work import count_missing, plan


def run(
    words: Sequence[str],
    params: Params,
    *,
    only_plan: bool = False,
    sources: Sources | None = None,
    held: Held | None = None,
    conf: Path = Path("conf"),
    out: Path = Path("reports"),
) -> Iterator[str]:
    """Ask, and tell each study as text when it is answered.

    Args:
        words: names of studies; those with `=` are overrides of one more study.
        only_plan: tell the settings and the runs that are missing.

    Raises:
        ParamsError: a study, part or key that is not there; see `read_study`, `list_settings`.
        StoreError: see `check_sources`.
    """
    sources, held = sources or Sources(), held or Held()
    studies = read_studies(words, conf)
    check_sources(params, sources, held)
    asked = [plan_study(study, params, conf) for study in studies]  # all mistakes before the first run
    for study, questions in zip(studies, asked, strict=True):
        settings = [one for _, found, _ in questions for one in found]
        if only_plan:
            count, missing = count_missing(settings, sources)
            lines = [f"{study.name}: {count} runs, {missing} to be trained"]
            lines += [f"  {one.name}{f' (skipped: {one.skipped})' if one.skipped else ''}" for one in settings]
            lines += [f"  {question.question} Not asked: {reason}." for question, _, reason in questions if reason]
            yield "\n".join(lines)
            continue
        with track(len(plan(settings, sources)[0]), f"study {study.name}") as advance:
            found = answer(study, params, sources, held, conf=conf, advance=advance)
        yield f"{format_text(found)}\nOpen {write_study(found, params, out)}"


def read_studies(words: Sequence[str], conf: Path = Path("conf")) -> list[Study]:
    """
    Raises:
        ParamsError: a study that is not there, or an override that cannot be read.
    """
    overrides = [word for word in words if "=" in word]
    found = [read_study(word, conf) for word in words if "=" not in word]
    return [*found, *([make_study(overrides)] if overrides else [])]
