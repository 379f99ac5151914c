"""Augmentations: exact levels, and draws that depend on seed, epoch and clip alone."""

import numpy as np
import pytest

from audioclf.augment import NOISE_SNR_DB, Augmentation, add_noise


def snr_db(waveform, noisy) -> float:
    noise = noisy.astype(np.float64) - waveform
    return 10 * np.log10(np.mean(waveform.astype(np.float64) ** 2) / np.mean(noise**2))


@pytest.fixture
def waveform():
    return (0.3 * np.sin(np.arange(16_000) / 7)).astype(np.float32)


@pytest.mark.parametrize("level", [-5.0, 0.0, 10.0, 40.0])
def test_signal_to_noise_ratio_is_exact(waveform, level):
    noisy = add_noise(waveform, level, np.random.default_rng(0))
    assert noisy.dtype == np.float32
    assert snr_db(waveform, noisy) == pytest.approx(level, abs=1e-3)


def test_noise_is_white_and_gaussian(waveform):
    from scipy import stats

    noise = add_noise(waveform, 10.0, np.random.default_rng(0)) - waveform
    assert stats.kstest(noise / noise.std(), "norm").pvalue > 0.01
    spectrum = np.abs(np.fft.rfft(noise)) ** 2
    low, high = spectrum[1:4000].mean(), spectrum[4000:-1].mean()
    assert low / high == pytest.approx(1, abs=0.1)


def test_silence_stays_silent():
    np.testing.assert_array_equal(add_noise(np.zeros(100, np.float32), 10.0, np.random.default_rng(0)), np.zeros(100))


def test_levels_are_drawn_evenly(waveform):
    augmentation = Augmentation(seed=0, noise=True)
    levels = [snr_db(waveform, augmentation(waveform, len(waveform), epoch, 0)) for epoch in range(200)]
    low, high = NOISE_SNR_DB
    assert min(levels) >= low - 0.01
    assert max(levels) <= high + 0.01
    assert np.mean(levels) == pytest.approx((low + high) / 2, abs=2)


def test_draws_depend_on_seed_epoch_and_clip_alone(waveform):
    drawn = {}
    for seed in (0, 1):
        for epoch in (1, 2):
            for index in (0, 1):
                augmentation = Augmentation(seed, random_crop=True, noise=True)
                drawn[seed, epoch, index] = augmentation(waveform, 8000, epoch, index)
                np.random.rand(3)  # noqa: NPY002 - the global stream must not matter
                np.testing.assert_array_equal(augmentation(waveform, 8000, epoch, index), drawn[seed, epoch, index])
    assert len({values.tobytes() for values in drawn.values()}) == 8
    assert {len(values) for values in drawn.values()} == {8000}


def test_the_stored_waveform_is_left_alone(waveform):
    before = waveform.copy()
    for augmentation in (Augmentation(0), Augmentation(0, noise=True), Augmentation(0, random_crop=True)):
        changed = augmentation(waveform, 8000, 0, 0)
        changed[:] = 7
    np.testing.assert_array_equal(waveform, before)
