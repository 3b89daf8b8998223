"""CMU-MOSI: sentiment of opinion videos (Zadeh et al. 2016)."""

from __future__ import annotations

from .sentiment import SentimentCorpus


class Mosi(SentimentCorpus):
    """Adapter of CMU-MOSI."""

    title = "CMU-MOSI, sentiment of opinion videos"
    licence = "research only, from CMU MultiComp"
    homepage = "http://multicomp.cs.cmu.edu/resources/cmu-mosi-dataset/"
    scale = (-3.0, 3.0)
    language = "en"
