"""Intervals and tests: closed forms, enumeration, scipy, and how often simulated cells are covered and called.

Simulated rates are compared with their expectation within four standard errors: of the simulated cells, and of the
resamples that all cells of a call share. One in 16,000 correct rates would lie outside; the seeds are fixed.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from langneurons.errors import UserError
from langneurons.metrics.statistics import (
    MINIMUM_SAMPLES,
    RESAMPLES,
    adjust,
    exchange_test,
    mean_interval,
    share_interval,
    sign_flip_test,
)

SAME = 1e-9
"""Relative difference of numbers that differ only in the order of their sums."""


def rate_error(rate: float, cells: int) -> float:
    """Four standard errors of a rate over independent cells that share their resamples."""
    return 4 * math.sqrt(rate * (1 - rate) * (1 / cells + 1 / RESAMPLES))


def resampling_error(p_value: float, resamples: int = RESAMPLES) -> float:
    """Five standard errors of a p-value from random resamples, and the one that is counted in addition."""
    return 5 * math.sqrt(p_value * (1 - p_value) / resamples) + 1 / resamples


# -- mean_interval -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [MINIMUM_SAMPLES, 23])
def test_interval_is_scipys_at_the_expanded_level(size: int) -> None:
    """The resamples are scipy's, so that the bounds are equal but for rounding."""
    samples = np.random.default_rng(1).exponential(size=(7, size))
    low, high = mean_interval(samples, seed=5, resamples=800)
    tail = stats.norm.cdf(-math.sqrt(size / (size - 1)) * stats.t.ppf(0.975, size - 1))
    expected = stats.bootstrap(
        (samples,), np.mean, axis=1, n_resamples=800, confidence_level=1 - 2 * tail, method="percentile", rng=5
    ).confidence_interval
    np.testing.assert_allclose(low, expected.low, rtol=SAME)
    np.testing.assert_allclose(high, expected.high, rtol=SAME)


def test_interval_of_many_normal_samples_is_students() -> None:
    """A bound is a quantile of 9,999 resampled means: its standard error is 0.027 of theirs, and five are allowed."""
    samples = np.random.default_rng(2).normal(3, 2, size=(20, 400))
    low, high = mean_interval(samples, seed=0)
    error = samples.std(axis=1, ddof=1) / math.sqrt(400)
    half = stats.t.ppf(0.975, 399)
    np.testing.assert_allclose((low - samples.mean(axis=1)) / error, -half, atol=5 * 0.027)
    np.testing.assert_allclose((high - samples.mean(axis=1)) / error, half, atol=5 * 0.027)


def test_interval_follows_shift_and_scale() -> None:
    samples = np.random.default_rng(3).normal(size=(4, 30))
    low, high = mean_interval(samples, seed=0)
    moved_low, moved_high = mean_interval(5 - 3 * samples, seed=0)
    np.testing.assert_allclose(moved_low, 5 - 3 * high, rtol=SAME)
    np.testing.assert_allclose(moved_high, 5 - 3 * low, rtol=SAME)


def test_higher_confidence_gives_a_wider_interval() -> None:
    samples = np.random.default_rng(4).normal(size=(3, 30))
    narrow, wide = (np.diff(mean_interval(samples, 0, confidence), axis=0) for confidence in (0.8, 0.99))
    # Of Student's intervals the widths have the ratio t(0.995) / t(0.9) = 2.1 for 29 degrees of freedom.
    assert (wide > 1.8 * narrow).all()


def test_equal_samples_give_their_value_without_a_warning() -> None:
    samples = np.array([[0.1] * 12, [0.0] * 12, [-7.3] * 12])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        low, high = mean_interval(samples, seed=0)
    assert low.tolist() == high.tolist() == [0.1, 0.0, -7.3]


@pytest.mark.parametrize("size", [MINIMUM_SAMPLES, 40])
def test_interval_holds_the_mean_in_95_percent_of_cells(size: int) -> None:
    """The plain percentile interval would miss the mean of 10 samples in 9 % of the cells."""
    samples = np.random.default_rng(size).normal(1.5, 1, size=(2000, size))
    low, high = mean_interval(samples, seed=0)
    covered = ((low <= 1.5) & (high >= 1.5)).mean()
    assert covered == pytest.approx(0.95, abs=rate_error(0.95, 2000))


def test_interval_of_skewed_samples_covers_nearly_as_often() -> None:
    """The skewness that resamples do not show costs about 1 % with 80 exponential samples; 3 % would be a mistake."""
    samples = np.random.default_rng(6).exponential(size=(2000, 80))
    low, high = mean_interval(samples, seed=0)
    assert ((low <= 1) & (high >= 1)).mean() > 0.95 - 0.03


