"""Corpora from elsewhere: a data set of Hugging Face or of Kaggle by its name, or any address that fsspec reaches.

Accounts are those the two programs know (`hf auth login`, `~/.kaggle/kaggle.json`); what is public on Hugging Face needs none.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from pipeline.errors import CorpusError
from pipeline.storage.atomic import write_text

from .archive import unpack
from .fetch import Fetched
from .mirror import RECORD, mirror

HUB = "hf://datasets/"


def is_address(name: str) -> bool:
    """Whether it is no name of a corpus, but says where one lies.

    >>> [is_address(name) for name in ("meld", "hf:owner/films", "kaggle:owner/films", "s3://bucket/films")]
    [False, True, True, True]
    """
    return "://" in name or name.startswith(("hf:", "kaggle:"))


def name_folder(address: str) -> Path:
    """Where it is put unless another folder is named.

    >>> name_folder("s3://bucket/a/films/").as_posix(), name_folder("hf:owner/films@v2").as_posix()
    ('corpora/films', 'corpora/films')
    """
    path = "/".join(urlsplit(address)[1:3]) if "://" in address else address.partition(":")[2]
    last = PurePosixPath(path.strip("/")).name.partition("@")[0]
    if last in ("", ".", ".."):
        raise CorpusError(f"{address} names no folder; say where to put it: corpus fetch {address} FOLDER.")
    return Path("corpora") / last


def fetch_address(address: str, folder: str | Path | None = None) -> Fetched:
    """Bring what lies at an address into a folder, going on where an earlier attempt ended.

    Args:
        address: `hf:OWNER/NAME` with perhaps `@REVISION`, `kaggle:OWNER/NAME`, or of fsspec.

    Raises:
        CorpusError: a package or an account is lacking, there is no network, or nothing is there.
    """
    folder = name_folder(address) if folder is None else Path(folder)
    if folder.exists() and not folder.is_dir():
        raise CorpusError(f"{folder} is a file; name another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    if address.startswith(HUB) or (address.startswith("hf:") and "://" not in address):
        told = _fetch_hub(address, folder)
    elif address.startswith("kaggle:"):
        told = _fetch_kaggle(address, folder)
    else:
        count, fresh = mirror(address, folder)
        told = f"{count} files, {fresh} of them new"
    files = tuple(path for path in sorted(folder.rglob("*")) if path.is_file() and not _hidden(path.relative_to(folder)))
    size = sum(path.stat().st_size for path in files) / 1e6
    return Fetched(
        files,
        (
            f"{folder}: {told}; {size:.1f} MB, from {address}",
            "licence: that of whoever gives it away; read it before you use it",
            f"next: python -m pipeline start {folder}, or corpus.root={folder} with its recipe",
        ),
    )


def _hidden(path: Path) -> bool:
    return path.name == RECORD or any(part.startswith(".") for part in path.parts)


def _split(address: str, what: str) -> tuple[str, str | None]:
    name, _, revision = address.partition("@")
    if len([part for part in name.split("/") if part]) != 2 or name.count("/") != 1:
        raise CorpusError(f"{what} is named OWNER/NAME, not {name!r}.")
    return name, revision or None


def _fetch_hub(address: str, folder: Path) -> str:
    name, revision = _split(address.removeprefix(HUB).removeprefix("hf:"), "a data set of Hugging Face")
    from huggingface_hub import constants, snapshot_download

    if constants.is_offline_mode():
        raise CorpusError(f"{address} is on the web, and HF_HUB_OFFLINE is set; unset it, or name a folder as corpus.root.")
    _tell(address, lambda: snapshot_download(name, repo_type="dataset", revision=revision, local_dir=folder))
    return f"data set {name} of Hugging Face" + (f" at {revision}" if revision else "")


def _fetch_kaggle(address: str, folder: Path) -> str:
    name, _ = _split(address.removeprefix("kaggle:"), "a data set of Kaggle")
    if importlib.util.find_spec("kaggle") is None:
        raise CorpusError(f"{address} needs the package kaggle and an account there: pip install kaggle; kaggle.com/settings.")
    archive = folder / f".{name.partition('/')[2]}.zip"
    marker = archive.with_suffix(".unpacked")

    def ask() -> None:
        # The package looks for the account as soon as it is imported.
        api = importlib.import_module("kaggle.api.kaggle_api_extended").KaggleApi()
        api.authenticate()
        api.dataset_download_files(name, path=str(folder), unzip=False, quiet=True)

    if not marker.is_file():
        if not archive.is_file():
            _tell(address, ask)
            (folder / archive.name.removeprefix(".")).replace(archive)
        count = unpack(archive, folder)
        write_text(marker, f"{count} files\n")
        archive.unlink()
    return f"data set {name} of Kaggle"


def _tell(address: str, work: Callable[[], object]) -> None:
    """Whatever those libraries raise is one line; Kaggle's ends the process where there is no account."""
    try:
        work()
    except (Exception, SystemExit) as error:
        said = " ".join(str(error).split())[:300] or type(error).__name__
        if isinstance(error, SystemExit) or "authenticate" in said.lower() or "kaggle.json" in said:
            said = "no account is configured (kaggle.com/settings gives a kaggle.json for ~/.kaggle)"
        raise CorpusError(f"{address}: {said}. What has come is kept; run the same command again to go on.") from error
