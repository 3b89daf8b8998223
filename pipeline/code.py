"""Which code decides a result: a digest over a module and all it imports inside this package.

An identity (of a run, a feature, a decoded clip) holds the digest of the code that made it, so that no stale
result is taken for a fresh one, whichever file was edited, in whatever folder.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import io
import json
import os
import sys
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar, cast

Fact = TypeVar("Fact")

PACKAGE = __package__
FOLDER = Path(__file__).resolve().parent

#: Modules (and all below them) that no result depends on: what reads parameters, finds parts and devices by name, says how
#: far a run is, ends it, or moves bytes without looking at them. Parameters are in an identity by value.
EXEMPT = (
    "cli",
    "code",
    "compose",
    "devices",
    "errors",
    "params",
    "parts",
    "progress",
    "ray_cluster",
    "reasons",
    "stop",
    "storage.atomic",
    "storage.clip_cache",
    "storage.folder_lock",
    "storage.hdf5",
    "storage.housekeeping",
    "storage.lmdb_folder",
    "storage.memo",
    "threads",
)


def closure(*modules: str) -> dict[str, Path]:
    """The modules, and those of this package that they import, directly or not, at the top or inside a function.

    What stands under `if TYPE_CHECKING:` decides nothing and is not followed, nor is what `EXEMPT` names. The
    `__init__` of every package on the way belongs to it.

    Args:
        modules: full names, e.g. `pipeline.models.model`.

    Returns:
        Module → file, sorted by name.

    Raises:
        ModuleNotFoundError: a module given is not there.

    >>> list(closure("pipeline.workers.worker"))
    ['pipeline', 'pipeline.workers', 'pipeline.workers.transfer', 'pipeline.workers.worker']
    """
    found: dict[str, Path] = {}
    waiting = list(modules)
    for name in modules:
        if _file(name) is None:
            raise ModuleNotFoundError(f"no module {name!r}")
    while waiting:
        name = waiting.pop()
        if name in found or _exempt(name) or (path := _file(name)) is None:
            continue
        found[name] = path
        waiting += [name.rsplit(".", 1)[0]] if "." in name else []
        waiting += _file_imports(path, path.stat().st_mtime_ns, name)
    _keep()
    return dict(sorted(found.items()))


def code_digest(*modules: str) -> str:
    """sha256 over the closure of `modules`; comments, docstrings and blank lines do not count.

    >>> code_digest("pipeline.code") == code_digest("pipeline.code")
    True
    """
    total = hashlib.sha256()
    for name, path in closure(*modules).items():
        total.update(f"{name}\0{_file_digest(path, path.stat().st_mtime_ns)}\n".encode())
    _keep()
    return total.hexdigest()


def imported(source: str, module: str, *, package: bool = False) -> list[str]:
    """Full names that a module imports; of `from x import y` both `x` and `x.y`, one of which may be no module.

    Args:
        package: `source` is that of an `__init__.py`, to which relative names are relative.

    >>> imported("import os, pipeline.stop\\nfrom . import worker", "pipeline.workers.pool")
    ['pipeline.stop', 'pipeline.workers', 'pipeline.workers.worker']
    """
    names: list[str] = []
    for node in _nodes(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".") if package else module.split(".")[:-1]
            base = base[: len(base) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            names += [origin, *(f"{origin}.{alias.name}" for alias in node.names)]
    return [name for name in names if name.split(".")[0] == PACKAGE]


def significant(source: str) -> str:
    """The source without comments, docstrings, blank lines and trailing blanks.

    >>> significant("x = 1  # why\\n\\ny = 2")
    'x = 1\\ny = 2'
    """
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and _is_docstring(body[0]):
            for row in range(body[0].lineno - 1, body[0].end_lineno or 0):
                lines[row] = ""
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those for the type checker alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from _nodes(node)


def _file(name: str) -> Path | None:
    """The file of a module of this package; None when the name is none. Parts from elsewhere are known once imported."""
    parts = name.split(".")
    if parts[0] != PACKAGE:
        return None
    place = FOLDER.joinpath(*parts[1:])
    for path in (place / "__init__.py", place.with_suffix(".py")):
        if path.is_file() and path != FOLDER.with_suffix(".py"):
            return path
    origin = getattr(sys.modules.get(name), "__file__", None)
    return Path(origin) if origin else None


def _exempt(name: str) -> bool:
    inside = name.removeprefix(f"{PACKAGE}.")
    return any(inside == one or inside.startswith(f"{one}.") for one in EXEMPT)


@functools.cache
def _file_digest(path: Path, modified: int) -> str:
    del modified  # a part of the key alone
    content = path.read_bytes()
    return _ask(f"digest {_sum(content)}", lambda: _sum(significant(_decode(content)).encode()))


@functools.cache
def _file_imports(path: Path, modified: int, module: str) -> list[str]:
    del modified  # a part of the key alone
    content, package = path.read_bytes(), path.name == "__init__.py"
    return _ask(f"imports {module} {package} {_sum(content)}", lambda: imported(_decode(content), module, package=package))


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _decode(content: bytes) -> str:
    return io.TextIOWrapper(io.BytesIO(content), encoding="utf-8").read()  # every end of line as one


def _ask(key: str, find: Callable[[], Fact]) -> Fact:
    known = _known()
    if key not in known:
        known[key] = find()
        _changed.append(key)
    return cast("Fact", known[key])


#: Keys of what was found out in this process and is not kept yet.
_changed: list[str] = []


@functools.cache
def _place() -> Path:
    """Beside Python's own compiled modules; another file for another version of Python, or of this one."""
    own = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    return Path(importlib.util.cache_from_source(__file__)).with_suffix(f".{own}.json")


@functools.cache
def _known() -> dict[str, object]:
    """What the bytes of sources say: parsing a hundred files takes a second, and they seldom change."""
    try:
        return dict(json.loads(_place().read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _keep() -> None:
    if not _changed or sys.dont_write_bytecode:
        return
    _changed.clear()
    partial = _place().with_suffix(f".{os.getpid()}")
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(_known()), encoding="utf-8")
        os.replace(partial, _place())
    except OSError:
        pass  # costs time, nothing else
