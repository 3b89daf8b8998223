"""CH-SIMS v1 and v2: sentiment of Chinese film clips, a score per modality (Yu et al. 2020; Liu et al. 2022)."""

from __future__ import annotations

from .sentiment import SentimentCorpus


class ChSims(SentimentCorpus):
    """Adapter of CH-SIMS v1 and v2."""

    title = "CH-SIMS v1 and v2, Chinese multimodal sentiment"
    licence = "research only, from the authors"
    homepage = "https://github.com/thuiar/ch-sims-v2"
    language = "zh"