def test_too_few_samples_get_no_interval() -> None:
    with pytest.raises(UserError, match="9 samples are too few"):
        mean_interval(np.zeros((3, MINIMUM_SAMPLES - 1)), seed=0)


# -- what all have in common -------------------------------------------------------------------------------------------

Statistic = Callable[[np.ndarray], np.ndarray]
STATISTICS: dict[str, Statistic] = {
    "low": lambda samples: mean_interval(samples, 7)[0],
    "high": lambda samples: mean_interval(samples, 7)[1],
    "sign flips": lambda samples: sign_flip_test(samples, 7),
    "exchange": lambda samples: exchange_test(samples.reshape(len(samples), 12, 3), 7),
}


@pytest.mark.parametrize("name", STATISTICS)
def test_a_cell_does_not_depend_on_the_others(name: str) -> None:
    """More cells than one block, of which some are computed alone, in another order and a second time."""
    samples = np.random.default_rng(8).normal(0.2, 1, size=(300, 36))
    everything = STATISTICS[name](samples)
    assert everything.shape == (300,)
    np.testing.assert_array_equal(STATISTICS[name](samples), everything)
    np.testing.assert_allclose(STATISTICS[name](samples[[299, 0, 270]]), everything[[299, 0, 270]], rtol=SAME)
    np.testing.assert_allclose(STATISTICS[name](samples[17:18]), everything[17:18], rtol=SAME)


@pytest.mark.parametrize("name", STATISTICS)
def test_no_cells_give_no_numbers(name: str) -> None:
    assert STATISTICS[name](np.zeros((0, 36))).shape == (0,)


