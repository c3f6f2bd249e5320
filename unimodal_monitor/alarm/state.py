"""AlarmState: what the checks so far amount to, and what to do."""

from enum import Enum


class AlarmState(Enum):
    """What the checks so far amount to.

    >>> AlarmState("onset").rank, AlarmState.ONSET > AlarmState.GENERALIZING
    (2, True)
    """

    WARMING_UP = "warming up"
    """Nothing to compare with yet, or members and held-out images cannot be compared."""
    GENERALIZING = "generalizing"
    """Members are treated like held-out images, as far as these images can tell."""
    ONSET = "onset"
    """The members' advantage grows: memorization begins, copies are rarely seen yet."""
    MEMORIZING = "memorizing"
    """Members are denoised much better than held-out images, and the features confirm it: the alarm."""
    COPYING = "copying"
    """Samples are copies of members."""

    @property
    def rank(self) -> int:
        """0 to 4, in the order of harm."""
        return list(AlarmState).index(self)

    @property
    def advice(self) -> str:
        """What to do, in one sentence."""
        return ADVICE[self]

    def __gt__(self, other: "AlarmState") -> bool:
        return self.rank > other.rank

    def __ge__(self, other: "AlarmState") -> bool:
        return self.rank >= other.rank


ADVICE = {
    AlarmState.WARMING_UP: "Go on.",
    AlarmState.GENERALIZING: "Go on.",
    AlarmState.ONSET: "Keep a checkpoint from now on; more images, augmentation or fewer steps put memorization off.",
    AlarmState.MEMORIZING: "Stop, and take a checkpoint from before the onset; samples will begin to be copies.",
    AlarmState.COPYING: "Stop, and take a checkpoint from before the onset; look at the copies.",
}
