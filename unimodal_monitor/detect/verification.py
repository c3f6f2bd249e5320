"""What the training steps say about a denoiser."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Verification:
    """What the training steps say about the denoiser.

    `state` is "confirmed", "settled" (`word` is the schedule= that the steps agree with), "refused" (`reason` begins
    with the argument to give), "not verified", or "as given", where nothing was watched. Where nothing can be read, a
    denoiser that the user gives (`is_given`) is used as it is.
    """

    state: str = "as given"
    reason: str = "no training step was watched"
    word: str | None = None
    is_given: bool = False

    @property
    def text(self) -> str:
        """For the log."""
        words = f"{self.state} {self.reason}" if self.state == "confirmed" else f"{self.state} ({self.reason})"
        return f"as given, {words}" if self.is_given and self.state == "not verified" else words

    @property
    def no_gap(self) -> str | None:
        """Why neither the gap nor the copy audit may make a statement; None where they may."""
        return self.text if self.state == "not verified" and not self.is_given else None
