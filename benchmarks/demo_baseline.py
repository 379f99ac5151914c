"""How far the demonstration sets yield to a classifier that hears no time.

Usage: python benchmarks/demo_baseline.py [SET ...]

Logistic regression on log-mel bands averaged over the clip, and on loudness alone, fitted on the train part and scored
on the valid and the test part. A model that is worth its training must be clearly better than both.
"""

import sys
import tempfile

import numpy as np
import soundfile as sf
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import audioclf
from audioclf.datasets.demo import SETS
from audioclf.metrics import multi_label_metrics, single_label_metrics

NUM_MELS, WINDOW, HOP = 64, 1024, 512


def mel_filters(sampling_rate: int) -> np.ndarray:
    """Triangles that are even on the mel scale (HTK's formula), (NUM_MELS, WINDOW // 2 + 1)."""
    nyquist_mel = 2595 * np.log10(1 + sampling_rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, nyquist_mel, NUM_MELS + 2) / 2595) - 1)[:, None]
    hertz = np.fft.rfftfreq(WINDOW, 1 / sampling_rate)
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


def compare(name: str, root: str) -> None:
    """Fit both on a set's train part and print its usual metrics on the other parts."""
    splits = audioclf.load_dataset("demo", protocol=name, root=root)
    filters = mel_filters(SETS[name].SAMPLING_RATE)
    targets, groups, waveforms = {}, {}, {}
    for part, clips in splits.parts.items():
        waveforms[part] = [sf.read(clip.audio, dtype="float32")[0] for clip in clips]
        targets[part] = np.array([[label in clip.labels for label in splits.labels] for clip in clips])
        groups[part] = np.unique([clip.group or clip.name for clip in clips], return_inverse=True)[1]
    for kind, feature in (("mean log-mel", lambda waveform: mean_log_mel(waveform, filters)), ("loudness", loudness)):
        features = {part: np.stack([feature(waveform) for waveform in sounds]) for part, sounds in waveforms.items()}
        model = LogisticRegression(max_iter=2000)
        known = targets["train"] if splits.multi_label else targets["train"].argmax(axis=1)
        model = make_pipeline(StandardScaler(), OneVsRestClassifier(model) if splits.multi_label else model)
        model.fit(features["train"], known)
        for part in [part for part in targets if part != "train"]:
            told = scores(targets[part], model.predict_proba(features[part]), groups[part], splits.multi_label)
            print(f"{name:<12} {kind:<12} {part:<5} {told}", flush=True)


def scores(targets: np.ndarray, probabilities: np.ndarray, groups: np.ndarray, multi_label: bool) -> str:
    """The usual metrics of clips with these classes and probabilities, (N, C) both, in words."""
    if multi_label:
        thresholds = np.full(targets.shape[1], 0.5)
        names, metrics = ("map",), multi_label_metrics(targets, probabilities, groups, thresholds)
        chance = targets.mean()
    else:
        names, metrics = ("accuracy", "macro_f1"), single_label_metrics(targets.argmax(axis=1), probabilities, groups)
        chance = 1 / targets.shape[1]
    told = ", ".join("{} {:.3f} [{:.3f}, {:.3f}]".format(name, metrics[name], *metrics[f"{name}_ci"]) for name in names)
    return f"{told}; {len(targets)} clips, chance {chance:.3f}"


def main() -> None:
    with tempfile.TemporaryDirectory() as root:
        for name in sys.argv[1:] or SETS:
            compare(name, root)


if __name__ == "__main__":
    main()
