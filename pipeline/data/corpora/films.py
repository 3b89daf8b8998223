"""Films found by name, wherever they lie below the root."""

from __future__ import annotations

from pathlib import Path

from . import folder


def find_films(root: Path, media: str) -> dict[str, str]:
    """Path by name, and by `folder/name`: parts of a corpus may use a name twice."""
    found: dict[str, str] = {}
    for path in folder.files(root, folder.VIDEO) if media == "video" else ():
        found[Path(path).stem] = found[f"{Path(path).parent.name}/{Path(path).stem}"] = path
    return found


def film_columns(films: dict[str, str], name: str, media: str, place: str = "video") -> dict:
    """`video` and `audio` of the film of that name; none when `media` is `none`."""
    if media == "none":
        return {}
    film = films.get(f"{place}/{name}") or films.get(name, f"video/{name}.mp4")
    return {"video": film, "audio": film}
