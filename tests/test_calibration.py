"""Calibration by hand, against scikit-learn, and of probabilities that are calibrated by construction."""

import numpy as np
import pytest

from gradworks import calibration


def sure(n=4000, by=0.4):
    """Labels drawn from probabilities, and the same probabilities made too sure by a temperature."""
    rng = np.random.default_rng(0)
    true = rng.dirichlet(np.ones(3), size=n)
    labels = np.array([rng.choice(3, p=p) for p in true])
    return calibration.scaled(true, by), labels, true


def test_the_temperature_is_found():
    given, labels, true = sure()
    assert calibration.temperature(given, labels) == pytest.approx(1 / 0.4, rel=0.1)
    assert calibration.scaled(given, 1 / 0.4) == pytest.approx(true, abs=1e-6)


def test_calibration_error_by_hand():
    given, labels = np.array([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7]]), np.array([0, 1, 1])
    assert calibration.ece(calibration.bins(given, labels)) == pytest.approx((2 * abs(0.9 - 0.5) + abs(0.7 - 1)) / 3)
    given, labels, _ = sure()
    assert calibration.ece(calibration.bins(given, labels)) > 0.1


def test_the_brier_score_is_that_of_scikit_learn():
    from sklearn.metrics import brier_score_loss

    given, labels, _ = sure(200)
    expected = brier_score_loss(labels, given, labels=[0, 1, 2], scale_by_half=False)
    assert calibration.brier(given, labels) == pytest.approx(expected)


@pytest.mark.parametrize("n", [30, 300])
def test_the_calibration_error_of_calibrated_predictions(n):
    rng, found, chance = np.random.default_rng(1), [], []
    for _ in range(150):
        given = rng.dirichlet(np.ones(3), size=n)
        labels = np.array([rng.choice(3, p=p) for p in given])  # calibrated by construction
        found.append(calibration.ece(calibration.bins(given, labels)))
        chance.append(calibration.ece_chance(given))
    assert np.mean(found) == pytest.approx(np.mean(chance), rel=0.07)
    assert np.mean(found) > (0.15 if n == 30 else 0.05)  # it is not zero: that is the bias


@pytest.mark.parametrize("given", [np.zeros((0, 3)), np.array([[0.2, 0.3, 0.5], [np.nan] * 3])])
def test_calibration_of_nothing_is_none(given):
    labels = np.zeros(len(given), dtype=int)
    assert calibration.temperature(given, labels) is None and calibration.bins(given, labels) is None
    assert calibration.ece(None) is None and calibration.ece_chance(given) is None
    assert calibration.brier(given, labels) is None and calibration.log_loss(given, labels) is None


def test_the_temperature_is_the_best_of_a_fine_grid():
    given, labels, _ = sure(300, by=2.5)
    grid = np.exp(np.linspace(-3, 3, 6001))
    losses = [calibration.log_loss(calibration.scaled(given, by), labels) for by in grid]
    assert calibration.temperature(given, labels) == pytest.approx(grid[int(np.argmin(losses))], rel=2e-3)
