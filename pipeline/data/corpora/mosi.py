"""CMU-MOSI: sentiment of opinion videos (Zadeh et al. 2016)."""

from __future__ import annotations

from . import cmu, sentiment
from .adapter import Tables


class Mosi(sentiment.SentimentCorpus):
    """Adapter of CMU-MOSI, as one table or as CMU's package."""

    title = "CMU-MOSI, sentiment of opinion videos"
    licence = "research only, from CMU MultiComp"
    homepage = "http://multicomp.cs.cmu.edu/resources/cmu-mosi-dataset/"
    layout = f"{sentiment.LAYOUT}; or {cmu.LAYOUT}"
    scale = (-3.0, 3.0)
    language = "en"

    def read(self) -> Tables:
        """One clip per row of the table, or per segment of the package where there is no table.

        Raises:
            CorpusError: neither, or one that is damaged.
        """
        if any((self.root / name).is_file() for name in sentiment.TABLES) or not cmu.find_labels(self.root):
            return super().read()
        result = Tables(clips=[])
        for clip in cmu.read_segments(self.root, self.name, self.options.encoding, result.problems, result.notes):
            values = clip.pop("values")
            if self.options.media == "none":
                clip |= dict.fromkeys(("video", "audio", "start", "end"))
            score = values.pop("sentiment", None)
            if score is not None and abs(score) > self.scale[1]:
                detail = f"sentiment {score:g} is not between -3 and 3; the turn stays as context"
                result.problems.append(sentiment.folder.problem(clip["id"], clip["video"], "row", detail))
                score, values = None, {}
            result.clips.append(self.label(clip, score, values, {}))
        result.notes |= self.count(result.clips)
        return result
