"""How far the demonstration data set yields to a classifier that hears no time: `python benchmarks/demo_baseline.py`.

Logistic regression on log-mel bands averaged over the clip, and on loudness alone. A model that is worth its training
must be clearly better than both.
"""

import tempfile

import numpy as np
import soundfile as sf
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from audioclf.datasets import demo

NUM_MELS, WINDOW, HOP = 64, 1024, 512


def mel_filters() -> np.ndarray:
    """Triangles that are even on the mel scale (HTK's formula), (NUM_MELS, WINDOW // 2 + 1)."""
    nyquist_mel = 2595 * np.log10(1 + demo.SAMPLING_RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, nyquist_mel, NUM_MELS + 2) / 2595) - 1)[:, None]
    hertz = np.fft.rfftfreq(WINDOW, 1 / demo.SAMPLING_RATE)
    rising = (hertz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hertz) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling))


def mean_log_mel(waveform: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """Log-mel bands averaged over time, (NUM_MELS,)."""
    frames = np.lib.stride_tricks.sliding_window_view(waveform, WINDOW)[::HOP] * np.hanning(WINDOW)
    power = np.abs(np.fft.rfft(frames)) ** 2
    return np.log(power @ filters.T + 1e-8).mean(axis=0)


def loudness(waveform: np.ndarray) -> np.ndarray:
    """Root mean square and peak in dB below full scale, (2,)."""
    return 20 * np.log10([np.sqrt(np.mean(waveform**2)) + 1e-9, np.abs(waveform).max() + 1e-9])


def wilson(hits: int, total: int) -> tuple[float, float]:
    """95 % interval of a proportion. Source: Wilson (1927)."""
    z, p = 1.96, hits / total
    centre = p + z**2 / (2 * total)
    margin = z * np.sqrt(p * (1 - p) / total + z**2 / (4 * total**2))
    return (centre - margin) / (1 + z**2 / total), (centre + margin) / (1 + z**2 / total)


def main() -> None:
    """Fit both on the train split and print their accuracy on the valid split."""
    filters = mel_filters()
    with tempfile.TemporaryDirectory() as root:
        clips = demo.examples(root)
        waveforms = [sf.read(clip.audio, dtype="float32")[0] for clip in clips]
    labels = np.array([clip.label for clip in clips])
    train = np.array([clip.split == "train" for clip in clips])
    for name, features in (
        ("mean log-mel", np.stack([mean_log_mel(waveform, filters) for waveform in waveforms])),
        ("loudness", np.stack([loudness(waveform) for waveform in waveforms])),
    ):
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        model.fit(features[train], labels[train])
        hits, total = int((model.predict(features[~train]) == labels[~train]).sum()), int((~train).sum())
        low, high = wilson(hits, total)
        print(f"{name:<12}  accuracy {hits / total:.3f}  95 % [{low:.3f}, {high:.3f}]  {total} valid clips", flush=True)


if __name__ == "__main__":
    main()
