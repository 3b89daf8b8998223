"""A family of encoders: models that are loaded, fed and read the same way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from pipeline.params import Stream
from pipeline.params.base import Group

from .extractor import Extractor


class Family(ABC):
    """One kind of encoder; its file's name is the `encoder:` of a stream, and in capitals its class' (`pipeline/parts.py`).

    Attributes:
        title: for people.
        modalities: which streams may use it.
        sources: weight schemes it loads (`hf`, `open_clip`, `timm`, `local`, `package`, `random`, `file`, `none`).
        layered: its encoders are `Layered`, and its `load` takes `layers`: streams that read other layers share its passes.
    """

    title: ClassVar[str]
    modalities: ClassVar[tuple[str, ...]]
    sources: ClassVar[tuple[str, ...]]
    layered: ClassVar[bool] = False

    class Options(Group):
        """What the family takes under `options:` of a stream; none unless it says so."""

    @classmethod
    @abstractmethod
    def build(cls, stream: Stream, options: Any) -> Extractor:
        """The extractor of one stream, with what is the family's own in its identity (`registry.build` adds the rest).

        Cheap: it reads configuration and hashes weights, no network is built before `Extractor.load`.

        Args:
            options: the checked `cls.Options`.

        Raises:
            WeightsError: absent weights or another architecture.
            ParamsError: something the stream asks for that the model does not have.
        """
