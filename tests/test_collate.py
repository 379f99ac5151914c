"""A batch holds what the checkpoint's own feature extractor would make of the clips."""

import numpy as np
import pytest
import torch
from conftest import waveform_collator
from transformers import Wav2Vec2FeatureExtractor

from audioclf.models.waveform import normalise


def items_of(waveforms) -> list[dict]:
    return [{"waveform": w, "label": i % 3, "index": 10 * i} for i, w in enumerate(waveforms)]


def random_waveforms(seed: int) -> list[np.ndarray]:
    """Clips of unlike length, loudness and offset."""
    rng = np.random.default_rng(seed)
    return [
        (rng.uniform(-0.3, 0.3) + 10 ** rng.uniform(-4, 0) * rng.standard_normal(n)).astype(np.float32)
        for n in rng.integers(400, 9000, size=rng.integers(1, 9))
    ]


@pytest.mark.parametrize("do_normalize", [True, False])
@pytest.mark.parametrize("padding_value", [0.0, -0.5])
@pytest.mark.parametrize("seed", range(8))
def test_equals_transformers(seed, padding_value, do_normalize):
    waveforms = random_waveforms(seed)
    extractor = Wav2Vec2FeatureExtractor(
        do_normalize=do_normalize, return_attention_mask=True, padding_value=padding_value, sampling_rate=16_000
    )
    wanted = extractor(waveforms, sampling_rate=16_000, padding=True, return_tensors="pt")
    batch = waveform_collator(do_normalize, padding_value)(items_of(waveforms))
    torch.testing.assert_close(batch["input_values"], wanted["input_values"].float(), rtol=0, atol=1e-6)
    torch.testing.assert_close(batch["attention_mask"], wanted["attention_mask"], check_dtype=False)


def test_shapes_and_types():
    batch = waveform_collator()(items_of([np.ones(500, np.float32), np.ones(700, np.float32)]))
    assert {key: (tuple(value.shape), value.dtype) for key, value in batch.items()} == {
        "input_values": ((2, 700), torch.float32),
        "attention_mask": ((2, 700), torch.int64),
        "labels": ((2,), torch.int64),
        "index": ((2,), torch.int64),
    }
    assert batch["labels"].tolist() == [0, 1]
    assert batch["index"].tolist() == [0, 10]
    assert batch["attention_mask"].sum(dim=1).tolist() == [500, 700]


@pytest.mark.parametrize("do_normalize", [True, False])
@pytest.mark.parametrize("length", [1, 10, 399, 400])
def test_too_short_clips_are_extended(length, do_normalize):
    """The zeros count as the clip's own and come after normalising, whatever else is in the batch."""
    rng = np.random.default_rng(length)
    short = rng.standard_normal(length).astype(np.float32) + 3
    collate = waveform_collator(do_normalize, padding_value=-7.0)
    wanted = np.zeros(400, np.float32)
    wanted[:length] = (short - short.mean()) / np.sqrt(short.var() + 1e-7) if do_normalize else short
    for others in ([], [rng.standard_normal(1000).astype(np.float32)]):
        batch = collate(items_of([short, *others]))
        np.testing.assert_allclose(batch["input_values"][0, :400], wanted, rtol=0, atol=1e-6)
        assert (batch["input_values"][0, 400:] == -7.0).all()
        assert batch["attention_mask"][0].tolist() == [1] * 400 + [0] * (600 if others else 0)


def test_silence_stays_zero():
    batch = waveform_collator()(items_of([np.zeros(800, np.float32), np.full(500, 0.25, np.float32)]))
    assert not batch["input_values"].any()
    assert torch.isfinite(batch["input_values"]).all()


def test_a_clip_is_the_same_in_any_batch():
    waveforms = random_waveforms(3)
    collate = waveform_collator()
    together = collate(items_of(waveforms))["input_values"]
    for row, waveform in enumerate(waveforms):
        alone = collate(items_of([waveform]))["input_values"][0]
        assert torch.equal(together[row, : len(waveform)], alone)


@pytest.mark.parametrize("gain", [1e-3, 1.0, 100.0])
def test_normalise(gain):
    waveform = (gain * (np.random.default_rng(0).standard_normal(20_000) + 0.1)).astype(np.float32)
    result = normalise(waveform)
    assert result.dtype == np.float32
    assert result.mean() == pytest.approx(0, abs=1e-5)
    assert result.var() == pytest.approx(1, abs=0.11 if gain == 1e-3 else 1e-4)  # the floor counts for the quietest


def test_memory_mapped_waveforms_are_not_written(tmp_path):
    waveform = np.memmap(tmp_path / "a", np.float32, "w+", shape=(500,))
    waveform[:] = np.arange(500)
    before = np.array(waveform)
    waveform_collator()(items_of([waveform]))
    np.testing.assert_array_equal(waveform, before)
