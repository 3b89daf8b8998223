"""Walking a corpus folder: sorted, inside the root, safe from loops, pipes and names that are no text."""

from __future__ import annotations

import errno
import os
import stat
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from pipeline.errors import CorpusError
from pipeline.reasons import known


def _suffixes(text: str) -> tuple[str, ...]:
    return tuple(text.split())


#: Suffixes of media files that the decoders read, lower case.
AUDIO = _suffixes(
    ".wav .wave .w64 .rf64 .aif .aiff .aifc .caf .au .snd .sph .nist .voc .flac .alac .ape .tta .tak .wv .shn .mp3 "
    ".mp2 .mpga .m2a .m4a .m4b .m4r .aac .adts .ac3 .eac3 .ec3 .dts .thd .mlp .wma .ogg .oga .opus .spx .mka .weba "
    ".amr .awb .gsm .ra .qoa .mpc"
)
VIDEO = _suffixes(
    ".mp4 .m4v .mov .qt .avi .divx .mkv .mk3d .webm .flv .f4v .wmv .asf .mpg .mpeg .mpe .m1v .m2v .vob .ts .mts "
    ".m2ts .3gp .3gpp .3g2 .ogv .ogm .rm .rmvb .mxf .dv .nut .y4m .mjpeg .mjpg .h264 .264 .h265 .265 .hevc .ivf "
    ".swf .amv"
)
IMAGE = (".png", ".jpg", ".jpeg")
#: Files of no medium are told one by one, up to so many of a suffix.
_NAMED = 20
#: What lies beside media and is none; told by its count.
BESIDE = _suffixes(
    ".txt .csv .tsv .json .jsonl .xml .yaml .yml .md .pdf .doc .docx .rtf .html .htm .xls .xlsx .xlsm .ods .srt "
    ".vtt .ass .lab .textgrid .eaf .trs .lnk .url .ini .db .log .py .m .sh .r .ipynb .sha256 .md5 .parquet .npy "
    ".npz .h5 .pkl .mat"
)


def root_of(root: str | Path, layout: str) -> Path:
    """`root` as a path.

    Raises:
        CorpusError: it is not a folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise CorpusError(f"{root} is not a folder. Put the corpus there ({layout}) or set corpus.root.")
    return root


def files(root: Path, suffixes: tuple[str, ...], problems: list[dict] | None = None) -> Iterator[str]:
    """Paths of the files below `root` with one of `suffixes`, relative, with `/`, in sorted order.

    Hidden files and folders are left out (macOS archives carry `._name.wav` twins). A symlinked
    folder is followed once: a loop ends where it meets a folder already on its way down.

    Args:
        problems: gets a quarantine row for every entry that cannot be what its name says: a link that leads nowhere, a
            pipe, a device, a folder that cannot be listed, a name that is not UTF-8. None of them is opened.
    """
    return (path for path in entries(root, [] if problems is None else problems) if path.lower().endswith(suffixes))


def entries(root: Path, problems: list[dict]) -> Iterator[str]:
    """`files` of any suffix."""
    return _walk(str(root), "", (), problems)


def _walk(folder: str, prefix: str, above: tuple[tuple[int, int], ...], problems: list[dict]) -> Iterator[str]:
    try:
        state = os.stat(folder)
        here = (state.st_dev, state.st_ino)
        if here in above:
            problems.append(problem(None, prefix.rstrip("/"), "surplus", "a link back to a folder above; not followed"))
            return
        with os.scandir(folder) as found:
            inside = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        problems.append(problem(None, prefix.rstrip("/") or ".", "access", f"the folder cannot be listed: {error.strerror}"))
        return
    for entry in inside:
        if entry.name.startswith("."):
            continue
        path = prefix + entry.name
        if not is_text(entry.name):
            problems.append(problem(None, printable(path), "name", "the name is not UTF-8; rename it"))
        elif bad := fault(entry.path):
            problems.append(problem(None, path, *bad))
        elif entry.is_dir():
            empty, before = True, len(problems)
            for below in _walk(entry.path, f"{path}/", (*above, here), problems):
                empty = False
                yield below
            if empty and len(problems) == before and entry.name.lower().endswith(AUDIO + VIDEO):
                problems.append(problem(None, path, "name", "an empty folder under the name of a medium"))
        else:
            yield path


def fault(path: str | os.PathLike[str]) -> tuple[str, str] | None:
    """(reason, detail) why a path is neither a file nor a folder; None when it is one. Opens nothing.

    A pipe would keep its reader waiting for ever, a device may never end.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return ("missing", "a link that leads nowhere") if os.path.islink(path) else ("missing", "is not there")
    except OSError as error:
        lost = error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENAMETOOLONG)
        return "missing" if lost else "access", f"cannot be reached: {error.strerror}"
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return None
    kinds = ((stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
    return "unreadable", f"{next((name for test, name in kinds if test(mode)), 'a device')}, not a file"


def is_text(name: str) -> bool:
    """Whether a name is whole characters: what is not UTF-8 on the disk cannot stand in a table."""
    return name.isascii() or not any("\ud800" <= sign <= "\udfff" for sign in name)


def printable(name: str) -> str:
    """A name with `\\x..` for its bytes that are not UTF-8."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def inside(root: Path, relative: str) -> bool:
    """Whether `relative` stays below `root` by its spelling: not absolute, no way up past the root."""
    plain = relative.replace("\\", "/")
    if os.path.isabs(plain) or "\0" in plain or plain[1:3] == ":/":
        return False
    return os.path.normpath(plain).split("/")[0] != ".."


def locate(root: Path, relative: str) -> str:
    """The path of a medium as the disk spells it: written on Windows, decomposed by macOS, or absolute below the root.

    What is not there under any of these spellings comes back as it is.
    """
    if os.path.isabs(relative):
        for base in (root.absolute(), root.resolve()):
            if Path(relative).is_relative_to(base):
                relative = Path(relative).relative_to(base).as_posix()
    if not inside(root, relative) or os.path.lexists(root / relative):
        return relative
    found: list[str] = []
    for part in relative.replace("\\", "/").split("/"):
        if part in ("", "."):
            continue
        here = root.joinpath(*found)
        if part != ".." and not os.path.lexists(here / part):
            part = _spellings(str(here), _changed(here)).get(unicodedata.normalize("NFC", part), "")
            if not part:
                return relative
        found.append(part)
    return "/".join(found)


def _changed(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=64)
def _spellings(folder: str, changed: int) -> dict[str, str]:
    """Composed name → name as the disk has it."""
    try:
        return {unicodedata.normalize("NFC", name): name for name in os.listdir(folder)}
    except OSError:
        return {}


def problem(id_: str | None, media: str | None, reason: str, detail: str) -> dict:
    """A quarantine row of the stage `manifest`."""
    return {"id": id_, "media": media, "stage": "manifest", "reason": known(reason), "detail": detail}


def name_others(others: dict[str, list[str]]) -> list[dict]:
    """Rows of the files whose suffix is of no medium: each named where they are few and not plainly something else."""
    rows = []
    for suffix, paths in sorted(others.items()):
        what = f"{suffix or 'no suffix'}: not taken for a medium"
        if suffix in BESIDE or len(paths) > _NAMED:
            rows.append(problem(None, paths[0], "surplus", f"{what}; {len(paths)} such files, of which this is the first"))
        else:
            rows += [problem(None, path, "surplus", what) for path in paths]
    return rows
