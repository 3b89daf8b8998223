"""How every stage begins: with its parameters, and a line that says which."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from pipeline import params as parameters
from pipeline.errors import UserError
from pipeline.params import Params

from .checkout import link_from_checkout

log = logging.getLogger(__name__)


def begin(path: Path = Path("params.yaml")) -> Params:
    """The parameters of a stage. Says the recipe; in a copy that DVC made, links what only the checkout has.

    Raises:
        ParamsError: see `params.read`.
    """
    params = parameters.read(path)
    log.info("recipe %s: corpus %s in %s", params.recipe, params.corpus.name, params.corpus.root)
    if path == Path("params.yaml"):
        link_from_checkout(params)
        # An experiment is composed with its -S; it differs by intention.
        if "DVC_STAGE" in os.environ and "DVC_EXP_NAME" not in os.environ:
            warn_of_edits(path)
    return params


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
