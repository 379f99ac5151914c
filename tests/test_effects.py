"""The physics of the effects: levels, durations, spectra and decays, each against what they are by definition."""

import numpy as np
import pytest
import scipy.signal
import torch
import torchaudio
from scipy import stats

from audioclf import effects

RATE = 16_000


def level_db(waveform) -> float:
    return 10 * np.log10(np.mean(np.square(waveform, dtype=np.float64)))


def gains_db(change, num_samples=2 * RATE):
    """Frequencies in Hz and what `change` does to each, by its answer to an impulse."""
    impulse = np.zeros(num_samples, np.float32)
    impulse[num_samples // 2] = 1
    answer = change(impulse).astype(np.float64)
    with np.errstate(divide="ignore"):
        return np.fft.rfftfreq(num_samples, 1 / RATE), 20 * np.log10(np.abs(np.fft.rfft(answer)))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def tone():
    return (0.3 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)).astype(np.float32)


@pytest.mark.parametrize("gain_db", [-20.0, -3.0, 0.0, 6.0, 40.0])
def test_gain_is_exact_and_clips_nothing(tone, gain_db):
    louder = effects.gain(tone, gain_db)
    assert level_db(louder) - level_db(tone) == pytest.approx(gain_db, abs=1e-6)
    assert np.abs(louder).max() == pytest.approx(0.3 * 10 ** (gain_db / 20), rel=1e-6)
    assert louder.dtype == np.float32


@pytest.mark.parametrize("seconds", [0.1, -0.1, 0.0, 0.5, 3.21])
def test_shift_is_a_circle(rng, seconds):
    sound = rng.standard_normal(RATE, dtype=np.float32)
    shifted = effects.shift(sound, RATE, seconds)
    for sample in (0, 5, 15_999):
        assert shifted[(sample + round(seconds * RATE)) % RATE] == sound[sample]
    assert sorted(shifted) == sorted(sound)


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 10.0, 40.0])
@pytest.mark.parametrize("kind", ["white", "coloured", "tone"])
def test_signal_to_noise_ratio_is_exact(tone, rng, snr_db, kind):
    noise = {
        "white": effects.white_noise(RATE, rng),
        "coloured": effects.coloured_noise(RATE, RATE, -6.0, rng),
        "tone": 1e-3 * np.cos(np.arange(RATE), dtype=np.float32),
    }[kind]
    noisy = effects.mix_at_snr(tone, noise, snr_db)
    added = noisy.astype(np.float64) - tone
    assert level_db(tone) - level_db(added) == pytest.approx(snr_db, abs=1e-6)
    assert noisy.dtype == np.float32
    reference = torchaudio.functional.add_noise(
        *map(torch.from_numpy, (tone[None], noise[None])), torch.tensor([snr_db])
    )
    np.testing.assert_allclose(noisy, reference[0], rtol=1e-5, atol=1e-6)


def test_silence_has_no_ratio(tone):
    silence = np.zeros(RATE, np.float32)
    np.testing.assert_array_equal(effects.mix_at_snr(silence, tone, 10.0), silence)
    np.testing.assert_array_equal(effects.mix_at_snr(tone, silence, 10.0), tone)


def test_white_noise_is_white_and_gaussian(rng):
    noise = effects.white_noise(RATE, rng)
    assert stats.kstest(noise, "norm").pvalue > 0.01
    spectrum = np.abs(np.fft.rfft(noise)) ** 2
    assert spectrum[1:4000].mean() / spectrum[4000:-1].mean() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("db_per_octave", [-6.0, -3.0, 0.0, 3.0])
