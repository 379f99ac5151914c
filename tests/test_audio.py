"""Reading sound: every container against soxr as reference, every damage against its sentence."""

import io
import re
import struct
import sys
import time
import tracemalloc
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from audioclf import audio
from audioclf.errors import AudioError

RATE = 16_000


def voices(seconds: float, rate: int, channels: int = 1) -> np.ndarray:
    """Tones below 3 kHz, another chord in each channel, faded in and out: (T, K) float64."""
    t = np.arange(round(seconds * rate)) / rate
    chords = [
        sum(np.sin(2 * np.pi * f * (1 + 0.07 * k) * t + f) for f in (170, 440, 1230, 1790)) for k in range(channels)
    ]
    fade = np.minimum(1, np.minimum(t, t[-1] - t) / 0.05)[:, None]
    return 0.2 * np.stack(chords, axis=1) * fade


def encode(samples: np.ndarray, rate: int, container: str = "WAV", subtype: str | None = None, **options) -> bytes:
    stream = io.BytesIO()
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(stream, "w", rate, channels, subtype, format=container, **options) as file:
        file.write(samples)
    return stream.getvalue()


def reference(samples: np.ndarray, rate: int) -> np.ndarray:
    return soxr.resample(samples.mean(axis=1), rate, RATE, quality="HQ")


def signal_to_noise_db(got: np.ndarray, wanted: np.ndarray) -> float:
    return 10 * np.log10((wanted**2).sum() / (((got - wanted) ** 2).sum() + 1e-30))


def fails(source, sentence: str, **segment) -> None:
    """The whole message, not a part of it, is what the user reads."""
    with pytest.raises(AudioError) as caught:
        audio.load(source, RATE, **segment)
    assert re.fullmatch(sentence, str(caught.value)), str(caught.value)


@pytest.fixture
def no_torchcodec(monkeypatch):
    for module in ("torchcodec", "torchcodec.decoders"):
        monkeypatch.setitem(sys.modules, module, None)


# --- what can be read ------------------------------------------------------------------------------------------------

CODECS = [  # container, subtype, name, least signal-to-noise ratio in dB, channels, rates
    ("WAV", "PCM_U8", "a.wav", 26, (1, 2, 8), (44_100,)),
    ("WAV", "PCM_16", "a.wav", 74, (1, 2, 8), (8000, 44_100)),
    ("WAV", "PCM_24", "a.wav", 120, (1, 2, 8), (44_100,)),
    ("WAV", "PCM_32", "a.wav", 130, (1, 2, 8), (44_100,)),
    ("WAV", "FLOAT", "a.wav", 130, (1, 2, 8), (44_100,)),
    ("WAV", "DOUBLE", "a.wav", 130, (1,), (16_000,)),
    ("WAVEX", "PCM_24", "a.wav", 120, (8,), (48_000,)),
    ("WAV", "ULAW", "a.wav", 34, (1, 2), (8000,)),
    ("WAV", "ALAW", "a.wav", 34, (1, 2), (8000,)),
    ("WAV", "IMA_ADPCM", "a.wav", 24, (1, 2), (22_050,)),
    ("WAV", "MS_ADPCM", "a.wav", 24, (1, 2), (22_050,)),
    ("WAV", "GSM610", "a.wav", 7, (1,), (8000, 16_000)),
    ("FLAC", "PCM_16", "a.flac", 74, (1, 2, 8), (16_000, 44_100)),
    ("FLAC", "PCM_24", "a.flac", 120, (2,), (96_000,)),
    ("OGG", "VORBIS", "a.ogg", 15, (1, 2), (16_000, 44_100)),
    ("OGG", "OPUS", "a.opus", 15, (1, 2), (48_000,)),
    ("OGG", "OPUS", "a.opus", 9, (1, 2), (24_000,)),
    ("MP3", "MPEG_LAYER_III", "a.mp3", 15, (1, 2), (16_000, 44_100)),
    ("AIFF", "PCM_16", "a.aiff", 78, (1, 2), (44_100,)),
    ("AU", "PCM_16", "a.au", 78, (1,), (22_050,)),
    ("CAF", "ALAC_16", "a.caf", 78, (2,), (44_100,)),
    ("W64", "PCM_24", "a.w64", 120, (1,), (48_000,)),
    ("RF64", "PCM_16", "a.rf64", 78, (1,), (48_000,)),
]


