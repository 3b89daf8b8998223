"""Drawn faces in AFEW-VA's layout, made by `pipeline.data.demo.films`."""

from __future__ import annotations

from pathlib import Path

from pipeline.data.demo import films

from . import afew_va


class DemoAfewVa(afew_va.AfewVa):
    """Adapter of the generated corpus: read as AFEW-VA is."""

    title = "Generated films of drawn faces in the layout of AFEW-VA"
    licence = "none needed: computed from a seed"
    homepage = "docs/corpora/demo_afew_va.md"
    checked = "all of it, it is made here"
    generated = True

    class Options(films.Options, afew_va.AfewVa.Options):
        """See `pipeline.data.demo.films`, and those of `afew_va`."""

    options: Options

    def prepare(self, out: Path) -> None:
        """Generate the corpus that `corpus.options` asks for into `out`."""
        made = {name: getattr(self.options, name) for name in films.Options.model_fields}
        films.write_films(films.Options(**made), out)
