"""Stage `adapt@<stream>`: teach an encoder on the training clips, and write what it learned as an adapter."""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline.params import ADAPTERS, Params
from pipeline.storage.atomic import atomic_folder, write_json
from pipeline.storage.clip_cache import digest, root
from pipeline.storage.folder_lock import use_folder
from pipeline.weights import adapters


def adapt(
    params: Params,
    name: str,
    *,
    manifest: str | Path = "data/manifest.parquet",
    folds: str | Path = "data/folds.parquet",
    annotations: str | Path = "data/annotations.parquet",
    out: str | Path | None = None,
) -> Path:
    """Write `models/adapters/<name>`: the adapter, or a note that the encoder stays as it is.

    An adaptation lives in the cache's folder (`adapters/<key>/`), where an interrupted one goes on and a finished one is reused.

    Raises:
        ParamsError: several folds, no truth to learn from, an encoder or an option that this cannot be done with.
        WeightsError: the encoder's weights are not there.
    """
    out = Path(out or f"{ADAPTERS}/{name}")
    asked = params.stream(name).adapt
    if asked is None:
        with atomic_folder(out) as made:
            write_json(made / adapters.RECORD, {"method": None})
        return out
    from .run import Plan, run

    plan = Plan.make(params, name, asked, manifest=manifest, folds=folds, annotations=annotations)
    with use_folder(root() / "adapters" / digest(plan.identity)) as cached:
        if not (cached / "adapter" / adapters.RECORD).is_file():
            write_json(cached / "identity.json", plan.identity)
            run(plan, params, cached)
        with atomic_folder(out) as made:
            shutil.copytree(cached / "adapter", made, dirs_exist_ok=True)
    return out
