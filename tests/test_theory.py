import numpy as np
import pytest

from ntkflow.theory import Certificate, inequality


def test_margin_is_the_smallest_slack_of_each_seed():
    entry = inequality("a ≤ b", "here", np.array([[1.0, 2.0], [3.0, 5.0]]), np.array([2.0, 4.0]))
    assert entry.margin.tolist() == [1.0, -1.0]
    assert entry.holds.tolist() == [True, False]


def test_equality_holds_and_nan_never_does():
    third = np.float32(1) / 3
    assert inequality("", "", third, third).holds
    assert inequality("", "", third * np.float32(1 + 1e-7), third).holds
    assert not inequality("", "", third * np.float32(1 + 1e-5), third).holds
    assert not inequality("", "", np.nan, 1.0).holds


def test_infinity_is_above_every_number():
    assert not inequality("", "", np.inf, 1.0).holds
    assert not inequality("", "", 1.0, -np.inf).holds
    assert inequality("", "", 1.0, np.inf).holds


@pytest.mark.parametrize(("hypothesis", "applies"), [(0.5, True), (2.0, False)])
def test_a_certificate_tells_hypotheses_from_claims(hypothesis, applies):
    certificate = Certificate(
        "theorem",
        hypotheses=(inequality("h", "", hypothesis, 1.0),),
        claims=(inequality("c", "", [[0.0, 1.0], [0.0, 3.0]], [[2.0, 2.0]]),),
    )
    assert bool(certificate.applies) is applies
    assert certificate.holds.tolist() == [True, False]
    rows = certificate.rows()
    assert [row["kind"] for row in rows] == ["hypothesis", "claim"]
    assert rows[1]["margin"] == -1.0
    assert rows[1]["holds"] == 0.5
