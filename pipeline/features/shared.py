"""Streams of the parameters that read the same network as one that is being encoded: their rows come from the same pass.

Each has its own entry in the clip cache, as if it had been encoded alone; its store is its own stage's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack

from pipeline.errors import UserError
from pipeline.params import Stream
from pipeline.storage.clip_cache import ClipCache

from .encoders import registry
from .encoders.readouts import share_pass
from .engine.task import Other
from .plan import Part, Plan


def find_others(
    plan: Plan, part: Part, streams: Mapping[str, Stream], missing: Collection[str], without: Collection[str], stack: ExitStack
) -> Iterator[tuple[str, Other]]:
    """By name, the other streams that lack exactly the same clips and whose rows a pass of `part` gives too.

    Where one lacks more or fewer clips, its batches alone would be others, and so would be the last bits of its rows.

    Args:
        missing: contents that `part` lacks and is about to encode. without: those that a view leaves out, as they failed.
        stack: closes the caches that are opened.
    """
    contents = {job.content for job in plan.jobs}
    for name, stream in streams.items():
        if name == plan.name or not _alike(plan.stream, stream) or part.view not in (None, *stream.views):
            continue
        try:
            extractor = registry.build(stream, part.view)
        except UserError:
            continue  # which its own stage will say
        if not share_pass(part.extractor, extractor):
            continue
        read = {"decode": part.identity["decode"]} if "decode" in part.identity else {}
        if part.view:
            with ClipCache("extract", registry.build(stream).identity | read) as plain:
                if plain.missing(contents) != set(without):
                    continue
        cache = stack.enter_context(ClipCache("extract", extractor.identity | read))
        if cache.missing(contents.difference(without)) == set(missing):
            yield name, Other(stream, extractor, cache)


def _alike(one: Stream, other: Stream) -> bool:
    """Whether it is worth the while to see what the other is made of. Imported features are read, not computed."""
    if one.encoder == "import":
        return False
    return all(getattr(one, key) == getattr(other, key) for key in ("encoder", "weights", "modality", "source", "adapter"))
