"""Augmentation by folders: background noise and rooms."""

import dataclasses
import pickle

import numpy as np
import pytest
import soundfile

import audioclf
from audioclf import AudioError, BackgroundNoise, ConfigError, ImpulseResponses, Sometimes, recordings
from audioclf.augment import make_augmentation

RATE = 16_000


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Caches of this test alone."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.fixture
def streets(home):
    """A long recording, a short one at another rate, and a stereo one in a folder below; a text file beside them."""
    folder, rng = home / "streets", np.random.default_rng(0)
    (folder / "more").mkdir(parents=True)
    soundfile.write(folder / "long.wav", 0.1 * rng.standard_normal(3 * RATE), RATE, subtype="FLOAT")
    soundfile.write(folder / "short.flac", 0.1 * rng.standard_normal(4410), 44_100)
    soundfile.write(folder / "more" / "stereo.wav", 0.1 * rng.standard_normal((RATE, 2)), RATE, subtype="FLOAT")
    (folder / "notes.txt").write_text("no sound")
    return folder


@pytest.fixture
def tone():
    return (0.3 * np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE)).astype(np.float32)


def test_the_ratio_is_exact_and_drawn(streets, tone):
    noise = BackgroundNoise(streets, snr_db=(3, 20))
    levels = []
    for index in range(60):
        noisy = noise(tone, RATE, np.random.default_rng(index)).astype(np.float64)
        added = noisy - tone
        levels.append(10 * np.log10(np.mean(tone.astype(np.float64) ** 2) / np.mean(added**2)))
    assert 3 - 1e-4 <= min(levels) < 5
    assert 18 < max(levels) <= 20 + 1e-4
    exact = BackgroundNoise(streets, snr_db=(7, 7))(tone, RATE, np.random.default_rng(0)).astype(np.float64)
    assert 10 * np.log10(np.mean(tone.astype(np.float64) ** 2) / np.mean((exact - tone) ** 2)) == pytest.approx(
        7, abs=1e-6
    )


def test_stretches_are_of_the_recordings(streets, tone):
    """Of a long one any stretch, of a short one all of it again and again."""
    long = soundfile.read(streets / "long.wav", dtype="float32")[0]
    starts, periodic = set(), 0
    for index in range(30):
        added = BackgroundNoise(streets, snr_db=(0, 0))(tone, RATE, np.random.default_rng(index)) - tone
        added = added / np.abs(added).max()
        if np.allclose(added[:1600], added[1600:3200], atol=1e-4):
            periodic += 1
            continue
        at = np.argmax(np.correlate(long, added[:400]))
        if np.corrcoef(long[at : at + len(tone)], added[: len(long) - at])[0, 1] > 0.999:
            starts.add(at)
    assert periodic >= 3
    assert len(starts) >= 3


def test_silence_stays_silent(streets):
    assert not BackgroundNoise(streets)(np.zeros(500, np.float32), RATE, np.random.default_rng(0)).any()
    one = BackgroundNoise(streets)(np.ones(1, np.float32), RATE, np.random.default_rng(0))
    assert one.shape == (1,)


def test_a_recorded_room_is_convolved(home, tone):
    rooms, rng = home / "rooms", np.random.default_rng(1)
    rooms.mkdir()
    response = np.concatenate([np.zeros(300), [1.0], 0.1 * rng.standard_normal(2000) * np.exp(-np.arange(2000) / 300)])
    soundfile.write(rooms / "hall.wav", response * 0.9, RATE, subtype="FLOAT")
    wet = ImpulseResponses(rooms)(tone, RATE, np.random.default_rng(0))
    expected = np.convolve(tone.astype(np.float64), response[300:])[: len(tone)]
    expected *= np.sqrt(np.mean(tone.astype(np.float64) ** 2) / np.mean(expected**2))
    np.testing.assert_allclose(wet, expected, atol=2e-6)


