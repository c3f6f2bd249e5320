"""The record of an audit, and its limits against scipy's."""

import json
from dataclasses import replace

import pytest
import torch
from scipy.stats import binomtest

from unimodal_monitor.copies.audit import Audit, Pair, clopper_pearson

PAIRS = (Pair(4, 17, True, 0.5, 6.0), Pair(0, 2, False, 3.0, 5.0))
AUDIT = Audit(300, 3, 3, clopper_pearson(3, 300), PAIRS, 1.5, 300 * 35, samples=torch.zeros(300, 2))


@pytest.mark.parametrize(("hits", "trials"), [(0, 1), (1, 1), (0, 300), (3, 300), (150, 300), (299, 300), (300, 300)])
def test_limits_are_exact(hits, trials):
    """scipy's `proportion_ci`; never without width."""
    low, high = clopper_pearson(hits, trials)
    expected = binomtest(hits, trials).proportion_ci(0.95, method="exact")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert 0 <= low < high <= 1


def test_the_sentence_is_in_plain_words():
    """Singular and plural, to a tenth of a per cent."""
    assert AUDIT.sentence() == "3 of 300 samples are copies (1.0 %, 95 % limits 0.2 to 2.9 %)"
    single = replace(AUDIT, num_copies=1, num_copies_third=1, interval=clopper_pearson(1, 300))
    assert single.sentence().startswith("1 of 300 samples is a copy (0.3 %")
    none = replace(AUDIT, num_copies=0, num_copies_third=0, interval=clopper_pearson(0, 300))
    both = replace(AUDIT, num_copies_third=1)
    assert both.sentence().endswith("; 1 by the plain 1/3 rule, to which duplicated training images are blind")
    assert none.sentence() == "0 of 300 samples are copies (0.0 %, 95 % limits 0.0 to 1.2 %)"


def test_the_record_survives_json():
    """Without the samples, which are no part of it."""
    record = json.loads(json.dumps(AUDIT.to_dict(), allow_nan=False))
    assert "samples" not in record
    assert record["fraction"] == AUDIT.fraction == 0.01
    restored = Audit.from_dict(record)
    assert restored == AUDIT
    assert restored.samples is None


def test_a_pair_is_a_copy_under_a_third():
    """Where both distances are zero, nothing says which of two images was copied."""
    assert [pair.is_copy for pair in PAIRS] == [True, False]
    assert not Pair(0, 0, False, 1.0, 3.0).is_copy
    assert not Pair(0, 0, False, 0.0, 0.0).is_copy