@pytest.mark.parametrize(
    ("container", "subtype", "name", "least_db", "channels", "rate"),
    [(*codec[:4], channels, rate) for codec in CODECS for channels in codec[4] for rate in codec[5]],
)
def test_codecs(tmp_path, container, subtype, name, least_db, channels, rate):
    samples = voices(0.6, rate, channels)
    path = tmp_path / name
    path.write_bytes(encode(samples, rate, container, subtype))
    waveform = audio.load(path, RATE)
    wanted = reference(samples, rate)
    assert waveform.dtype == np.float32
    assert waveform.ndim == 1
    # Block codecs fill their last block up; nothing may be missing.
    assert len(wanted) <= len(waveform) <= len(wanted) + (0 if least_db > 40 else 1200)
    assert signal_to_noise_db(waveform[: len(wanted)], wanted) > least_db
    decoded = soundfile.read(path, always_2d=True)[0]
    np.testing.assert_allclose(waveform, reference(decoded, rate), rtol=0, atol=2e-6)


@pytest.mark.parametrize("channels", [1, 2, 8])
@pytest.mark.parametrize("rate", [8000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000])
def test_rates_and_channels(tmp_path, rate, channels):
    samples = voices(0.4, rate, channels)
    path = tmp_path / "a.wav"
    path.write_bytes(encode(samples, rate, subtype="FLOAT"))
    waveform = audio.load(path, RATE)
    assert len(waveform) == round(0.4 * RATE)
    np.testing.assert_allclose(waveform, reference(samples, rate), rtol=0, atol=2e-6)


def test_no_resampling_is_exact(tmp_path):
    samples = np.random.default_rng(0).uniform(-1, 1, 5000).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    np.testing.assert_array_equal(audio.load(tmp_path / "a.wav", RATE), samples)


def test_float_beyond_full_scale_is_kept(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.full(100, 3.5, np.float32), RATE, subtype="FLOAT")
    assert audio.load(tmp_path / "a.wav", RATE).max() == 3.5


@pytest.mark.parametrize("frequency", [8100, 10_000, 15_000, 21_000])
def test_no_aliasing(frequency):
    tone = np.sin(2 * np.pi * frequency * np.arange(44_100) / 44_100)
    waveform = audio.load({"array": tone, "sampling_rate": 44_100}, RATE)
    assert 20 * np.log10(np.abs(waveform[2000:-2000]).max() + 1e-12) < -100


@pytest.mark.parametrize("frequency", [50, 1000, 7000])
def test_passband_is_flat(frequency):
    tone = np.sin(2 * np.pi * frequency * np.arange(44_100) / 44_100)
    wanted = np.sin(2 * np.pi * frequency * np.arange(16_000) / 16_000)
    waveform = audio.load({"array": tone, "sampling_rate": 44_100}, RATE)
    np.testing.assert_allclose(waveform[2000:-2000], wanted[2000:-2000], rtol=0, atol=1e-3)


def test_blocks_resample_as_one(tmp_path):
    """A file of several blocks gives what soxr gives in one call."""
    samples = np.random.default_rng(0).uniform(-0.9, 0.9, audio.BLOCK_SAMPLES + 300_001).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, 44_100, subtype="FLOAT")
    waveform = audio.load(tmp_path / "a.wav", RATE)
    wanted = soxr.resample(samples, 44_100, RATE, quality="HQ")
    assert len(waveform) == len(wanted)
    np.testing.assert_allclose(waveform, wanted, rtol=0, atol=1e-6)


