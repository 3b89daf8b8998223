"""How every stage begins: with its parameters, and a line that says which."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from pipeline import params as parameters
from pipeline.errors import UserError
from pipeline.params import Params
from pipeline.parts import check_name

from .checkout import link_from_checkout

log = logging.getLogger(__name__)

#: What a part is called in an error → the package its file is in, and the class it derives from.
KINDS = {
    "fusion": ("pipeline.models.fusion", "Fusion"),
    "temporal.kind": ("pipeline.models.temporal", "Temporal"),
    "context": ("pipeline.models.contexts", "Context"),
    "head": ("pipeline.models.heads", "Head"),
    "loss": ("pipeline.models.losses", "Loss"),
    "curriculum": ("pipeline.training.curricula", "Curriculum"),
    "sampler": ("pipeline.training.samplers", "Sampler"),
}


def begin(path: Path = Path("params.yaml")) -> Params:
    """The parameters of a stage. Says the recipe; in a copy that DVC made, links what only the checkout has.

    Raises:
        ParamsError: see `params.read`; or a part that no file has.
    """
    params = parameters.read(path)
    check_names(params)
    log.info("recipe %s: corpus %s in %s", params.recipe, params.corpus.name, params.corpus.root)
    if path == Path("params.yaml"):
        link_from_checkout(params)
        # An experiment is composed with its -S; it differs by intention.
        if "DVC_STAGE" in os.environ and "DVC_EXP_NAME" not in os.environ:
            warn_of_edits(path)
    return params


def check_names(params: Params) -> None:
    """Refuse names of parts that no file has, before anything is imported that trains.

    Raises:
        ParamsError: see `parts.check_name`.
    """
    training = params.training
    losses = [params.loss, *(phase.loss for phase in training.phases if phase.loss)]
    named = [("fusion", params.fusion.name), ("temporal.kind", params.temporal.kind)]
    named += [("context", params.context.name)] if params.context else []
    named += [("head", head.name) for head in params.heads.values()]
    named += [("loss", term.name) for terms in losses for term in terms.values()]
    named += [("curriculum", training.curriculum.name)] if training.curriculum else []
    named += [("sampler", training.sampler.name)] if training.sampler else []
    for kind, name in dict.fromkeys(named):
        check_name(*KINDS[kind], kind, name)


def warn_of_edits(path: Path, folder: Path = Path("conf")) -> None:
    """Say in one line where the parameters are not what `conf/` composes to: the next experiment begins without them."""
    from pipeline.compose import compose, differences

    if not (folder / "config.yaml").is_file():
        return
    try:
        composed = compose((), folder)
    except UserError as error:
        log.warning("%s is used as it is; conf/ composes to nothing: %s", path, error)
        return
    if found := differences(composed, parameters.load(path)):
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        log.warning(
            "%s is not what conf/ composes to: %s%s. `dvc exp run` and `make params` forget that; "
            "`python -m pipeline use KEY=VALUE` keeps a choice.",
            path,
            ", ".join(found[:5]),
            more,
        )
