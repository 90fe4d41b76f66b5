"""Eq. 13-15 against loops over spots, nuclei and directions."""

from __future__ import annotations

from math import atan2, dist, floor, pi

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sslcst.methods.ssl_cst.prior import direction_posterior, direction_prior

PLACES = st.floats(0, 20).map(lambda x: round(x, 2))


def eq_13_14(spot: np.ndarray, centers: np.ndarray, reach: float) -> list[float]:
    directions = set()
    for center in centers:
        if dist(spot, center) <= reach:
            angle = atan2(center[0] - spot[0], center[1] - spot[1]) % (2 * pi)
            directions.add(floor(angle / (2 * pi) * 16) % 16)
    return [1 / len(directions) * (i in directions) if directions else 1 / 16 for i in range(16)]


@given(
    spots=arrays(float, st.tuples(st.integers(1, 6), st.just(2)), elements=PLACES),
    centers=arrays(float, st.tuples(st.integers(1, 8), st.just(2)), elements=PLACES.map(lambda x: x + 0.005)),
    reach=st.floats(0.5, 15),
)
@settings(max_examples=60)
def test_prior_is_shared_by_the_directions_that_hold_a_nucleus(
    spots: np.ndarray, centers: np.ndarray, reach: float
) -> None:
    prior = direction_prior(spots, centers, reach)
    assert prior.dtype == np.float32
    for spot, row in zip(spots, prior, strict=True):
        assert row == pytest.approx(eq_13_14(spot, centers, reach), abs=1e-6)


def test_prior_counts_directions_not_nuclei() -> None:
    """Two nuclei to the right count as the one direction that they lie in."""
    centers = np.array([[0.1, 3.0], [0.2, 5.0], [-4.0, 0.1], [0.0, 99.0]])
    prior = direction_prior(np.zeros((1, 2)), centers, 6.0)[0]
    assert np.flatnonzero(prior).tolist() == [0, 12]
    assert prior[[0, 12]].tolist() == [0.5, 0.5]


def test_prior_knows_nothing_without_a_nucleus_in_reach() -> None:
    assert (direction_prior(np.zeros((1, 2)), np.array([[0.0, 9.0]]), 5.0) == 1 / 16).all()


def test_prior_knows_nothing_on_a_centroid() -> None:
    assert (direction_prior(np.ones((1, 2)), np.ones((1, 2)), 5.0) == 1 / 16).all()


def test_prior_on_a_centroid_does_not_point_to_the_next_nucleus() -> None:
    centers = np.array([[1.0, 1.0], [1.0, 5.0]])
    assert (direction_prior(centers[:1], centers, 6.0) == 1 / 16).all()


@given(
    predicted=arrays(np.float32, (4, 16), elements=st.floats(0, 1, width=32)),
    allowed=arrays(bool, (4, 16)),
)
@settings(max_examples=60)
def test_posterior_is_eq_15(predicted: np.ndarray, allowed: np.ndarray) -> None:
    allowed[:, 3] = True
    predicted = (predicted + np.float32(1e-3)) / (predicted + np.float32(1e-3)).sum(axis=1, keepdims=True)
    prior = (allowed / allowed.sum(axis=1, keepdims=True)).astype(np.float32)
    posterior = direction_posterior(predicted, prior)
    for row, old, new in zip(posterior, predicted.tolist(), prior.tolist(), strict=True):
        ratios = [old[i] * new[i] / (1 / 16) for i in range(16)]
        assert row == pytest.approx([ratio / sum(ratios) for ratio in ratios], abs=1e-6)


def test_a_uniform_prior_changes_nothing() -> None:
    predicted = np.random.default_rng(0).dirichlet(np.ones(16), 5)
    assert direction_posterior(predicted, np.full((5, 16), 1 / 16)) == pytest.approx(predicted)


def test_where_prediction_and_prior_exclude_one_another_the_prior_holds() -> None:
    predicted, prior = np.zeros((1, 16)), np.zeros((1, 16))
    predicted[0, 2] = 1
    prior[0, [5, 6]] = 0.5
    assert np.array_equal(direction_posterior(predicted, prior), prior)
