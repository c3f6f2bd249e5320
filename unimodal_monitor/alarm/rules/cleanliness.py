"""CleanlinessFell: the features of an image depend more on how it is shown than they did."""

from dataclasses import dataclass, replace

from unimodal_monitor.alarm.rules.base import Finding, Look
from unimodal_monitor.alarm.rules.peak import PeakFell


@dataclass
class CleanlinessFell(PeakFell):
    """The cleanliness of the features of held-out images, 1 - ICR at its best level, has fallen from its best.

    It needs no labels. It may fall for other reasons than memorization, such as the learning rate, and is meant to
    be heard together with another rule. Where the views of an image differ by noise alone, as those of vectors do,
    they are alike at the lowest level whatever the network does, and the rule stays silent.

    Args:
        min_fall: it counts from this fraction of the best, 0 to 1. The default is more than the estimate was seen to be
            biased on real networks by how few the images are for the directions (benchmarks).
        share: of the alarm's significance.

    Raises:
        ValueError: if an argument is out of range.
    """

    min_fall: float = 0.005
    what = "cleanliness of the features"

    def look(self, look: Look, *, error: float) -> Finding:
        """See `Rule`."""
        if look.cleanliness_KN is None:
            return Finding(False, False, False, "the cleanliness of the features was not measured")
        return super().look(replace(look, score_KM=look.cleanliness_KN), error=error)
