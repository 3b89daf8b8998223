"""The documentation of the corpora, generated from the adapters: `docs/corpora.md`."""

from __future__ import annotations

from . import ADAPTERS, names


def page() -> str:
    """The whole of `docs/corpora.md` as Markdown."""
    from ..fetch import sources

    lines = [
        "# Corpora",
        "",
        "Generated from the adapters; `python -m pipeline corpus table > docs/corpora.md` writes it anew.",
        "Choose one with `dvc exp run -S dataset=NAME`, put the files under `corpora/NAME` (or set",
        "`corpus.root`), and look at it with `python -m pipeline corpus check NAME`.",
        "",
        "| name | corpus | classes | licence | how to get it | layout |",
        "|---|---|---|---|---|---|",
    ]
    for name in names():
        adapter = ADAPTERS[name]
        way = "generated" if adapter.prepare else "yours" if name == "generic" else (
            f"`corpus fetch {name}`" if sources(name) else "on request")
        home = f"[{adapter.title}]({adapter.homepage})" if adapter.homepage.startswith("http") else adapter.title
        cells = (f"[{name}](corpora/{name}.md)", home, ", ".join(adapter.classes) or "none of its own",
                 adapter.licence, way, adapter.layout)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
