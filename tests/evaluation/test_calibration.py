"""Temperature scaling finds the temperature of logits whose true probabilities are known."""

import numpy as np
import pytest
import scipy

from mtljax.evaluation.calibration import Logits, calibration_error, fit_temperature, quality


def logits_of(kind, temperature, count=20_000):
    """Logits that are `temperature` times those by which the labels were drawn."""
    rng = np.random.default_rng(0)
    true = rng.normal(size=(count, 4)) * 2
    if kind == "classes":
        chance = scipy.special.softmax(true, -1).cumsum(-1)
        label = (rng.uniform(size=(count, 1)) > chance[:, :-1]).sum(-1)
    else:
        label = (rng.uniform(size=true.shape) < scipy.special.expit(true)).astype(int)
    return Logits((true * temperature).astype(np.float32), label)


@pytest.mark.parametrize("kind", ["classes", "labels"])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_is_recovered(kind, temperature):
    logits = logits_of(kind, temperature)
    found = fit_temperature(logits)
    assert found == pytest.approx(temperature, rel=0.03)
    before, after = quality(logits, 1.0), quality(logits, found)
    assert after.ece < 0.01
    assert after.nll <= before.nll
    if temperature != 1.0:
        assert before.ece > 0.05


def test_the_calibration_error_is_the_mean_gap_of_the_bins():
    confidence = np.asarray([0.91, 0.92, 0.93, 0.94, 0.55, 0.56])
    correct = np.asarray([1, 1, 0, 0, 1, 1])
    # Bins of 1/15: four examples with confidence 3.70 and 2 right, two with 1.11 and 2 right.
    assert calibration_error(confidence, correct) == pytest.approx((1.70 + 0.89) / 6)


def test_extreme_logits_are_finite():
    logits = Logits(np.asarray([[300.0, -300.0], [-300.0, 300.0]]), np.asarray([1, 1]))
    assert np.isfinite(quality(logits, 1.0).nll)
    assert np.isfinite(fit_temperature(logits))


@pytest.mark.parametrize("label", [np.asarray([0, 1]), np.asarray([[1, 0], [0, 1]])])
def test_probabilities_do_not_become_more_extreme_without_an_error(label):
    logits = Logits(np.asarray([[1.0, -1.0], [-1.0, 1.0]]), label)
    assert fit_temperature(logits) == pytest.approx(1, abs=1e-3)
