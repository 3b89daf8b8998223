"""Where an engine's time went, and which clips failed."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field, replace

from .reader import Job

log = logging.getLogger(__name__)


@dataclass
class Stats:
    """Where the time went. Seconds; `read` and `write` are what the device waited for them."""

    clips: int = 0
    load: float = 0.0
    read: float = 0.0
    infer: float = 0.0
    write: float = 0.0
    total: float = 0.0
    halvings: int = 0
    #: Why clips failed, by content. Failures are not cached: the next run tries again.
    failures: dict[str, str] = field(default_factory=dict)

    def fail(self, job: Job, reason: str) -> None:
        """Note that a clip failed."""
        log.warning("clip %s: %s", job.id, reason)
        self.failures[job.content] = " ".join(reason.split())

    def report(self) -> dict[str, float]:
        """Plain numbers, with clips per second and shares of the time after loading."""
        spent = max(self.read + self.infer + self.write, 1e-9)
        numbers = {name: value for name, value in asdict(self).items() if name != "failures"}
        return {name: round(value, 3) for name, value in numbers.items()} | {
            "failed": len(self.failures),
            "clips_per_second": round(self.clips / max(self.total - self.load, 1e-9), 3),
            "read_share": round(self.read / spent, 4),
            "infer_share": round(self.infer / spent, 4),
            "write_share": round(self.write / spent, 4),
        }

    def merge(self, other: Stats) -> Stats:
        """The sum of two devices that ran side by side; the longest total."""
        mine = {name: value for name, value in asdict(self).items() if name != "failures"}
        sums = {name: value + getattr(other, name) for name, value in mine.items()}
        longest = {"total": max(self.total, other.total), "load": max(self.load, other.load)}
        return Stats(**sums | longest | {"failures": self.failures | other.failures})

    def follow(self, other: Stats) -> Stats:
        """The sum of two that ran one after the other."""
        return replace(self.merge(other), total=self.total + other.total, load=self.load + other.load)

    def line(self) -> str:
        """One line for the log."""
        numbers = self.report()
        return (
            f"{self.clips} clips, {numbers['clips_per_second']:.1f} clips/s (read {numbers['read_share']:.0%}, "
            f"infer {numbers['infer_share']:.0%}, write {numbers['write_share']:.0%}), {len(self.failures)} failed"
        )
