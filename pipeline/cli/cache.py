"""`cache …`: look after the cache folder."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import out

app = typer.Typer(no_args_is_help=True, help="Look after the cache folder.")


@app.command()
def stats() -> None:
    """What the cache holds: clips, runs, vectors, memos, their bytes and last use."""
    from pipeline.storage.housekeeping import format_stats

    out.print(format_stats(), soft_wrap=True)


@app.command()
def verify(repair: Annotated[bool, typer.Option(help="Drop what is damaged, to be computed again.")] = False) -> None:
    """Check every cached clip against its checksum."""
    from pipeline.storage.housekeeping import verify_clips

    damaged = verify_clips(repair=repair)
    out.print(f"{damaged} damaged entries{' dropped' if repair and damaged else ''}")
    if damaged and not repair:
        raise typer.Exit(1)


@app.command()
def gc(
    days: Annotated[float, typer.Option(help="Remove what was not used for so many days.")] = 30.0, dry_run: bool = False
) -> None:
    """Free the space of what is no longer used."""
    from pipeline.storage.housekeeping import collect_idle

    for line in collect_idle(days=days, dry_run=dry_run):
        out.print(line)