@pytest.mark.parametrize("name", ["low", "sign flips"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_samples_that_are_no_numbers_are_refused(name: str, value: float) -> None:
    samples = np.zeros((2, 36))
    samples[1, 3] = value
    with pytest.raises(UserError, match="not finite"):
        STATISTICS[name](samples)


# -- sign_flip_test ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", range(1, 11))
def test_few_differences_are_flipped_in_all_ways(size: int) -> None:
    """Whole numbers, so that ties are exact."""
    differences = np.random.default_rng(size).integers(-4, 6, size=(5, size)).astype(float)
    flips = np.array(list(itertools.product([1, -1], repeat=size)))
    expected = [(np.abs(flips @ row) >= abs(row.sum())).sum() / 2**size for row in differences]
    assert sign_flip_test(differences, seed=0).tolist() == expected


def test_exact_p_values_are_scipys() -> None:
    """For one sample, scipy's permutation of samples flips signs; the exact test has no error."""
    differences = np.random.default_rng(1).normal(0.3, 1, size=(6, 9))
    expected = stats.permutation_test(
        (differences,), lambda one, axis: one.mean(axis=axis), vectorized=True, permutation_type="samples", axis=1
    ).pvalue
    np.testing.assert_allclose(sign_flip_test(differences, seed=0), expected, rtol=SAME)


def test_random_p_values_are_scipys() -> None:
    """scipy doubles the smaller tail, whose relative variance is twice as large: three times that of one share."""
    differences = np.random.default_rng(2).normal(0.3, 1, size=(4, 30))
    expected = stats.permutation_test(
        (differences,),
        *(lambda one, axis: one.mean(axis=axis),),
        vectorized=True,
        permutation_type="samples",
        axis=1,
        rng=3,
    ).pvalue
    for ours, theirs in zip(sign_flip_test(differences, seed=0), expected, strict=True):
        assert ours == pytest.approx(theirs, abs=math.sqrt(3) * resampling_error(theirs))


def test_differences_of_one_size_give_the_sign_test() -> None:
    """Then the sum counts signs, and the p-value is that of a binomial test with probability one half."""
    few = np.array([[0.3] * 9 + [-0.3] * 3])
    assert sign_flip_test(few, seed=0)[0] == pytest.approx(stats.binomtest(3, 12).pvalue, rel=SAME)
    many = np.array([[0.3] * 26 + [-0.3] * 14])
    expected = stats.binomtest(14, 40).pvalue
    assert sign_flip_test(many, seed=0)[0] == pytest.approx(expected, abs=resampling_error(expected))


def test_the_smallest_p_values() -> None:
    """All differences on one side: 2 of 2**n flips are as extreme; random flips never give less than 1 / 10,000."""
    assert sign_flip_test(np.array([[1.0, 2, 3, 4, 5]]), seed=0)[0] == 2 / 32
    assert sign_flip_test(np.ones((1, 60)), seed=0)[0] == 1 / (RESAMPLES + 1)


@pytest.mark.parametrize("size", [1, 12, 50])
def test_no_difference_has_p_1(size: int) -> None:
    assert sign_flip_test(np.zeros((3, size)), seed=0).tolist() == [1, 1, 1]


def test_no_samples_cannot_be_tested() -> None:
    with pytest.raises(UserError, match="no samples"):
        sign_flip_test(np.zeros((3, 0)), seed=0)


@pytest.mark.parametrize(("size", "heavy"), [(12, False), (40, False), (40, True)])
def test_null_differences_are_called_in_5_percent_of_cells(size: int, heavy: bool) -> None:
    """Symmetric differences, also with heavy tails (Student's t, 2 degrees of freedom).

    Of 12 differences all flips are taken: the p-values are multiples of 2 / 4096, and 5 % is missed by at most one.
    """
    generator = np.random.default_rng(size)
    shape = (4000, size)
    differences = generator.standard_t(2, size=shape) if heavy else generator.normal(size=shape)
    called = (sign_flip_test(differences, seed=0) <= 0.05).mean()
    assert called == pytest.approx(0.05, abs=rate_error(0.05, 4000))


def test_known_effect_is_found_as_often_as_by_students_test() -> None:
    """Half a standard deviation, 40 samples: the power of the t-test follows from its noncentral distribution."""
    critical = stats.t.ppf(0.975, 39)
    power = 1 - stats.nct.cdf(critical, 39, 0.5 * math.sqrt(40)) + stats.nct.cdf(-critical, 39, 0.5 * math.sqrt(40))
    differences = np.random.default_rng(4).normal(0.5, 1, size=(2000, 40))
    assert (sign_flip_test(differences, seed=0) <= 0.05).mean() == pytest.approx(power, abs=rate_error(power, 2000))


# -- exchange_test -----------------------------------------------------------------------------------------------------


def enumerated(members: np.ndarray) -> float:
    """The p-value over all choices of one member per sample, `[sample, member]`."""
    rows = [[value for value in row if not math.isnan(value)] for row in members]
    differences = [[value - (sum(row) - value) / (len(row) - 1) for value in row] for row in rows]
    observed = abs(sum(row[0] for row in differences))
    sums = [abs(sum(choice)) for choice in itertools.product(*differences)]
    return sum(value >= observed - 1e-9 for value in sums) / len(sums)  # sums of small whole numbers, in thirds


def test_exchange_is_the_share_of_all_choices() -> None:
    """Whole numbers with many ties, three draws, of which some are missing: at most 4**6 choices to enumerate."""
    members = np.random.default_rng(5).integers(0, 5, size=(8, 6, 4)).astype(float)
    members[:, 1, 2] = members[:, 4, 1:3] = math.nan
    for p_value, cell in zip(exchange_test(members, seed=0), members, strict=True):
        expected = enumerated(cell)
        assert p_value == pytest.approx(expected, abs=resampling_error(expected))


def test_exchange_with_one_draw_is_a_sign_flip() -> None:
    members = np.random.default_rng(6).normal([0.5, 0], 1, size=(5, 11, 2))
    exact = sign_flip_test(members[:, :, 0] - members[:, :, 1], seed=0)
    for p_value, expected in zip(exchange_test(members, seed=0), exact, strict=True):
        assert p_value == pytest.approx(expected, abs=resampling_error(expected))


def test_exchange_does_not_depend_on_the_order_of_draws() -> None:
    members = np.random.default_rng(7).normal(0.3, 1, size=(5, 20, 4))
    np.testing.assert_array_equal(exchange_test(members[:, :, [0, 3, 1, 2]], 0), exchange_test(members, 0))


def test_equal_members_have_p_1() -> None:
    """0.1 is no sum of powers of two: differences from a mean are not exactly 0."""
    assert exchange_test(np.full((2, 30, 4), 0.1), seed=0).tolist() == [1, 1]


@pytest.mark.parametrize("draws", [2, 5])
def test_null_member_is_called_in_5_percent_of_cells(draws: int) -> None:
    """Log-normal members: flipping signs would call 8 to 9 % with five draws."""
    members = np.random.default_rng(draws).lognormal(size=(2000, 30, 1 + draws))
    called = (exchange_test(members, seed=0) <= 0.05).mean()
    assert called == pytest.approx(0.05, abs=rate_error(0.05, 2000))


def test_rare_null_events_are_not_called_too_often() -> None:
    """Sums of few events take few values, so that fewer than 5 % are called; sign flips call about 31 %."""
    members = (np.random.default_rng(9).random((2000, 20, 11)) < 0.05).astype(float)
    assert (exchange_test(members, seed=0) <= 0.05).mean() <= 0.05 + rate_error(0.05, 2000)
    flipped = sign_flip_test(members[:, :, 0] - members[:, :, 1:].mean(axis=2), seed=0)
    assert (flipped <= 0.05).mean() > 0.25


def test_known_effect_against_draws_is_found() -> None:
    """The difference has the standard deviation sqrt(1 + 1/5): with 40 samples the power is close to the t-test's."""
    effect = 0.5 / math.sqrt(1.2) * math.sqrt(40)
    power = 1 - stats.nct.cdf(stats.t.ppf(0.975, 39), 39, effect)
    members = np.random.default_rng(10).normal([0.5, 0, 0, 0, 0, 0], 1, size=(2000, 40, 6))
    assert (exchange_test(members, seed=0) <= 0.05).mean() == pytest.approx(power, abs=rate_error(power, 2000))


@pytest.mark.parametrize("missing", [np.s_[0, 0, 0], np.s_[1, 2, 1:]])
def test_exchange_needs_an_observed_member_and_another(missing: object) -> None:
    members = np.zeros((2, 12, 3))
    members[missing] = math.nan  # type: ignore[index]
    with pytest.raises(UserError, match="every sample needs"):
        exchange_test(members, seed=0)


# -- adjust ------------------------------------------------------------------------------------------------------------


def test_q_values_by_hand() -> None:
    """Four tests: 4 x 0.01 / 1, 4 x 0.02 / 2, 4 x 0.03 / 3 and 0.5; each at most the next. NaN is no test."""
    adjusted = adjust(np.array([0.5, math.nan, 0.02, 0.01, 0.03]))
    np.testing.assert_allclose(adjusted, [0.5, math.nan, 0.04, 0.04, 0.04], rtol=SAME)


def test_q_value_is_the_smallest_rate_at_which_a_test_is_called() -> None:
    """Benjamini and Hochberg's own rule: the k smallest are called, k the largest number with p <= rate x k / m."""
    p_values = np.random.default_rng(11).random(30) ** 3
    q_values = adjust(p_values)
    for rate in np.linspace(0.01, 0.99, 50):
        passing = np.flatnonzero(np.sort(p_values) <= rate * np.arange(1, 31) / 30)
        assert (q_values <= rate).sum() == (passing[-1] + 1 if len(passing) else 0)


def test_no_tests_have_no_q_values() -> None:
    assert np.isnan(adjust(np.full(3, math.nan))).all()
    assert adjust(np.zeros(0)).shape == (0,)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.inf])