def test_coloured_noise_has_its_slope(rng, db_per_octave):
    """A line through the power density against octaves, from 100 Hz on; flat below 50 Hz."""
    noise = effects.coloured_noise(60 * RATE, RATE, db_per_octave, rng)
    assert len(noise) == 60 * RATE
    frequencies, density = scipy.signal.welch(noise, RATE, nperseg=RATE // 2)
    there = (frequencies >= 100) & (frequencies <= 7900)
    slope, _ = np.polyfit(
        np.log2(frequencies[there]), 10 * np.log10(density[there]), 1, w=1 / frequencies[there] ** 0.5
    )
    assert slope == pytest.approx(db_per_octave, abs=0.1)
    low = (frequencies > 8) & (frequencies <= 40)
    expected = 10 * np.log10(density[(frequencies >= 180) & (frequencies <= 220)].mean()) - 2 * db_per_octave
    assert 10 * np.log10(density[low].mean()) == pytest.approx(expected, abs=1)
    assert stats.kstest(noise / noise.std(), "norm").statistic < 0.02


@pytest.mark.parametrize("rt60_seconds", [0.1, 0.4, 0.8])
@pytest.mark.parametrize("direct_db", [0.0, 10.0])
def test_reverberation_decays_by_60_db_in_its_time(rng, rt60_seconds, direct_db):
    """By Schroeder's backward integration, on the slope from -5 to -25 dB (T20 of ISO 3382)."""
    response = effects.synthetic_impulse_response(rt60_seconds, direct_db, RATE, rng).astype(np.float64)
    tail = response[1:]
    assert 10 * np.log10(response[0] ** 2 / (tail**2).sum()) == pytest.approx(direct_db, abs=1e-5)
    decay_db = 10 * np.log10(np.cumsum(tail[::-1] ** 2)[::-1] / (tail**2).sum())
    there = (decay_db <= -5) & (decay_db >= -25)
    slope, _ = np.polyfit(np.flatnonzero(there) / RATE, decay_db[there], 1)
    assert -60 / slope == pytest.approx(rt60_seconds, rel=0.1)


def test_reverberation_is_a_convolution_of_the_same_power(tone, rng):
    response = effects.synthetic_impulse_response(0.3, 6.0, RATE, rng)
    wet = effects.reverberate(tone, response)
    expected = scipy.signal.fftconvolve(tone.astype(np.float64), response)[: len(tone)]
    expected *= np.sqrt(np.mean(tone.astype(np.float64) ** 2) / np.mean(expected**2))
    np.testing.assert_allclose(wet, expected, atol=1e-6)
    assert level_db(wet) == pytest.approx(level_db(tone), abs=1e-5)


def test_the_direct_sound_does_not_come_later():
    """A recorded response begins with the time that the sound took to the microphone."""
    click = np.zeros(RATE, np.float32)
    click[1000] = 1
    response = np.concatenate([np.zeros(700, np.float32), [1.0], np.full(50, 0.1)]).astype(np.float32)
    wet = effects.reverberate(click, response)
    assert np.argmax(np.abs(wet)) == 1000
    np.testing.assert_allclose(wet[:1000], 0, atol=1e-6)


@pytest.mark.parametrize("factor", [0.9, 0.9537, 1.0, 1.1, 2.0])
def test_speed_changes_duration_and_pitch_together(tone, factor):
    changed = effects.change_speed(tone, factor)
    assert len(changed) == pytest.approx(len(tone) / factor, abs=1)
    assert changed.dtype == np.float32
    middle = changed[1000:-1000] * np.hanning(len(changed) - 2000)
    peak = np.argmax(np.abs(np.fft.rfft(middle, 16 * RATE))) / 16
    assert peak == pytest.approx(440 * factor, abs=0.2)
    assert level_db(changed[1000:-1000]) == pytest.approx(level_db(tone), abs=0.05)


@pytest.mark.parametrize(
    ("limits", "db_per_octave"),
    [((0, 3000), 24), ((300, float("inf")), 24), ((300, 3400), 48), ((0, 1500), 12)],
)
def test_bands_have_butterworths_edges(limits, db_per_octave):
    frequencies, gains = gains_db(lambda sound: effects.limit_band(sound, RATE, *limits, db_per_octave))
    low, high = limits
    order = db_per_octave / (20 * np.log10(2))  # 6.02 dB an octave each
    with np.errstate(divide="ignore"):
        losses = (frequencies / high) ** (2 * order) + (low / frequencies if low else frequencies * 0) ** (2 * order)
    expected = -10 * np.log10(1 + losses)
    heard = expected > -60
    np.testing.assert_allclose(gains[heard], expected[heard], atol=0.05)
    for edge in limits:
        if 0 < edge < RATE:
            assert gains[round(edge * 2)] == pytest.approx(-3.01, abs=0.02)
    if high == 3000:
        assert gains[2 * 6000] - gains[2 * 3000] == pytest.approx(-24 + 3, abs=0.2)
        zeros, poles, gain = scipy.signal.butter(4, 2 * np.pi * 3000, analog=True, output="zpk")
        _, analog = scipy.signal.freqs_zpk(zeros, poles, gain, 2 * np.pi * frequencies)
        np.testing.assert_allclose(gains[: 2 * 5000], 20 * np.log10(np.abs(analog))[: 2 * 5000], atol=0.1)


def test_a_stopped_band_is_silent_and_the_rest_as_it_was():
    frequencies, gains = gains_db(lambda sound: effects.stop_band(sound, RATE, 1000, 1500))
    assert (gains[(frequencies >= 1000) & (frequencies <= 1500)] < -30).all()
    outside = (frequencies <= 1000 - effects.STOP_EDGE_HZ) | (frequencies >= 1500 + effects.STOP_EDGE_HZ)
    np.testing.assert_allclose(gains[outside], 0, atol=0.05)


def test_a_filters_two_ends_do_not_meet():
    """What rings before a sound's start is not heard at its end."""
    click = np.zeros(RATE, np.float32)
    click[5] = 1
    limited = effects.limit_band(click, RATE, 300, 3400, 48)
    assert np.abs(limited[-RATE // 2 :]).max() < 1e-4


@pytest.mark.parametrize("bits", [4, 8])
def test_mu_law_is_g711s_scale(rng, bits):
    sound = rng.laplace(0, 0.1, 4 * RATE).astype(np.float32)
    sound *= 0.7 / np.abs(sound).max()
    quantised = effects.quantise_mu_law(sound, bits)
    assert len(np.unique(np.abs(quantised))) <= 2 ** (bits - 1)
    assert np.abs(quantised).max() == pytest.approx(0.7, rel=1e-6)  # its own peak: nothing is clipped
    mu = 2**bits - 1
    compressed = np.log1p(mu * np.abs(sound / 0.7)) / np.log1p(mu)
    again = np.log1p(mu * np.abs(quantised / 0.7)) / np.log1p(mu)
    assert np.abs(compressed - again).max() <= 0.5 / (2 ** (bits - 1) - 1) + 1e-5  # half a step on the log scale
    assert (np.sign(quantised) * np.sign(sound) >= 0).all()
    if bits == 8:
        encoded = torchaudio.functional.mu_law_encoding(torch.from_numpy(sound / np.float32(0.7)), 256)
        theirs = 0.7 * torchaudio.functional.mu_law_decoding(encoded, 256).numpy()
        ours_db, theirs_db = (level_db(sound) - level_db(other - sound) for other in (quantised, theirs))
        assert ours_db == pytest.approx(theirs_db, abs=0.5)


def test_a_masked_stretch_is_silent(rng):
    sound = rng.standard_normal(RATE, dtype=np.float32)
    masked = effects.mask_time(sound, RATE, 0.25, 0.1)
    assert not masked[4000:5600].any()
    np.testing.assert_array_equal(np.delete(masked, slice(4000, 5600)), np.delete(sound, slice(4000, 5600)))


def test_fast_sizes():
    for num_samples in [*range(1, 3000), 160_800, 172_799, 480_000, 2**18, 2**18 + 1]:
        size = effects.fast_size(num_samples)
        assert num_samples <= size <= max(16, 1.26 * num_samples)
        assert max(_prime_factors(size)) <= 5


def _prime_factors(number: int) -> set[int]:
    found, divisor = set(), 2
    while number > 1:
        while number % divisor == 0:
            found.add(divisor)
            number //= divisor
        divisor += 1
    return found
