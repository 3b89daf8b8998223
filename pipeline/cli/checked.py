"""What `corpus check` found, for people."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from .options import out

#: Damaged clips that are named of each reason; `--json` has them all.
NAMED = 3


def show(found: dict[str, Any]) -> None:
    """A table of what is there, then what was set aside, then whether it will train."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")

    def add(name: str, text: object) -> None:
        grid.add_row(name, escape(str(text)))

    add("corpus", f"{found['corpus']} ({found['licence']})")
    add("clips", f"{found['clips']}" + (f", {found['context']} turns beside them" if found["context"] else ""))
    for name, one in found["modalities"].items():
        lost = f", {one['lost']} lost it" if one["lost"] else ""
        add(name, f"{one['clips']} clips{lost}{'' if one['in_use'] else '; no stream reads it'}")
    for name in ("emotions", "sentiments"):
        if found[name]:
            add(name, ", ".join(f"{label} {count}" for label, count in found[name].items()))
    if found["length"]:
        add("seconds", "{least:.2f} to {most:.2f}, {mean:.2f} on average".format(**found["length"]))
    for name, text in found["notes"].items():
        add("note", f"{name}: {text}")
    for line in (*found["leaks"], *found["similar_text"]):
        add("shared", line)
    add("failed", f"{found['failed']} ({found['rate']:.1%}; {found['allowed']:.1%} may)")
    for reason, count in found["quarantine"].items():
        add(f"  {reason}", count)
        for row in [row for row in found["problems"] if row["reason"] == reason][:NAMED]:
            add("", f"{row['id'] or row['media'] or '–'}: {row['detail']}")
    out.print(grid)
    for line in found["wrong"]:
        out.print(f"[bold red]will not train:[/] {escape(line)}", soft_wrap=True)
    if found["ok"]:
        out.print("[green]ok[/]")
