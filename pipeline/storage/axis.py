"""What the N of a store's rows (N, D) counts: hidden layers, each with a meaning of its own, or places of a picture."""

from __future__ import annotations

from pipeline.errors import StoreError

from .feature_store import Store


def axis_of(store: Store) -> str:
    """What N is of rows (N, D): `layer` or `space`; `` of rows (D,).

    Stores of before the attribute `axis` are told by their identity: of an encoder that kept several layers, N is these.

    Raises:
        StoreError: the store does not say.
    """
    if len(store.shape) < 3:
        return ""
    said, identity = store.attributes.get("axis"), store.attributes.get("identity")
    if said is None and isinstance(identity, dict) and identity.get("family", "import") != "import":
        layer = identity.get("layer")
        said = "layer" if layer == "all" or isinstance(layer, list) else "space"
    if said not in ("layer", "space"):
        raise StoreError(
            f"{store.path} does not say whether rows of {store.shape[1:]} are layers or places of a picture. "
            f"Run `dvc repro -f -s extract@{store.path.stem}`."
        )
    return str(said)
