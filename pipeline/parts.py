"""Parts found by themselves: one file, whose name is the name in YAML and, in capitals, that of the class in it.

`fusion: {name: cross_attention}` is class `CrossAttention` in `pipeline/models/fusion/cross_attention.py`, or in
`$AFFECTORY_PARTS/fusion/cross_attention.py`, a folder of one's own. Nothing is listed anywhere else. A part is imported
when it is asked for, so that starting up costs nothing.
"""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import re
import sys
from collections.abc import Iterator, Mapping, MutableSequence
from contextlib import suppress
from importlib.machinery import FileFinder
from pathlib import Path
from typing import Generic, TypeVar, get_args, get_origin

from pydantic import ValidationError

from .errors import ParamsError, one_of
from .params.base import Group

Part = TypeVar("Part")
Options = TypeVar("Options", bound=Group)
#: Environment variable: a folder with parts of one's own, `fusion/mine.py`, `losses/mine.py`, `encoders/mine.py`, …
OWN = "AFFECTORY_PARTS"
#: Package → the folder of one's own that its parts are looked for in.
_added: dict[str, Path] = {}


class Parts(Mapping[str, type[Part]], Generic[Part]):
    """The parts of one kind, by name.

    Args:
        package: where their files are; files of sub-packages count too, other classes' helpers do no harm.
        base: class every part derives from.
        kind: what a part is called in an error, e.g. `fusion`.

    >>> from pipeline.models.registry import FUSIONS
    >>> FUSIONS["gated"].__name__
    'Gated'
    """

    def __init__(self, package: str, base: type[Part], kind: str) -> None:
        self.package, self.base, self.kind = package, base, kind

    def _places(self) -> dict[str, str]:
        """Name → module."""
        package = importlib.import_module(self.package)
        add_own_folder(self.package, package.__path__)
        found = {}
        for item in pkgutil.walk_packages(package.__path__, f"{self.package}."):
            if not item.ispkg:
                found[item.name.rsplit(".", 1)[1].rstrip("_")] = item.name
        return found

    def __getitem__(self, name: str) -> type[Part]:
        module = importlib.import_module(self._places()[name])
        return getattr(module, class_name(name))

    def __iter__(self) -> Iterator[str]:
        """Names of the parts, sorted; reads every file, for helpers stand among them."""
        for name, place in sorted(self._places().items()):
            found = getattr(importlib.import_module(place), class_name(name), None)
            if isinstance(found, type) and issubclass(found, self.base) and found is not self.base:
                yield name

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def find(self, name: str) -> type[Part]:
        """The part of that name.

        Raises:
            ParamsError: there is none, or its file holds no class of that name and kind.
        """
        places = self._places()
        if name not in places:
            raise one_of(self.kind, name, self)
        module = importlib.import_module(places[name])
        found = getattr(module, class_name(name), None)
        if isinstance(found, type) and issubclass(found, self.base) and found is not self.base:
            return found
        if name in own_names(self.package):
            raise ParamsError(f"{module.__file__} holds no class {class_name(name)} that is a {self.base.__name__}.")
        raise one_of(self.kind, name, self)  # a helper's name


def check_name(package: str, base: str, kind: str, name: str) -> None:
    """Refuse a name that no file in a package has, without importing what parts import: files are read.

    Args:
        base: name of the class that the parts derive from. kind: what a part is called in an error.

    Raises:
        ParamsError: no file has the name.
    """
    found = importlib.import_module(package)
    add_own_folder(package, found.__path__)
    files = {}
    for item in pkgutil.walk_packages(found.__path__, f"{package}."):
        if not item.ispkg and isinstance(item.module_finder, FileFinder):
            spec = item.module_finder.find_spec(item.name)
            files[item.name.rsplit(".", 1)[1].rstrip("_")] = Path(str(spec and spec.origin))
    if name in files:
        return
    bases: dict[str, set[str]] = {}
    for path in files.values():
        with suppress(OSError, SyntaxError, ValueError):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            bases |= {one.name: {ast.unparse(b) for b in one.bases} for one in tree.body if isinstance(one, ast.ClassDef)}
    # As often as classes may derive from each other.
    derived = {base}
    for _ in bases:
        derived |= {one for one, above in bases.items() if above & derived}
    raise one_of(kind, name, [one for one in files if class_name(one) in derived - {base}])


def own_folder(package: str) -> Path | None:
    """`$AFFECTORY_PARTS/<last part of package>`; None where the variable is not set."""
    own = os.environ.get(OWN)
    return Path(own).resolve() / package.rsplit(".", 1)[1] if own else None


def own_names(package: str) -> set[str]:
    """Names of the files in it."""
    folder = own_folder(package)
    return {path.stem for path in folder.glob("*.py")} if folder else set()


def add_own_folder(package: str, path: MutableSequence[str]) -> None:
    """Let modules of `$AFFECTORY_PARTS/<last part of package>` be imported as the package's own.

    The `__init__` of a package that holds parts calls it with its name and `__path__`: a process that unpickles
    something made of a part then finds its module, without having asked for the part before.
    """
    folder, before = own_folder(package), _added.get(package)
    if before is not None and before != folder:  # the variable has changed: what came from the other folder is forgotten
        path[:] = [one for one in path if one != str(before)]
        for name, module in list(sys.modules.items()):
            if name.startswith(f"{package}.") and str(getattr(module, "__file__", "")).startswith(f"{before}/"):
                del sys.modules[name]
        del _added[package]
    if folder is not None and folder.is_dir() and str(folder) not in path:
        path.append(str(folder))
        _added[package] = folder
        importlib.invalidate_caches()


def class_name(name: str) -> str:
    """`cross_attention` → `CrossAttention`.

    >>> class_name("emo_db")
    'EmoDb'
    """
    return "".join(word.capitalize() for word in name.split("_"))


def read_options(model: type[Options], values: object, where: str) -> Options:
    """Options given as plain values, checked.

    Args:
        where: the key they stand under, e.g. `fusion.options`.

    Raises:
        ParamsError: a key that is not known, or a value it cannot be; one line that names it.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        item = error.errors()[0]
        key = ".".join([where, *(str(part) for part in item["loc"])])
        if item["type"] == "extra_forbidden":
            place, _, name = key.rpartition(".")
            raise one_of(f"parameter of {place}", name, _list_fields(model, item["loc"][:-1])) from error
        if item["type"] == "literal_error" and isinstance(item["input"], str):
            raise one_of(key, item["input"], re.findall(r"'([^']*)'", item["ctx"]["expected"])) from error
        given = "" if isinstance(item["input"], dict) else f" (got {item['input']!r})"
        raise ParamsError(f"{key}: {item['msg'].removeprefix('Value error, ')}{given}.") from error


def _list_fields(model: type[Group], place: tuple[int | str, ...]) -> list[str]:
    """Names of the parameters of a group, or of one within it, also where groups stand under names of the user's."""
    steps = iter(place)
    for part in steps:
        inner = model.model_fields.get(str(part))
        found = [one for one in (inner.annotation, *get_args(inner.annotation)) if isinstance(one, type)] if inner else []
        groups = [one for one in found if issubclass(one, Group)]
        if not groups:
            return []
        model = groups[0]
        if inner is not None and get_origin(inner.annotation) is dict:
            next(steps, None)
    return list(model.model_fields)