def test_decoded_once(streets, home, tone, monkeypatch):
    """The second opening reads the cache; the recordings are not needed any more."""
    noise = BackgroundNoise(streets).opened(sampling_rate=RATE, cache_dir=str(home / "cache"), progress=False)
    assert list((home / "cache" / "waveforms").iterdir())
    first = noise(tone, RATE, np.random.default_rng(0))
    monkeypatch.setattr(recordings.audio, "load", None)
    again = BackgroundNoise(streets).opened(sampling_rate=RATE, cache_dir=str(home / "cache"), progress=False)
    np.testing.assert_array_equal(again(tone, RATE, np.random.default_rng(0)), first)
    copied = pickle.loads(pickle.dumps(again))  # as it goes to the workers of a system that cannot fork
    np.testing.assert_array_equal(copied(tone, RATE, np.random.default_rng(0)), first)


def test_a_folder_that_grows(streets, tone):
    """A new object of it hears what is new, in the same process too."""
    for name in ("long.wav", "short.flac"):
        (streets / name).unlink()
    before = BackgroundNoise(streets)(tone, RATE, np.random.default_rng(0))
    (streets / "more" / "stereo.wav").unlink()
    soundfile.write(streets / "other.wav", np.sin(np.arange(2 * RATE)) / 2, RATE)
    after = BackgroundNoise(streets, snr_db=(0, 0))(tone, RATE, np.random.default_rng(0)) - tone
    assert np.abs(np.fft.rfft(after)).argmax() == pytest.approx(2 * RATE / (2 * np.pi), abs=1)
    assert len(before) == len(after)


def test_opened_below_other_transforms(streets, home):
    steps = (Sometimes(1.0, BackgroundNoise(streets)), "gain")
    augmentation = make_augmentation(0, False, steps, RATE, cache_dir=str(home / "cache"), progress=False)
    assert augmentation.transforms[0].transform.store is not None
    assert not (home / "home").exists()


@pytest.mark.parametrize("kind", [BackgroundNoise, ImpulseResponses])
def test_folders_without_recordings_are_refused(kind, home):
    with pytest.raises(AudioError, match="nowhere': no such folder of recordings"):
        kind(home / "nowhere")
    (home / "a.txt").write_text("no sound")
    with pytest.raises(AudioError, match="holds no audio files"):
        kind(home)


def test_bad_recordings_are_named(streets, tones, quick, tmp_path):
    (streets / "bad.wav").write_text("no sound")
    noise = BackgroundNoise(streets)
    with pytest.raises(
        AudioError, match=r"^1 of 4 recordings in .*streets' cannot be used; .*\n.*bad\.wav': libsndfile"
    ):
        audioclf.train(tones, output_dir=tmp_path / "out", augment=[noise], **quick)


@pytest.mark.parametrize("snr_db", [(20, 3), (1, 2, 3), (float("nan"), 3)])
def test_ranges_that_are_none(streets, snr_db):
    with pytest.raises(ConfigError, match="snr_db="):
        BackgroundNoise(streets, snr_db=snr_db)


def test_a_run_goes_on_with_the_same_recordings_only(streets, tones, quick, tmp_path):
    options = {**quick, "num_epochs": 1, "output_dir": tmp_path / "out"}
    audioclf.train(tones, augment=["shift", BackgroundNoise(streets)], **options)
    more = {**options, "num_epochs": 2, "resume": True}
    audioclf.train(tones, augment=["shift", BackgroundNoise(streets)], **more)
    soundfile.write(streets / "new.wav", np.ones(100) / 2, RATE)
    changed = ["shift", BackgroundNoise(streets)]
    with pytest.raises(ConfigError, match=r"^augment=.* is not what the run"):
        audioclf.train(tones, augment=changed, **{**more, "num_epochs": 3})


def test_two_of_one_folder_are_equal(streets):
    assert BackgroundNoise(streets) == BackgroundNoise(str(streets))
    assert dataclasses.replace(BackgroundNoise(streets), snr_db=(1, 2)) != BackgroundNoise(streets)
