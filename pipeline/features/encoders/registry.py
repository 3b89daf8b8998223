"""The families of encoders, found in the folders of `pipeline/features/encoders/`, and the extractor of a stream.

A family is a module with a `FAMILY` (or several in `FAMILIES`); a model of a known family is a file
in `conf/stream/`. A module is imported when its family is asked for, so starting up costs nothing.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from ruamel.yaml import YAML

from pipeline import weights
from pipeline.errors import ParamsError, UserError, one_of
from pipeline.params import Stream, parse_stream

from . import audio, imports, text, vision
from .extractor import Extractor
from .family import Family

#: Between these lines of docs/encoders.md the table is generated.
MARKS = ("<!-- encoders: python -m pipeline.features.encoders.registry -->", "<!-- end of encoders -->")


class _Families(Mapping[str, Family]):
    """Families by name; `[name]` imports one module, iteration all of them."""

    def __init__(self) -> None:
        self._known: dict[str, Family] = {}
        self._modules = {
            item.name.rstrip("_"): f"{room.__name__}.{item.name}"
            for room in (audio, imports, text, vision)
            for item in pkgutil.iter_modules(room.__path__)
        }
        self._seen: set[str] = set()

    def _read(self, module: str) -> None:
        if module not in self._seen:
            loaded = importlib.import_module(self._modules[module])
            self._seen.add(module)
            found = (*getattr(loaded, "FAMILIES", ()), *([loaded.FAMILY] if hasattr(loaded, "FAMILY") else []))
            self._known |= {family.name: family for family in found}

    def __getitem__(self, name: str) -> Family:
        if name not in self._known and name in self._modules:
            self._read(name)
        for module in self._modules:
            if name in self._known:
                break
            self._read(module)
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        for module in self._modules:
            self._read(module)
        return iter(sorted(self._known))

    def __len__(self) -> int:
        return sum(1 for _ in self)


FAMILIES: Mapping[str, Family] = _Families()


def build(stream: Stream) -> Extractor:
    """The extractor of a stream. Cheap: configuration is read and weights are hashed, no network is built.

    Raises:
        ParamsError: unknown family, or one that has not this modality, weight source or option.
        WeightsError: the weights are not there or are of another architecture.
    """
    try:
        family = FAMILIES[stream.encoder]
    except KeyError:
        raise one_of("encoder", stream.encoder, FAMILIES) from None
    if stream.modality not in family.modalities:
        raise ParamsError(
            f"encoder {family.name} reads {', '.join(family.modalities)}, not {stream.modality}; "
            "change the stream's modality or encoder."
        )
    source = weights.parse(stream.weights)
    if source.scheme not in family.sources:
        raise ParamsError(
            f"encoder {family.name} loads {', '.join(s + ':' for s in family.sources)} weights, not {stream.weights}."
        )
    if source.random and not stream.architecture:
        raise ParamsError(f"weights {stream.weights} need an architecture; write it under architecture: in the stream.")
    for key, value in stream.options.items():
        if key not in family.options:
            raise one_of(f"option of encoder {family.name}", key, family.options)
        _typed(family, key, value)
    return family.build(stream)


def _typed(family: Family, key: str, value: object) -> None:
    default = family.options[key]
    if default is None or value is None:
        return
    numbers = (int, float) if isinstance(default, float) else int
    kind = {bool: bool, int: numbers, float: numbers, str: str}.get(type(default))
    if kind and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
        raise ParamsError(
            f"option {key} of encoder {family.name} is {value!r}; it takes a {type(default).__name__}, e.g. {default!r}."
        )


def streams(folder: str | Path = "conf/stream") -> dict[str, tuple[Stream, dict[str, str]]]:
    """Every ready-made stream: name → (stream, card).

    A card is read from the comment that opens the file: `title` from its first line, and lines such
    as `# width: 512` and `# licence: MIT`.

    Raises:
        ParamsError: a file is not a stream.
    """
    result = {}
    for path in sorted(Path(folder).glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        result[path.stem] = (parse_stream(YAML(typ="safe", pure=True).load(text), path), _card(text))
    return result


def _card(text: str) -> dict[str, str]:
    card: dict[str, str] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        line = line.removeprefix("#").strip()
        key, colon, value = line.partition(": ")
        if "title" not in card:
            card["title"] = line
        elif colon and key in ("width", "licence"):
            card[key] = value.strip()
    return card


def table(folder: str | Path = "conf/stream") -> str:
    """The encoder table of the documentation, in Markdown: one row per file in `conf/stream/`."""
    head = ("stream", "modality", "encoder", "weights", "width", "rows", "licence", "what it is")
    rows = [head, tuple("---" for _ in head)]
    for name, (stream, card) in streams(folder).items():
        rows.append(
            (
                f"`{name}`",
                stream.modality,
                stream.encoder,
                f"`{stream.weights}`",
                card.get("width", "–"),
                pace(stream),
                card.get("licence", "–"),
                card.get("title", ""),
            )
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def refreshed(page: str, folder: str | Path = "conf/stream") -> str:
    """A page of documentation with the table between its two marks written anew."""
    before, _, rest = page.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    return f"{before}{MARKS[0]}\n{table(folder)}{MARKS[1]}{after}"


def pace(stream: Stream) -> str:
    """How many rows a clip has, in words."""
    if stream.rate:
        return f"{stream.rate:g} /s"
    if stream.pooling != "none":
        return "1"
    words = {"video": "per frame", "face": "per face crop", "text": "per token or text"}
    return words.get(stream.modality, "model's own")


def check(folder: str | Path = "conf/stream") -> dict[str, str]:
    """Streams that cannot be built here, with the reason (weights to be fetched, as a rule)."""
    reasons = {}
    for name, (stream, _) in streams(folder).items():
        try:
            build(stream)
        except UserError as error:
            reasons[name] = str(error)
    return reasons


if __name__ == "__main__":
    from pipeline.storage.atomic import write_text

    PAGE = Path("docs/encoders.md")
    write_text(PAGE, refreshed(PAGE.read_text(encoding="utf-8")))
