"""The families of encoders, found by themselves, and the extractor of a stream.

A family is a file in the folders of `pipeline/features/encoders/` or in `$AFFECTORY_PARTS/encoders/` (docs/encoders.md);
a model of a known family is a file in `conf/stream/`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline import weights
from pipeline.code import code_digest
from pipeline.errors import ParamsError, UserError
from pipeline.params import Stream, parse_stream
from pipeline.parts import Parts, read_options
from pipeline.weights import adapters

from . import pooling, sampling, views
from .encoder import Encoder
from .extractor import Axis, Extractor
from .family import Family

FAMILIES = Parts("pipeline.features.encoders", Family, "encoder")
#: What the engine does to every family's clips and rows; its code decides a feature as the family's does.
AROUND = (
    "pipeline.features.engine.reader",
    "pipeline.features.engine.forward",
    "pipeline.features.encoders.readouts",
)
#: Between these lines of docs/encoders.md the table is generated.
MARKS = ("<!-- encoders: python -m pipeline.features.encoders.registry -->", "<!-- end of encoders -->")


def build(stream: Stream, view: str | None = None) -> Extractor:
    """The extractor of a stream. Cheap: configuration is read and weights are hashed, no network is built.

    Args:
        view: of the clips; None encodes them as they are.

    Raises:
        ParamsError: unknown family, or one that has not this modality, weight source, option or view.
        WeightsError: the weights or their adapter are not there or are of another architecture.
    """
    family = FAMILIES.find(stream.encoder)
    if stream.modality not in family.modalities:
        raise ParamsError(
            f"encoder {stream.encoder} reads {', '.join(family.modalities)}, not {stream.modality}; "
            "change the stream's modality or encoder."
        )
    source = weights.parse(stream.weights)
    if source.scheme not in family.sources:
        raise ParamsError(
            f"encoder {stream.encoder} loads {', '.join(s + ':' for s in family.sources)} weights, not {stream.weights}."
        )
    if source.random and not stream.architecture:
        raise ParamsError(f"weights {stream.weights} need an architecture; write it under architecture: in the stream.")
    found = family.build(stream, read_options(family.Options, stream.options, f"{stream.encoder}.options"))
    identity = _complete(found.identity, stream, family)
    axis = _name_axis(found, stream)
    plain = replace(
        found,
        identity=identity,
        layer=stream.layer,
        layered=family.layered,
        pooling=stream.pooling,
        rate=stream.rate,
        threads=stream.threads,
        axis=axis,
    )
    plain = sampling.sample(plain, stream)
    if stream.adapter:
        plain = _adapted(plain, stream, family, Path(stream.adapter).expanduser())
    return views.see(plain, stream, view) if view else plain


def _name_axis(found: Extractor, stream: Stream) -> Axis | None:
    """
    Raises:
        ParamsError: rows would have both layers and places, which no model reads.
    """
    if not pooling.keeps_several(stream.layer):
        return found.axis
    if found.axis == "space":
        raise ParamsError(
            f"encoder {stream.encoder} keeps places apart with these options, and cannot keep layers apart as well; "
            "set layer to an index, last4 or a sum, or read one row per frame."
        )
    return "layer"


def learns(family: type[Family]) -> bool:
    """Whether a family has a network, which an adapter could be of."""
    return not set(family.sources) <= {"none", "file"}


def _adapted(plain: Extractor, stream: Stream, family: type[Family], folder: Path) -> Extractor:
    """The extractor with an adapter, which enters its identity by its bytes.

    Raises:
        ParamsError: the family has no network.
        WeightsError: see `adapters.identify`.
    """
    if not learns(family):
        raise ParamsError(f"encoder {stream.encoder} has no network that an adapter could be of; leave out adapter and adapt.")
    found = adapters.identify(folder, plain.identity["weights"], stream.weights)
    identity = {"adapter": found | {"code": code_digest(adapters.__name__)}}
    return replace(plain, identity=plain.identity | identity, load=partial(_load_adapted, plain.load, folder))


def _load_adapted(load: Callable[..., Encoder], folder: Path, **place: Any) -> Encoder:
    encoder = load(**place)
    adapters.apply(encoder.network, folder)
    return encoder


def _complete(own: dict[str, Any], stream: Stream, family: type[Family]) -> dict[str, Any]:
    """A family's own part of an identity and what all have: the code that decides, and what becomes of the rows."""
    return {
        "family": stream.encoder,
        "code": code_digest(family.__module__, *AROUND),
        "dtype": stream.dtype,
        "layer": stream.model_dump(mode="json")["layer"],
        "pooling": stream.pooling,
        "rate": stream.rate,
        "threads": stream.threads,
        **own,
    }


def read_streams(folder: str | Path = "conf/stream") -> dict[str, tuple[Stream, dict[str, str]]]:
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


def markdown_table(folder: str | Path = "conf/stream") -> str:
    """The encoder table of the documentation, in Markdown: one row per file in `conf/stream/`."""
    head = ("stream", "modality", "encoder", "weights", "width", "rows", "licence", "what it is")
    rows = [head, tuple("---" for _ in head)]
    for name, (stream, card) in read_streams(folder).items():
        rows.append(
            (
                f"`{name}`",
                stream.modality,
                stream.encoder,
                f"`{stream.weights}`",
                card.get("width", "–"),
                describe_rows(stream),
                card.get("licence", "–"),
                card.get("title", ""),
            )
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def refresh_page(page: str, folder: str | Path = "conf/stream") -> str:
    """A page of documentation with the table between its two marks written anew."""
    before, _, rest = page.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    return f"{before}{MARKS[0]}\n{markdown_table(folder)}{MARKS[1]}{after}"


def describe_rows(stream: Stream) -> str:
    """How many rows a clip has, in words."""
    if stream.rate:
        return f"{stream.rate:g} /s"
    if stream.pooling != "none":
        return "1"
    words = {"video": "per frame", "face": "per face crop", "text": "per token or text"}
    return words.get(stream.modality, "model's own")


def find_unbuildable(folder: str | Path = "conf/stream") -> dict[str, str]:
    """Streams that cannot be built here, with the reason (weights to be fetched, as a rule)."""
    reasons = {}
    for name, (stream, _) in read_streams(folder).items():
        try:
            build(stream)
        except UserError as error:
            reasons[name] = str(error)
    return reasons


if __name__ == "__main__":
    from pipeline.storage.atomic import write_text

    PAGE = Path("docs/encoders.md")
    write_text(PAGE, refresh_page(PAGE.read_text(encoding="utf-8")))
