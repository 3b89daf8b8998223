"""Films found by name, wherever they lie below the root."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from . import folder


def find_films(root: Path, media: str, problems: list[dict]) -> dict[str, str]:
    """Path by `folder/name`, and by name where no other folder uses it: parts of a corpus may use a name twice.

    Of films that share folder and name the first is taken, the others are told in `problems`.
    """
    found: dict[str, str] = {}
    folders: dict[str, set[str]] = defaultdict(set)
    for path in folder.files(root, folder.VIDEO, problems) if media == "video" else ():
        name = f"{Path(path).parent.name}/{Path(path).stem}"
        if name in found:
            problems.append(folder.problem(None, path, "surplus", f"another film named {name}; {found[name]} is used"))
        else:
            folders[Path(path).stem].add(Path(path).parent.name)
            found[name] = path
    alone = {stem: found[f"{next(iter(places))}/{stem}"] for stem, places in folders.items() if len(places) == 1}
    return alone | found


def film_columns(films: dict[str, str], name: str, media: str, *places: str) -> dict:
    """`video` and `audio` of the film of that name; none when `media` is `none`.

    Args:
        places: folders in which it is looked for first.
    """
    if media == "none":
        return {}
    places = (*places, "video")
    film = next(
        (films[key] for key in (*(f"{place}/{name}" for place in places), name) if key in films), f"{places[0]}/{name}.mp4"
    )
    return {"video": film, "audio": film}
