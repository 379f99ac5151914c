"""What is in a sound is where one looks for it in its picture."""

import subprocess
import sys

import numpy as np
import pytest

from audioclf.pictures import spectrogram_image, waveform_image

RATE = 16_000


def brightest_row(frequency: float, rate: int = RATE, gain: float = 0.5) -> int:
    tone = gain * np.sin(2 * np.pi * frequency * np.arange(rate) / rate)
    return int(spectrogram_image(tone, rate).sum(axis=(1, 2)).argmax())


def test_low_is_below_high():
    rows = [brightest_row(frequency) for frequency in (100, 300, 1000, 3000, 7000)]
    assert rows == sorted(rows, reverse=True)
    assert len(set(rows)) == 5


def test_time_runs_to_the_right():
    waveform = np.zeros(2 * RATE)
    waveform[RATE + 1000 :] = np.random.default_rng(0).normal(size=RATE - 1000)
    columns = spectrogram_image(waveform, RATE).mean(axis=(0, 2))
    assert columns[: len(columns) // 2].max() < columns[len(columns) // 2 + 10 :].min()


def test_level_does_not_matter():
    noise = np.random.default_rng(0).normal(size=RATE).astype(np.float32)
    loud, quiet = (spectrogram_image(gain * noise, RATE).astype(int) for gain in (0.5, 0.01))
    assert np.abs(loud - quiet).max() <= 2


@pytest.mark.parametrize("waveform", [np.zeros(0), np.zeros(5), np.zeros(RATE), np.ones(1)])
def test_next_to_nothing(waveform):
    image = spectrogram_image(waveform, RATE)
    assert image.dtype == np.uint8
    assert image.shape[0] == 64
    assert image.shape[1] >= 1


def test_silence_is_dark():
    assert spectrogram_image(np.zeros(RATE), RATE).max() < 10


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
def test_long_clips_are_no_wider(rate):
    noise = np.random.default_rng(0).normal(size=60 * rate).astype(np.float32)
    image = spectrogram_image(noise, rate, max_width=500)
    assert image.shape == (64, 500, 3)
    assert image.mean() > 50


class TestWaveform:
    def test_as_high_as_it_is_loud(self):
        ramp = np.linspace(0, 1, 6000) * np.sin(np.arange(6000))
        heights = (waveform_image(ramp, height=101)[..., 3] > 0).sum(axis=0)
        assert heights[0] <= 2
        assert heights[-1] >= 98
        assert np.corrcoef(heights, np.arange(600))[0, 1] > 0.99

    @pytest.mark.parametrize("waveform", [np.zeros(0), np.zeros(5), np.full(1, 3.0), np.full(700, -2.0)])
    def test_next_to_nothing_and_too_much(self, waveform):
        image = waveform_image(waveform)
        assert image.dtype == np.uint8
        assert image.shape == (96, max(1, min(600, len(waveform))), 4)
        assert (image[..., 3] > 0).any(axis=0).all()


def test_training_does_without_torchaudio():
    """Which refuses to be imported beside a torch of another build."""
    code = "import sys; sys.modules['torchaudio'] = None; import audioclf; audioclf.train"
    subprocess.run([sys.executable, "-c", code], check=True)
