"""The documentation of the corpora, generated from the adapters: `docs/corpora.md`."""

from __future__ import annotations

from pipeline.reasons import REASONS

from . import CORPORA, names

EXAMPLE = """
from pipeline.data.corpora import Adapter, Tables
from pipeline.params import Count, Group


class Mine(Adapter):
    title = "Mine"
    licence = "my own"
    homepage = "no page"
    layout = "<speaker>_<emotion>.wav"
    classes = ("happy", "sad")

    class Options(Group):
        most: Count = 100

    def read(self):
        files = sorted(self.root.glob("*.wav"))[: self.options.most]
        fields = [(file, *file.stem.split("_")) for file in files]
        return Tables(
            [
                {"id": f"mine/{file.stem}", "corpus": "mine", "audio": file.name, "speaker": speaker, "emotion": emotion}
                for file, speaker, emotion in fields
            ]
        )
"""

MEDIA = """
## What is read of the media

Every file is read once to its end, and each track is as long as it is found to be: what containers declare is often wrong
(streams without a length, estimates, headers nobody finished). Sound of 3 s in a film of 4 s is 3 s of sound. A file is
`truncated` when it has fewer bytes than it says, or, where it does not say, when all its tracks end well before the length
written into it. A track that cannot be decoded costs that track, and a file that is absent, a pointer, broken, or of a wrong
length costs that file: a line of quarantine names the medium and the reason, and the clip stays with the other. It is lost, and
counts against `quarantine.max_rate`, when nothing of its media is left. How many clips lost their film or their sound is in
the log, in the card and, with whether a stream reads it, in `corpus check`.

Transport streams, ADTS, and MP3 without an index declare nothing: half of one is a shorter file.

Sound is mixed to one channel. Stereo gives the mean of both. Of more channels (by name, or in the order of WAV and FLAC) centre
and surrounds come at -3 dB and the low-frequency effects are left out, as ITU-R BS.775 has it; nothing is scaled to the
loudest possible sum, so speech in the centre arrives 3 dB below its level.

`silent` is judged by the loudest second, not by the whole file, which long pauses make quiet. The default, -70 dBFS, keeps
all 1,080 takes of 18 actors of RAVDESS; the softest, a sad one, has -59. Look at the `silent` lines of a corpus before you
trust the limit: soft voices are rarely spread evenly over emotions. Files of hours are measured piece by piece; at most an
hour of sound is decoded at once.

## Turns that are no targets

What nobody labelled, and what was said in clips that are in quarantine, is still part of its dialogue: such turns are in the
manifest with `target` false and without labels. A line of a table whose label or time cannot be read is one of them too, with
its media where only the label is wrong. They are in no fold, so nobody is trained, selected or scored on them, and no figure
counts them; encoders that read earlier turns (`dialogue`) and every `context` see them. A clip that has some of a corpus'
labels (valence, but none of the emotions asked for) is a target of the tasks it has a label of, and a turn to the others.
"""


def page() -> str:
    """The whole of `docs/corpora.md` as Markdown."""
    from pipeline.data.fetch import sources

    lines = [
        "# Corpora",
        "",
        "Generated from the adapters; `python -m pipeline corpus table > docs/corpora.md` writes it anew.",
        "Put the files under `corpora/NAME` (or set `corpus.root`), look at them with `python -m pipeline corpus check NAME`,",
        "and choose with `python -m pipeline use recipe=NAME` (or once, `dvc exp run -S recipe=NAME`): corpus, encoders,",
        "protocol and task at once. Every recipe is run on a replica of its corpus in the tests.",
        "",
        "Tables and transcripts are UTF-8, or of another encoding that their bytes tell and a line of the log names. Where it",
        "may be one of several, the corpus is refused: `corpus.options.encoding` (e.g. `gb18030`, `cp1251`) says which.",
        "",
        "| name | corpus | classes | licence | how to get it | layout | checked |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in names():
        adapter = CORPORA[name]
        way = (
            "generated"
            if adapter.generated
            else "yours"
            if not adapter.homepage.startswith("http")
            else (f"`corpus fetch {name}`" if sources(name) else "on request")
        )
        home = f"[{adapter.title}]({adapter.homepage})" if adapter.homepage.startswith("http") else adapter.title
        cells = (
            f"[{name}](corpora/{name}.md)",
            home,
            ", ".join(adapter.classes) or "none of its own",
            adapter.licence,
            way,
            adapter.layout,
            adapter.checked or "replica only",
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    lines += [
        "",
        "*Checked* says what of the layout was read from the publisher's own files; everything else is written from the",
        "published descriptions and proved on replicas, so look at `corpus check` before you trust it.",
        "",
        "## A corpus of your own",
        "",
        "A table or a tree of folders needs no code: `python -m pipeline start FOLDER` ([yours](own.md)) writes it, or you do by",
        "hand ([generic](corpora/generic.md)). For what has its own layout, put one file `corpora/mine.py` into a folder of",
        "yours and name that folder in `AFFECTORY_PARTS`; `corpus.name: mine` finds it:",
        "",
        "```python",
        *EXAMPLE.strip().splitlines(),
        "```",
        "",
        "What else an adapter may say (a scale, frame annotations, lines that became no clip) is in",
        "`pipeline/data/corpora/adapter.py`. [joined](corpora/joined.md) puts several corpora together.",
        "",
        *MEDIA.strip().splitlines(),
        "",
        "## Why something is set aside",
        "",
        "One vocabulary for all stages: the column `reason` of `data/*quarantine.parquet`, the data card and the report.",
        "By default a damaged clip or line is set aside and the run goes on, up to `quarantine.max_rate` of the clips;",
        "`python -m pipeline manifest --strict` (or `corpus check NAME --strict`) stops at the first.",
        "",
        "| reason | meaning |",
        "|---|---|",
        *(f"| `{reason}` | {meaning} |" for reason, meaning in REASONS.items()),
    ]
    return "\n".join(lines) + "\n"
