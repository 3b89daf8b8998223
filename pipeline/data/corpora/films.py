"""Films found by name, wherever they lie below the root."""

from __future__ import annotations

from pathlib import Path

from . import folder


def find_films(root: Path, media: str, problems: list[dict]) -> dict[str, str]:
    """Path by name, and by `folder/name`: parts of a corpus may use a name twice.

    Of films that share folder and name the first is taken, the others are told in `problems`.
    """
    found: dict[str, str] = {}
    for path in folder.files(root, folder.VIDEO, problems) if media == "video" else ():
        name = f"{Path(path).parent.name}/{Path(path).stem}"
        if name in found:
            problems.append(folder.problem(None, path, "surplus", f"another film named {name}; {found[name]} is used"))
        else:
            found.setdefault(Path(path).stem, path)
            found[name] = path
    return found


def film_columns(films: dict[str, str], name: str, media: str, place: str = "video") -> dict:
    """`video` and `audio` of the film of that name; none when `media` is `none`."""
    if media == "none":
        return {}
    film = films.get(f"{place}/{name}") or films.get(name, f"video/{name}.mp4")
    return {"video": film, "audio": film}