def test_memory_is_that_of_blocks(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, np.zeros((8_000_000, 2), np.int16), 192_000)  # 64 MB as float32
    tracemalloc.start()
    audio.load(path, RATE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6


def test_content_not_ending_decides(tmp_path):
    samples = voices(0.2, RATE)
    (tmp_path / "a.mp3").write_bytes(encode(samples, RATE, "WAV", "FLOAT"))
    (tmp_path / "no ending").write_bytes(encode(samples, RATE, "FLAC", "PCM_24"))
    (tmp_path / "a.raw").write_bytes(encode(samples, RATE, "WAV", "FLOAT"))
    for name in ("a.mp3", "no ending", "a.raw"):
        np.testing.assert_allclose(audio.load(tmp_path / name, RATE), samples[:, 0], rtol=0, atol=1e-6)
        assert audio.header_seconds(tmp_path / name) == 0.2


def test_raw_samples(tmp_path, no_torchcodec):
    (tmp_path / "a.raw").write_bytes(voices(0.2, RATE).tobytes())
    fails(
        tmp_path / "a.raw",
        r".*a\.raw': libsndfile cannot read it \(Format not recognised\); convert it to wav or flac, or, .*",
    )


@pytest.mark.parametrize(
    "name",
    [
        "with space.wav",
        "음악 파일.wav",
        unicodedata.normalize("NFD", "한국어 é.wav"),
        'it\'s "quoted".wav',
        "two\nlines.wav",
        "$HOME;*?[x].wav",
        "%s {0}.wav",
    ],
)
def test_file_names(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(encode(voices(0.1, RATE), RATE))
    for spelling in (path, str(path)):
        assert audio.load(spelling, RATE).shape == (1600,)
    path.write_bytes(b"")
    fails(path, re.escape(f"{str(path)!r}: is empty (0 bytes); remove it from the data."))


@pytest.mark.parametrize(("there", "asked"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_name_in_the_other_unicode_form(tmp_path, there, asked):
    path = tmp_path / unicodedata.normalize(there, "소리.wav")
    path.write_bytes(encode(voices(0.1, RATE), RATE))
    fails(
        str(tmp_path / unicodedata.normalize(asked, "소리.wav")),
        rf".*: no such file, but one of the same letters in another Unicode form: write its name as {there}\.",
    )


def test_silence_loads(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(44_100), 44_100)
    waveform = audio.load(tmp_path / "a.wav", RATE)
    assert waveform.shape == (16_000,)
    assert not waveform.any()


# --- sources that are no path ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview], ids=lambda wrap: wrap.__name__)
def test_bytes(wrap):
    samples = voices(0.2, 44_100, 2)
    data = encode(samples, 44_100, "WAV", "FLOAT")
    for source in (wrap(data), {"bytes": wrap(data), "path": None}, {"bytes": wrap(data), "path": "gone/a.wav"}):
        np.testing.assert_allclose(audio.load(source, RATE), reference(samples, 44_100), rtol=0, atol=2e-6)


@pytest.mark.parametrize("kind", [str, Path])
def test_mapping_with_a_path(tmp_path, kind):
    path = tmp_path / "a.wav"
    path.write_bytes(encode(voices(0.2, RATE), RATE))
    assert audio.load({"bytes": None, "path": kind(path)}, RATE).shape == (3200,)
    path.write_bytes(b"")
    fails({"path": kind(path)}, re.escape(f"{str(path)!r}: is empty (0 bytes); remove it from the data."))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
def test_arrays(rate, dtype):
    samples = voices(0.2, rate, 2).astype(dtype)
    wanted = reference(samples, rate)
    for array in (samples, samples.T, np.asfortranarray(samples), samples.mean(axis=1), samples.mean(axis=1).tolist()):
        waveform = audio.load({"array": array, "sampling_rate": rate, "path": None}, RATE)
        assert waveform.dtype == np.float32
        np.testing.assert_allclose(waveform, wanted, rtol=0, atol=2e-6)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64"])
def test_integer_arrays_have_full_scale_one(dtype):
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    array = np.array([[low, low], [0, 0], [high, high], [low // 2, low // 2]], dtype=dtype)
    for given in (array[:, 0], np.repeat(array, 3, axis=0)):
        waveform = audio.load({"array": given, "sampling_rate": RATE}, RATE)
        np.testing.assert_allclose(np.unique(waveform), [-1, -0.5, 0, 1], atol=0.01)


def test_sources_agree(tmp_path):
    """A recording is the same sound as path, bytes, and decoded array."""
    samples = (voices(0.2, 22_050, 2) * 32767).astype(np.int16)
    data = encode(samples, 22_050)
    (tmp_path / "a.wav").write_bytes(data)
    by_path = audio.load(tmp_path / "a.wav", RATE)
    np.testing.assert_array_equal(audio.load(data, RATE), by_path)
    np.testing.assert_allclose(audio.load({"array": samples, "sampling_rate": 22_050}, RATE), by_path, atol=1e-6)


# --- segments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["wav", "flac", "array"])
@pytest.mark.parametrize(("start", "end"), [(None, 0.5), (0.25, None), (0.25, 0.75), (0.0, 1.0), (0.9, 7.0)])
def test_segments(start, end, form):
    samples = voices(1.0, RATE)
    source = {"array": samples[:, 0], "sampling_rate": RATE}
    if form != "array":
        source = encode(samples, RATE, form.upper(), "PCM_24")
    wanted = samples[round((start or 0) * RATE) : None if end is None else round(end * RATE), 0]
    np.testing.assert_allclose(audio.load(source, RATE, start, end), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("container", "subtype"), [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS")])
def test_segment_of_another_rate(container, subtype):
    data = encode(voices(2.0, 44_100), 44_100, container, subtype)
    decoded, rate = soundfile.read(io.BytesIO(data))
    wanted = soxr.resample(decoded[22_050:66_150], rate, RATE, quality="HQ")
    np.testing.assert_allclose(audio.load(data, RATE, 0.5, 1.5), wanted, rtol=0, atol=2e-6)


def test_segment_errors(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(encode(voices(1.0, RATE), RATE))
    name = re.escape(repr(str(path)))
    for start, end in ((0.5, 0.5), (0.75, 0.5)):
        sentence = rf"{name}: the segment from {start:g} s to 0.5 s is empty; give an end after its start\."
        fails(path, sentence, start=start, end=end)
    fails(path, rf"{name}: lasts 1\.00 s, so nothing begins at 5 s; correct its start\.", start=5.0)
    fails(path, rf"{name}: holds no samples from 1 s on; remove it from the data\.", start=1.0)
    array = {"array": np.zeros(RATE), "sampling_rate": RATE}
    fails(array, r"'<array>': holds no samples from 5 s on; remove it from the data\.", start=5.0)


@pytest.mark.parametrize("form", ["file", "array"])
@pytest.mark.parametrize("segment", [{"start": -0.5}, {"end": -0.5}, {"start": float("nan")}, {"end": float("nan")}])
def test_impossible_segments(form, segment):
    """A start or end that is no time is refused as such: never read from the end, nor blamed on the file."""
    source = {"array": voices(1.0, RATE)[:, 0], "sampling_rate": RATE}
    if form == "file":
        source = encode(voices(1.0, RATE), RATE)
    with pytest.raises(AudioError) as caught:
        audio.load(source, RATE, **segment)
    assert next(iter(segment)) in str(caught.value)
    assert "cannot be decoded" not in str(caught.value)
    assert "holds no samples" not in str(caught.value)


# --- damage ----------------------------------------------------------------------------------------------------------

AGAIN = r"fetch or export it again\."


@pytest.mark.parametrize("suffix", [".wav", ".mp3", ".flac"])
def test_not_there(tmp_path, suffix):
    missing, folder = tmp_path / f"gone{suffix}", tmp_path / f"folder{suffix}"
    folder.mkdir()
    fails(missing, rf"{re.escape(repr(str(missing)))}: no such file\.")
    fails(folder, rf"{re.escape(repr(str(folder)))}: is a folder, not an audio file\.")


def test_empty_bytes():
    """Bytes that are empty are named so, as a file of 0 bytes is."""
    fails({"bytes": b"", "path": "a.wav"}, r"'a\.wav': is empty \(0 bytes\); remove it from the data\.")


@pytest.mark.parametrize("container", ["WAV", "AIFF", "AU"])
def test_no_frames(tmp_path, container):
    path = tmp_path / "a.wav"
    path.write_bytes(encode(np.zeros((0, 1)), RATE, container, "PCM_16"))
    fails(path, rf"{re.escape(repr(str(path)))}: holds no samples; remove it from the data\.")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_not_finite(tmp_path, bad, rate):
    samples = voices(0.2, rate)
    samples[77] = bad
    path = tmp_path / "a.wav"
    path.write_bytes(encode(samples, rate, subtype="FLOAT"))
    sentence = "holds NaN or infinite samples; export it again or remove it from the data"
    fails(path, rf"{re.escape(repr(str(path)))}: {sentence}\.")
    fails({"array": samples, "sampling_rate": rate}, rf"'<array>': {sentence}\.")


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"not audio, only text\n" * 50, "text.wav"),
        (b"<!DOCTYPE html><title>404</title>", "page.mp3"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n", "pointer.flac"),
        (bytes(4096), "zeros.wav"),
        (b"RIFF", "stub.wav"),
        (bytes(range(256)) * 20, "noise.ogg"),
    ],
)
def test_no_audio(tmp_path, content, name, no_torchcodec):
    path = tmp_path / name
    path.write_bytes(content)
    sentence = (
        r": libsndfile cannot read it \([^()]*\); convert it to wav or flac, or, if it is m4a, aac or the like, "
        r"install FFmpeg and torchcodec\."
    )
    fails(path, re.escape(repr(str(path))) + sentence)
    fails(content, f"<{len(content)} bytes of audio>" + sentence)
    fails({"bytes": content, "path": "x.wav"}, re.escape(repr("x.wav")) + sentence)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "FLOAT", "ULAW", "IMA_ADPCM", "GSM610"])
@pytest.mark.parametrize("kept", [0.3, 0.97])
def test_truncated_wav(tmp_path, subtype, kept):
    data = encode(voices(0.5, RATE), RATE, subtype=subtype)
    path = tmp_path / "a.wav"
    path.write_bytes(data[: int(len(data) * kept)])
    fails(
        path,
        rf"{re.escape(repr(str(path)))}: is truncated \(its header promises [\d,]+ bytes of samples, "
        rf"it holds [\d,]+\); {AGAIN}",
    )


def test_truncated_wav_counts_bytes():
    data = encode(np.zeros(8000), RATE)
    fails(data[:-1000], r"<\d+ bytes .*promises 16,000 bytes of samples, it holds 15,000\); " + AGAIN)


@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_truncated_flac(tmp_path, kept):
    data = encode(voices(2.0, RATE), RATE, "FLAC")
    path = tmp_path / "a.flac"
    path.write_bytes(data[: int(len(data) * kept)])
    fails(path, rf"{re.escape(repr(str(path)))}: cannot be decoded to its end \(.*\); {AGAIN}")


def test_damaged_flac():
    data = bytearray(encode(voices(2.0, RATE), RATE, "FLAC"))
    middle = len(data) // 2
    data[middle : middle + 200] = bytes(200)
    fails(bytes(data), rf"<\d+ bytes of audio>: cannot be decoded to its end \(.*\); {AGAIN}")


@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_truncated_mp3(tmp_path, kept):
    data = encode(voices(3.0, 44_100), 44_100, "MP3")
    path = tmp_path / "a.mp3"
    path.write_bytes(data[: int(len(data) * kept)])
    fails(
        path,
        rf"{re.escape(repr(str(path)))}: is truncated \([\d,]+ samples came of the 132,300 its header promises\); "
        + AGAIN,
    )


@pytest.mark.parametrize("container", ["AIFF", "AU", "W64", "RF64"])
def test_truncated_others(tmp_path, container):
    """GTZAN comes as .au: half a file must not pass as a shorter clip."""
    data = encode(voices(1.0, RATE), RATE, container, "PCM_16")
    (tmp_path / "a").write_bytes(data[:-10_000])
    with pytest.raises(AudioError, match=r"is truncated .*; fetch or export it again\."):
        audio.load(tmp_path / "a", RATE)


def without_length_header(data: bytes) -> bytes:
    """An MP3 whose Xing/Info tag is blanked: players see one silent frame, and no length."""
    at = max(data.find(b"Xing"), data.find(b"Info"))
    assert at > 0
    return data[:at] + bytes(120) + data[at + 120 :]


def test_mp3_of_estimated_length():
    """Constant bit rate and no length header: libsndfile's estimate is no promise that the file breaks."""
    noise = 0.1 * np.random.default_rng(0).standard_normal(6 * 44_100)
    data = encode(noise, 44_100, "MP3", bitrate_mode="CONSTANT", compression_level=0.5)
    assert len(audio.load(without_length_header(data), RATE)) == pytest.approx(6 * RATE, abs=2 * 1152)


def test_mp3_of_wrongly_estimated_length():
    """Variable bit rate and no length header: the estimate is far too short. All of it, or a refusal, never a part."""
    noise = np.random.default_rng(0).standard_normal(6 * 44_100) * np.repeat([1e-4, 0.1], 3 * 44_100)
    data = encode(noise, 44_100, "MP3", bitrate_mode="VARIABLE", compression_level=0.5)
    try:
        num_samples = len(audio.load(without_length_header(data), RATE))
    except AudioError:
        return
    assert num_samples == pytest.approx(6 * RATE, abs=2 * 1152)


def wav_with_data_size(size: int, riff_size: int = 0xFFFFFFFF) -> bytes:
    data = bytearray(encode(voices(1.0, RATE), RATE))
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", size)
    data[4:8] = struct.pack("<I", riff_size)
    return bytes(data)


@pytest.mark.parametrize(
    "size",
    [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0x7FFFFF00],
    ids=["ffmpeg", "0x7FFFFFFF", "sox", "arecord"],
)
def test_streamed_wav(size):
    """What programs write into a pipe, where the length is not known yet (the list is Kaldi's)."""
    waveform = audio.load(wav_with_data_size(size), RATE)
    np.testing.assert_allclose(waveform, voices(1.0, RATE)[:, 0], rtol=0, atol=1e-4)


def streamed_flac(seconds: float) -> bytes:
    """As encoders write it into a pipe: STREAMINFO's total of samples is 0, "unknown"."""
    data = bytearray(encode(voices(seconds, RATE), RATE, "FLAC"))
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    return bytes(data)


def test_streamed_flac():
    data, samples = streamed_flac(70.0), voices(70.0, RATE)[:, 0]  # more than a block
    np.testing.assert_allclose(audio.load(data, RATE), samples, rtol=0, atol=1e-4)
    for start, end in ((1.5, 3.25), (66.0, 69.0), (66.0, None), (69.0, 75.0)):
        part = samples[round(start * RATE) : None if end is None else round(end * RATE)]
        np.testing.assert_allclose(audio.load(data, RATE, start, end), part, rtol=0, atol=1e-4)
    assert audio.header_seconds(data) is None
    fails(data, r"<\d+ bytes of audio>: holds no samples from 71 s on; remove it from the data.", start=71.0)
    fails(data[: len(data) // 2], rf"<\d+ bytes of audio>: cannot be decoded to its end \(.*\); {AGAIN}")


def raises_cheaply(data: bytes, sentence: str) -> None:
    tracemalloc.start()
    began = time.perf_counter()
    fails(data, sentence)
    seconds, peak = time.perf_counter() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32e6
    assert seconds < 2


@pytest.mark.parametrize("extra", [2, 1 << 20, 1 << 31, 4_200_000_000])
def test_lying_wav_header(extra):
    promised = f"{32_000 + extra:,}"
    raises_cheaply(
        wav_with_data_size(32_000 + extra),
        rf"<\d+ bytes of audio>: is truncated \(its header promises {promised} bytes of samples, it holds 32,000\); "
        + AGAIN,
    )


def test_lying_flac_header():
    """STREAMINFO that claims 2^36 - 1 samples: 256 GiB as float32."""
    data = bytearray(encode(voices(1.0, RATE), RATE, "FLAC"))
    data[21] |= 0x0F
    data[22:26] = b"\xff" * 4
    raises_cheaply(bytes(data), r"<\d+ bytes of audio>: (cannot be decoded to its end|is truncated) .*; " + AGAIN)


def test_absurd_rate():
    """A header that claims 1 Hz would make a gigabyte of every thirty kilobytes."""
    data = bytearray(encode(np.zeros(200), RATE))
    data[24:28] = struct.pack("<I", 1)
    with pytest.raises(AudioError, match="1 Hz"):
        audio.load(bytes(data), RATE)


def test_channel_limit():
    assert audio.load(encode(np.zeros((160, 64)), RATE), RATE).shape == (160,)
    fails(
        encode(np.zeros((160, 65)), RATE),
        r"<\d+ bytes of audio>: claims 65 channels; it is damaged, or no recording.*\.",
    )


# --- mappings that are wrong -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [None, 3, 1.5, [0.1, 0.2], np.zeros(5), {}, {"bytes": None, "path": None}])
def test_no_source(source):
    kind = type(source).__name__
    fails(
        source,
        rf'{kind} is no audio: give a path, the bytes of a file, or {{"array": samples, "sampling_rate": hertz}}\.',
    )


@pytest.mark.parametrize(
    ("array", "got"),
    [
        (np.zeros((2, 2, 2)), "float64 of shape (2, 2, 2)"),
        (np.zeros(3, np.uint8), "uint8 of shape (3,)"),
        (np.zeros(3, bool), "bool of shape (3,)"),
        (np.zeros(3, complex), "complex128 of shape (3,)"),
        (np.float32(1), "float32 of shape ()"),
        ("text", "<U4 of shape ()"),
    ],
)
def test_no_waveform(array, got):
    fails(
        {"array": array, "sampling_rate": RATE, "path": "x.wav"},
        r"'x\.wav': expected an array \(samples,\) or \(samples, channels\) of floats or signed integers, got "
        + re.escape(got + "."),
    )


def test_ragged_array():
    with pytest.raises(AudioError, match="'<array>': expected an array"):
        audio.load({"array": [[0.1, 0.2], [0.3]], "sampling_rate": RATE}, RATE)


@pytest.mark.parametrize("shape", [(0,), (0, 2), (2, 0), (0, 1)])
def test_empty_arrays(shape):
    fails({"array": np.zeros(shape), "sampling_rate": RATE}, r"'<array>': holds no samples; remove it from the data\.")


@pytest.mark.parametrize("rate", [None, 0, 0.5, -8000, float("nan"), "16000"])
def test_array_without_rate(rate):
    fails({"array": np.zeros(8), "sampling_rate": rate}, r"'<array>': an array needs its \"sampling_rate\" in Hz\.")


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.wav", "a.FLAC", "b/음악.mp3", "a b.Opus", "a.au", "x.tar.wav"])
def test_is_audio_path(name):
    assert audio.is_audio_path(name)
    assert audio.is_audio_path(Path(name))


@pytest.mark.parametrize("name", ["a.txt", "wav", ".wav", "._a.wav", "b/.hidden.wav", "a.wav.txt", "a.csv", ""])
def test_is_no_audio_path(name):
    assert not audio.is_audio_path(name)
