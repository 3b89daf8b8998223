"""`corpus.options` of an adapter: closed to unknown keys, checked by type."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import ParamsError
from pipeline.params import Corpus


class Options(BaseModel):
    """Base of an adapter's options."""

    model_config = ConfigDict(extra="forbid", frozen=True)


T = TypeVar("T", bound=Options)


def parse(corpus: Corpus, kind: type[T]) -> T:
    """The options of `corpus` as a `kind`.

    Raises:
        ParamsError: a key the adapter does not know, or a value it cannot be.
    """
    try:
        return kind.model_validate(corpus.options)
    except ValidationError as error:
        item = error.errors()[0]
        key = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            known = ", ".join(sorted(kind.model_fields)) or "none"
            raise ParamsError(f"corpus.options.{key} is not an option of {corpus.name}. Known: {known}.") from error
        raise ParamsError(f"corpus.options.{key}: {item['msg']} (got {item['input']!r}).") from error
