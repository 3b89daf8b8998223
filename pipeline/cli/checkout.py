"""Where a stage runs: in the checkout, or in a copy of it that DVC made for an experiment (`--queue`, `--temp`).

Such a copy holds what git and DVC know. Corpora, weights and parts of one's own are known to neither; where parameters name
them by a relative path, the copy gets a link to those of the checkout.
"""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pipeline.params import Params
from pipeline.parts import OWN

log = logging.getLogger(__name__)
#: DVC's folder of copies, seen from the checkout.
COPIES = (".dvc", "tmp", "exps")


def copied_from(folder: Path) -> Path | None:
    """The checkout that `folder` is a copy of; None where it is none.

    >>> copied_from(Path("/home/me/affectory/.dvc/tmp/exps/tmp1a2b"))
    PosixPath('/home/me/affectory')
    """
    for parent in folder.parents:
        if parent.parts[-3:] == COPIES:
            return parent.parents[2]
    return None


def link_from_checkout(params: Params, folder: Path | None = None) -> list[Path]:
    """In a copy, link what parameters name and only the checkout has. Returns the links made."""
    folder = folder or Path.cwd()
    checkout = copied_from(folder)
    made: list[Path] = []
    if checkout is None:
        return made
    for named in _paths(params):
        here, there = Path(os.path.normpath(folder / named)), Path(os.path.normpath(checkout / named))
        # A way up may lead out of the copies' folder; there the checkout itself lies, in which nothing is made.
        if here.is_relative_to(checkout.joinpath(*COPIES)) and not os.path.lexists(here) and there.exists():
            here.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):  # another experiment of the queue was quicker
                here.symlink_to(there)
                made.append(here)
    return made


def _paths(params: Params) -> Iterator[str]:
    """Relative paths outside the outputs of stages."""
    weights = [stream.weights for stream in params.streams.values()] + [params.faces.weights, params.asr.weights]
    local = [one.partition(":")[2] for one in weights if one and one.startswith(("local:", "file:"))]
    sources = (stream.source for stream in params.streams.values())
    folds = params.protocol.file if params.protocol.kind == "file" else None
    adapters = [stream.adapter for stream in params.streams.values() if not stream.adapt]
    for path in (params.corpus.root, folds, *local, *adapters, *sources, os.environ.get(OWN)):
        if path and not os.path.isabs(path) and not path.startswith("~") and Path(path).parts[:1] != ("data",):
            yield path


def keep_out_of_git(root: str, folder: Path | None = None) -> str | None:
    """See to it that git ignores a corpus, or features brought along, inside the checkout: DVC adds to an experiment what a
    stage reads and git does not ignore.

    Returns:
        The line put into `.git/info/exclude`; None where nothing was to be done: the folder lies elsewhere, is ignored
        already or tracked on purpose, or there is no git.
    """
    folder = (folder or Path.cwd()).resolve()
    place = Path(os.path.normpath(folder / root))

    def git(*words: str) -> tuple[int, str]:
        done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True)
        return done.returncode, done.stdout.strip()

    try:
        code, top = git("rev-parse", "--show-toplevel")
    except FileNotFoundError:
        return None
    if code or not place.is_relative_to(Path(top)) or place == Path(top):
        return None
    if git("check-ignore", "-q", str(place))[0] == 0 or git("ls-files", "--", str(place))[1]:
        return None
    exclude = folder / git("rev-parse", "--git-path", "info/exclude")[1]
    exclude.parent.mkdir(parents=True, exist_ok=True)
    # Letters that mean something in a pattern are escaped; without a slash at the end a link is meant as well.
    line = "/" + "".join(f"\\{c}" if c in "*?[\\ " else c for c in place.relative_to(top).as_posix())
    with exclude.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")
    log.info("%s is kept out of experiments: .git/info/exclude has the line %s now", root, line)
    return line
