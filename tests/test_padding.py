"""A clip's prediction depends on the clip alone: neither on the batch it is in, nor on how far that is padded.

The reference is what transformers computes for the clip alone: a batch of one, no padding, no mask.
"""

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import soundfile
import torch
from conftest import tiny_config, waveform_collator
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForAudioClassification,
    HubertConfig,
    UniSpeechConfig,
    UniSpeechSatConfig,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
)

import audioclf
from audioclf.audio import load as load_audio
from audioclf.models.classifier import AudioClassifier, build_classifier, load_classifier, place

LAYER_NORM = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
FAMILIES = {
    "distilhubert": (HubertConfig, {"feat_proj_layer_norm": False}),
    "hubert": (HubertConfig, {}),
    "wav2vec2": (Wav2Vec2Config, {}),
    "wavlm": (WavLMConfig, {}),
    "unispeech": (UniSpeechConfig, {}),
    "unispeech-sat": (UniSpeechSatConfig, {}),
    "hubert-layer": (HubertConfig, LAYER_NORM),
    "wav2vec2-layer": (Wav2Vec2Config, LAYER_NORM),
    "wavlm-layer": (WavLMConfig, LAYER_NORM),
    "unispeech-layer": (UniSpeechConfig, LAYER_NORM),
    "unispeech-sat-layer": (UniSpeechSatConfig, LAYER_NORM),
}
GROUP_NORM = [name for name in FAMILIES if not name.endswith("-layer")]
LABELS = ["high", "low", "mid"]  # those of the tones
# 400 samples (25 ms) give one frame, and so do 719; 720 give two.
LENGTHS = (400, 719, 720, 1601, 2345, 4000, 5555, 8000)
CLOSE = 1e-5
pytestmark = pytest.mark.usefixtures("fft_for_few_frames")

every_family = pytest.mark.parametrize("family", FAMILIES)
# Those whose code is not wav2vec2's under another name.
different_families = pytest.mark.parametrize("family", [name for name in FAMILIES if not name.startswith("unispeech")])
# An even positional convolution drops its last frame, an odd one none. Both forms of the waveform CNN are to hold.
every_shape = pytest.mark.parametrize(
    ("kernel", "weighted", "frontend"), [(16, False, "fast"), (15, True, "reference")]
)
# In fp64 the gradients show that they are the same, with rubbish in the padding; in fp32 they differ by rounding.
every_dtype = pytest.mark.parametrize(
    ("dtype", "tolerance", "scale"), [(torch.float32, 5e-5, 0.0), (torch.float64, 1e-9, 1e4)]
)


