"""CMU-MOSEI: sentiment of opinion videos, larger (Zadeh et al. 2018)."""

from __future__ import annotations

from .sentiment import SentimentCorpus


class Mosei(SentimentCorpus):
    """Adapter of CMU-MOSEI."""

    title = "CMU-MOSEI, sentiment of opinion videos"
    licence = "research only, from CMU MultiComp"
    homepage = "http://multicomp.cs.cmu.edu/resources/cmu-mosei-dataset/"
    scale = (-3.0, 3.0)
    language = "en"
