"""What may be set about the generated corpus."""

from __future__ import annotations

from pydantic import Field, model_validator

from pipeline.params import Group, Positive, Share


class Options(Group):
    """`corpus.options` of the corpus `demo`. The same options give the same bytes.

    Every session has two speakers of its own, so speakers number twice the sessions and a split by
    session is a split by speaker.
    """

    seed: int = Field(default=0, ge=0)
    sessions: int = Field(default=12, ge=1, le=99)
    #: Over all sessions, dealt in turn.
    dialogues: int = Field(default=24, ge=1, le=99)
    #: Clips per dialogue; the two speakers alternate.
    turns: int = Field(default=14, ge=1, le=99)
    #: Width and height of the picture in pixels.
    size: int = Field(default=160, ge=48, le=1024, multiple_of=2)
    #: Frames per second.
    fps: int = Field(default=12, ge=4, le=60)
    #: Samples per second of the sound track.
    rate: int = Field(default=16000, ge=16000, le=48000)
    #: Seconds a clip may last.
    shortest: Positive = 1.5
    longest: Positive = 2.8
    #: Share of clips in which one of face, voice and words shows something else than what is felt.
    ambiguity: Share = 0.96
    #: Shares of clips that lack a modality altogether.
    no_text: Share = 0.03
    no_sound: Share = 0.03
    no_picture: Share = 0.02

    @model_validator(mode="after")
    def _combination(self) -> Options:
        if self.longest < self.shortest:
            raise ValueError(f"longest {self.longest} s is below shortest {self.shortest} s")
        if self.shortest < 0.5 or self.longest > 30:
            raise ValueError("clips last between 0.5 and 30 s; mend shortest and longest")
        if self.no_text + self.no_sound + self.no_picture > 0.5:
            raise ValueError("no_text, no_sound and no_picture together exceed 0.5")
        if self.dialogues < self.sessions:
            raise ValueError(f"{self.dialogues} dialogues cannot fill {self.sessions} sessions")
        if self.rate not in (16000, 22050, 24000, 32000, 44100, 48000):
            raise ValueError(f"rate {self.rate} is not one that AAC knows; take 16000, 24000 or 48000")
        return self

    @property
    def clips(self) -> int:
        return self.dialogues * self.turns
