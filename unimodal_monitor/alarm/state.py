"""AlarmState: what the checks so far amount to."""

from enum import Enum


class AlarmState(Enum):
    """What the checks so far amount to.

    >>> AlarmState("raised") is AlarmState.RAISED
    True
    """

    WARMING_UP = "warming up"
    """Nothing is established yet, such as a rise: there is nothing to lose."""
    NEVER_UNIMODAL = "never unimodal"
    """Nothing was established in many checks; this test may not fit these images."""
    ARMED = "armed"
    """Something is established, such as a rise, and no rule triggered."""
    FADING = "fading"
    """A rule triggered, at too few checks yet."""
    RAISED = "raised"
    """A rule triggered at several checks in a row."""