def config_of(family: str, **options):
    config_class, family_options = FAMILIES[family]
    names = {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
    return tiny_config(config_class, **family_options, **names, **options)


def perturb(model: torch.nn.Module) -> None:
    """Moves every parameter: a norm whose weight is 1 and bias 0, or a bias of 0, would hide a mistake."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


def transformers_and_ours(
    folder, family: str, frontend: str = "auto", **options
) -> tuple[torch.nn.Module, AudioClassifier]:
    """A classifier of transformers and ours, opened from what it saved."""
    torch.manual_seed(0)
    reference = AutoModelForAudioClassification.from_config(config_of(family, **options)).eval()
    perturb(reference)
    reference.save_pretrained(folder)
    return reference, place(load_classifier(str(folder)), torch.device("cpu"), frontend).eval()


def attention_classifier(family: str, **options) -> AudioClassifier:
    torch.manual_seed(0)
    model = build_classifier(config_of(family, **options), "attention", LABELS).eval()
    perturb(model)
    return model


def by_transformers(model: AudioClassifier, clip: torch.Tensor) -> torch.Tensor:
    """Logits of a head that transformers lacks, on the layers that its encoder gives for the clip alone."""
    frames = list(model.backbone(clip[None], output_hidden_states=True).hidden_states)
    return model.head(frames, torch.ones(frames[0].shape[:2], dtype=torch.bool))


def make_clips(lengths=LENGTHS) -> list[torch.Tensor]:
    """Clips of different loudness and offset, so that what leaks from one into another shows."""
    generator = torch.Generator().manual_seed(1)
    return [
        (0.5 + i % 3) * torch.randn(length, generator=generator) + 0.3 * (i % 2) for i, length in enumerate(lengths)
    ]


def pad(clips: list[torch.Tensor], extra: int = 0, scale: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch, padded `extra` samples beyond its longest clip, with noise of this scale in all of the padding."""
    shape = len(clips), max(map(len, clips)) + extra
    values = scale * torch.randn(shape, generator=torch.Generator().manual_seed(2)).to(clips[0].dtype)
    mask = torch.zeros(shape, dtype=torch.long)
    for row, clip in enumerate(clips):
        values[row, : len(clip)], mask[row, : len(clip)] = clip, 1
    return values, mask


def batches(clips: list[torch.Tensor], seed: int):
    """Batches of 1 to 8 clips in random order, padded at random: to the longest or further, with zeros or rubbish."""
    rng = np.random.default_rng(seed)
    for size in range(1, len(clips) + 1):
        rows = rng.permutation(len(clips))[:size].tolist()
        extra = int(rng.integers(1, 4000)) if rng.random() < 0.7 else 0
        yield rows, *pad([clips[row] for row in rows], extra, scale=float(rng.choice([0.0, 1e4])))


def difference(ours: torch.Tensor, reference: torch.Tensor) -> float:
    assert ours.shape == reference.shape
    return (ours - reference).abs().max().item()


def assert_company_does_not_matter(model, alone: Callable, swap: int) -> None:
    """Our logits in many batches against `alone(clip)`; without dropout training mode is to change nothing either."""
    clips = make_clips()
    with torch.no_grad():
        expected = torch.cat([alone(clip) for clip in clips])
        assert torch.pdist(expected).min() > 1e-3  # no two clips look the same to this model
        for rows, values, mask in batches(clips, seed=swap):
            model.train((len(rows) + swap) % 2 == 0)
            assert difference(model(values, mask), expected[rows]) <= CLOSE


@every_family
@every_shape
def test_logits_are_those_of_transformers_alone(family, kernel, weighted, frontend, tmp_path):
    options = {"num_conv_pos_embeddings": kernel, "use_weighted_layer_sum": weighted}
    reference, model = transformers_and_ours(tmp_path, family, frontend, **options)
    assert_company_does_not_matter(model, lambda clip: reference(clip[None]).logits, swap=kernel)


@every_family
@pytest.mark.parametrize("kernel", [16, 15])
def test_attention_head(family, kernel):
    model = attention_classifier(family, num_conv_pos_embeddings=kernel)
    assert_company_does_not_matter(model, lambda clip: by_transformers(model, clip), swap=kernel)
    with torch.no_grad():
        for clip in make_clips()[:3]:
            assert difference(model.eval()(clip[None]), by_transformers(model, clip)) <= CLOSE


@pytest.mark.parametrize("family", GROUP_NORM)
def test_transformers_with_its_mask_does_depend_on_the_padding(family, tmp_path):
    """The contrast: padding enters the statistics of the group norm, and these very clips show it."""
    reference, model = transformers_and_ours(tmp_path, family)
    clips = make_clips()
    values, mask = pad(clips)
    with torch.no_grad():
        alone = torch.cat([reference(clip[None]).logits for clip in clips])
        assert difference(reference(values, attention_mask=mask).logits, alone) > 1e-3
        assert difference(model(values, mask), alone) <= CLOSE


@pytest.mark.parametrize(
    ("family", "frontend"), [("distilhubert", "fast"), ("distilhubert", "reference"), ("wav2vec2-layer", "fast")]
)
def test_a_minute_beside_25_ms(family, frontend, tmp_path):
    reference, model = transformers_and_ours(tmp_path, family, frontend)
    attentive = attention_classifier(family)
    clips = make_clips((400, 960_000))
    values, mask = pad(clips)
    with torch.no_grad():
        alone = torch.cat([reference(clip[None]).logits for clip in clips])
        assert difference(model(values, mask), alone) <= CLOSE
        alone = torch.cat([by_transformers(attentive, clip) for clip in clips])
        assert difference(attentive(values, mask), alone) <= CLOSE


def assert_same_gradients(ours: dict, reference: dict, tolerance: float) -> None:
    """Every entry, relative to the largest of its parameter.

    Some gradients are zero but for rounding, as that of a key's bias, which a softmax cancels: hence the floor.
    """
    assert ours.keys() == reference.keys()
    floor = 1e-2 * max(gradient.abs().max().item() for gradient in reference.values())
    for name, gradient in reference.items():
        scale = max(gradient.abs().max().item(), floor)
        assert difference(ours[name] / scale, gradient / scale) <= tolerance, name


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@different_families
@every_shape
@every_dtype
def test_gradients_are_the_sum_of_those_alone(family, kernel, weighted, frontend, dtype, tolerance, scale, tmp_path):
    options = {"num_conv_pos_embeddings": kernel, "use_weighted_layer_sum": weighted}
    reference, model = transformers_and_ours(tmp_path, family, frontend, **options)
    reference.to(dtype).train(), model.to(dtype).train()
    clips = [clip.to(dtype) for clip in make_clips()[::2]]
    labels = torch.tensor([2, 0, 1, 2])
    values, mask = pad(clips, extra=1000, scale=scale)
    cross_entropy(model(values, mask), labels, reduction="sum").backward()
    for clip, label in zip(clips, labels, strict=True):
        reference(clip[None], labels=label[None]).loss.backward()
    # transformers calls the encoder by its family, and what is not in it belongs to the head.
    prefix = f"{reference.base_model_prefix}."
    alone = {
        "backbone." + name.removeprefix(prefix) if name.startswith(prefix) else "head." + name: gradient
        for name, gradient in gradients(reference).items()
    }
    assert len(alone) > 40
    assert_same_gradients(gradients(model), alone, tolerance)


@different_families
@every_dtype
def test_gradients_of_the_attention_head(family, dtype, tolerance, scale):
    model = attention_classifier(family).to(dtype).train()
    other = copy.deepcopy(model)
    clips = [clip.to(dtype) for clip in make_clips()[::2]]
    labels = torch.tensor([2, 0, 1, 2])
    cross_entropy(model(*pad(clips, extra=1000, scale=scale)), labels, reduction="sum").backward()
    for clip, label in zip(clips, labels, strict=True):
        cross_entropy(by_transformers(other, clip), label[None]).backward()
    assert_same_gradients(gradients(model), gradients(other), tolerance)


@every_family
def test_clips_too_short_for_a_frame(family, tmp_path):
    """They are normalised as they are, then extended with zeros that count as their own."""
    reference, model = transformers_and_ours(tmp_path, family)
    rng = np.random.default_rng(0)
    # No two of a loudness or an offset; a single sample, less its mean, is silence.
    waveforms = [
        (rng.standard_normal(length) * (i + 1) + 0.2 * i).astype(np.float32)
        for i, length in enumerate((1, 160, 399, 400, 5000))
    ]
    items = [{"waveform": waveform, "label": 0, "index": i} for i, waveform in enumerate(waveforms)]
    collator = waveform_collator()
    with torch.no_grad():
        alone = []
        for waveform in waveforms:
            normal = Wav2Vec2FeatureExtractor.zero_mean_unit_var_norm([waveform], None)[0]
            extended = np.concatenate([normal, np.zeros(max(0, 400 - len(normal)), np.float32)])
            alone.append(reference(torch.from_numpy(extended)[None]).logits)
        alone = torch.cat(alone)
        assert torch.pdist(alone).min() > 1e-3
        for rows in ([0], [1], [2], [3], [0, 1, 2, 3], [3, 4, 0, 2, 1]):
            batch = collator([items[row] for row in rows])
            assert difference(model(batch["input_values"], batch["attention_mask"]), alone[rows]) <= CLOSE


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A folder that transformers saved, and its model."""
    folder = tmp_path_factory.mktemp("checkpoint")
    reference, _ = transformers_and_ours(folder, "distilhubert")
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return folder, reference


def logits_alone(reference: torch.nn.Module, path) -> torch.Tensor:
    normal = Wav2Vec2FeatureExtractor()(load_audio(path, 16_000), sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        return reference(normal["input_values"]).logits


def test_load(checkpoint, tmp_path):
    folder, reference = checkpoint
    rng = np.random.default_rng(0)
    # More than are decoded together at batch size 1, of 25 ms to 2 s.
    paths = [tmp_path / f"{i}.wav" for i in range(20)]
    for path, seconds in zip(paths, [0.025, *rng.uniform(0.03, 2.0, 19)], strict=True):
        soundfile.write(path, rng.uniform(0.05, 0.2) * rng.standard_normal(round(seconds * 16_000)), 16_000)
    alone = torch.cat([logits_alone(reference, path) for path in paths]).softmax(dim=-1)
    classifier = audioclf.load(folder, device="cpu")
    order = rng.permutation(len(paths)).tolist()
    for batch_size in (1, 3, 8):
        assert difference(torch.from_numpy(classifier.probabilities(paths, batch_size)), alone) <= CLOSE
        mixed = classifier.probabilities([paths[i] for i in order], batch_size)
        assert difference(torch.from_numpy(mixed), alone[order]) <= CLOSE


def test_evaluate(checkpoint, tones, tmp_path):
    folder, reference = checkpoint
    clips = audioclf.load_dataset(tones).test
    losses = [cross_entropy(logits_alone(reference, c.audio), torch.tensor([LABELS.index(c.label)])) for c in clips]
    alone = math.fsum(map(float, losses)) / len(losses)
    for batch_size in (1, 7):
        metrics = audioclf.evaluate(folder, tones, batch_size=batch_size, cache_dir=str(tmp_path))
        assert metrics["loss"] == pytest.approx(alone, abs=1e-6)