def test_what_is_no_p_value_is_refused(value: float) -> None:
    with pytest.raises(UserError, match="outside 0 to 1"):
        adjust(np.array([0.5, value]))


def test_of_null_tables_5_percent_have_a_call() -> None:
    """Where every effect is null, a false discovery rate of 5 % means that 5 % of tables have any discovery."""
    p_values = sign_flip_test(np.random.default_rng(12).normal(size=(20_000, 20)), seed=0).reshape(1000, 20)
    called = np.mean([(adjust(row) <= 0.05).any() for row in p_values])
    assert called == pytest.approx(0.05, abs=rate_error(0.05, 1000))


# -- share_interval ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("successes", "trials"), [(0, 40), (3, 40), (20, 40), (40, 40), (1, 1)])
def test_wilsons_interval_by_its_formula(successes: int, trials: int) -> None:
    z, share = stats.norm.ppf(0.975), successes / trials
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    # Absolute, since a bound of 0 has no relative error.
    assert share_interval(successes, trials) == pytest.approx((centre - half, centre + half), abs=1e-12)


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (1, 20), (17, 40), (120, 120)])
def test_share_interval_is_scipys(successes: int, trials: int) -> None:
    expected = stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert share_interval(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-12)  # rounding


def test_share_interval_of_means() -> None:
    """Where each trial is a mean, the successes are no whole number; the interval lies between its neighbours'."""
    assert share_interval(3, 40)[0] < share_interval(3.4, 40)[0] < share_interval(4, 40)[0]
    assert share_interval(3, 40)[1] < share_interval(3.4, 40)[1] < share_interval(4, 40)[1]


def test_share_interval_follows_the_confidence() -> None:
    low, high = share_interval(10, 40, confidence=0.8)
    assert share_interval(10, 40)[0] < low < 0.25 < high < share_interval(10, 40)[1]


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (5, 4), (-1, 4)])
def test_what_is_no_share_is_refused(successes: int, trials: int) -> None:
    with pytest.raises(UserError, match="is no share"):
        share_interval(successes, trials)
