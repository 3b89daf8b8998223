"""The rooms of the package: each imports only what lies below it, and no two files import each other."""

from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from pipeline import code

ROOT = Path(__file__).resolve().parents[1]
#: Files at the root that every room may import.
SHARED = "code compose devices errors metrics params parts progress ray_cluster reasons stop threads project version"
#: Room → what it may import besides itself; of the files at the root, the lowest rooms take only those named.
LAYERS = {
    "storage": "errors stop",
    "workers": "errors reasons stop threads",
    "weights": "errors storage",
    "models": "errors params parts",
    "data": f"{SHARED} storage workers weights",
    "features": f"{SHARED} storage workers weights",
    "runs": f"{SHARED} storage weights models",
    "adaptation": f"{SHARED} storage workers weights features models training.data",
    "training": f"{SHARED} storage models runs data.names",
    "evaluation": f"{SHARED} storage runs training.data",
    "study": f"{SHARED} storage models runs training evaluation",
    "instruct": f"{SHARED} storage weights features models runs training.data training.answers evaluation serving data.names",
    "app": f"{SHARED} serving evaluation",
    "export": f"{SHARED} storage features models runs evaluation serving",
    "serving": f"{SHARED} storage workers weights data features models runs training",
}


def modules() -> dict[str, set[str]]:
    """Module → modules of the package it imports, also inside functions; a package's name for a sibling's is none."""
    files = sorted((ROOT / "pipeline").rglob("*.py"))
    places = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}
    graph = {}
    for name, path in places.items():
        found = code.imported(path.read_text(encoding="utf-8"), name, package=path.name == "__init__.py")
        graph[name] = {one for one in found if one in places and not f"{name}.".startswith(f"{one}.")}
    return graph


GRAPH = modules()


@pytest.mark.parametrize("room", LAYERS)
def test_a_room_imports_only_what_lies_below_it(room):
    allowed = [f"pipeline.{one}" for one in [room, *LAYERS[room].split()]]
    wrong = [
        f"{module} imports {one}"
        for module, found in GRAPH.items()
        if f"{module}.".startswith(f"pipeline.{room}.")
        for one in found
        if not any(f"{one}.".startswith(f"{place}.") for place in allowed)
    ]
    assert not wrong


def test_files_at_the_root_import_no_room():
    wrong = [
        f"{module} imports {one}"
        for module, found in GRAPH.items()
        if module.removeprefix("pipeline.").split(".")[0] in SHARED.split()
        for one in found
        if one.split(".")[1] not in SHARED.split()
    ]
    assert not wrong


def test_every_file_has_its_place():
    rooms = {name.split(".")[1] for name in GRAPH if "." in name}
    assert rooms == {*LAYERS, *SHARED.split(), "cli", "__main__"}


def test_no_circle_of_files():
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


def test_no_module_is_longer_than_can_be_read_at_once():
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / "pipeline").rglob("*.py")}
    assert [f"{path.relative_to(ROOT)}: {lines} lines" for path, lines in lengths.items() if lines > 250] == []
