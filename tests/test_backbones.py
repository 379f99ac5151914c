"""Every family of encoders, as a tiny model of its real class, beside transformers on each clip alone."""

import huggingface_hub
import numpy as np
import pytest
import soundfile
import torch
from conftest import tiny_config
from transformers import (
    ASTConfig,
    ASTModel,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    Data2VecAudioConfig,
    Data2VecAudioModel,
    HubertConfig,
    UniSpeechConfig,
    UniSpeechSatConfig,
    UniSpeechSatForPreTraining,
    Wav2Vec2BertConfig,
    Wav2Vec2BertModel,
    Wav2Vec2Config,
    Wav2Vec2ConformerConfig,
    Wav2Vec2ConformerForPreTraining,
    Wav2Vec2ForPreTraining,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperForConditionalGeneration,
    pipeline,
)

import audioclf
from audioclf import CheckpointError, ConfigError
from audioclf.collate import make_collator
from audioclf.models.backbone import BACKBONES, backbone_of, encode, num_outputs
from audioclf.models.classifier import build_classifier
from audioclf.models.loading import NAMES, load_feature_extractor, resolve

RATE = 16_000
LABELS = ["high", "low", "mid"]
LAYER_NORM = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
PRETRAINING = {"codevector_dim": 8, "proj_codevector_dim": 8, "num_codevectors_per_group": 4}

CONFIGS = {
    "hubert": tiny_config(),
    "hubert-large": tiny_config(**LAYER_NORM),
    "wav2vec2": tiny_config(Wav2Vec2Config, **PRETRAINING),
    "wavlm": tiny_config(WavLMConfig),
    "wavlm-large": tiny_config(WavLMConfig, **LAYER_NORM),
    "unispeech": tiny_config(UniSpeechConfig),
    "unispeech-sat": tiny_config(UniSpeechSatConfig, **PRETRAINING),
    "data2vec-audio": tiny_config(
        Data2VecAudioConfig, num_conv_pos_embeddings=3, conv_pos_kernel_size=5, mask_time_prob=0.0
    ),
    **{
        f"wav2vec2-conformer {kind}": tiny_config(
            Wav2Vec2ConformerConfig,
            position_embeddings_type=kind,
            conv_depthwise_kernel_size=7,
            conformer_conv_dropout=0.0,
            **PRETRAINING,
        )
        for kind in ("relative", "rotary")
    },
    **{
        f"wav2vec2-bert {kind}": Wav2Vec2BertConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=48,
            classifier_proj_size=16,
            position_embeddings_type=kind,
            conv_depthwise_kernel_size=7,
            apply_spec_augment=False,
            layerdrop=0.0,
            hidden_dropout=0.0,
            attention_dropout=0.0,
            activation_dropout=0.0,
            feat_proj_dropout=0.0,
            final_dropout=0.0,
            conformer_conv_dropout=0.0,
        )
        for kind in ("relative_key", "relative")
    },
    "audio-spectrogram-transformer": ASTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        num_mel_bins=64,
        max_length=100,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    ),
    "whisper": WhisperConfig(
        d_model=32,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_source_positions=50,
        num_mel_bins=40,
        classifier_proj_size=16,
        vocab_size=60,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    ),
}
FIXED_WINDOW = ("audio-spectrogram-transformer", "whisper")
DIFFERENT = ("hubert", "wav2vec2-conformer relative", "wav2vec2-bert relative_key", *FIXED_WINDOW)
every_family = pytest.mark.parametrize("name", CONFIGS)


def wide(model: torch.nn.Module) -> torch.nn.Module:
    """Random weights large enough that every part of the model is heard in its output."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.15, generator=generator)
            elif parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm1d):
                module.running_mean.normal_(0, 0.3, generator=generator)
                module.running_var.uniform_(0.5, 2.0, generator=generator)
    return model


def saved(name: str, folder, **options):
    """A transformers checkpoint of this family with a classification head; returns transformers' own model."""
    config = type(CONFIGS[name])(
        **{**CONFIGS[name].to_dict(), "id2label": dict(enumerate(LABELS)), "label2id": None, **options}
    )
    config.label2id = {label: index for index, label in enumerate(LABELS)}
    model = wide(AutoModelForAudioClassification.from_config(config)).eval()
    model.save_pretrained(folder)
    backbone_of(config).extractor(config).save_pretrained(folder)
    return model


def clips(*seconds: float) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [
        (0.3 * np.sin(2 * np.pi * rng.uniform(100, 4000) * np.arange(int(s * RATE)) / RATE)).astype(np.float32)
        + 0.05 * rng.standard_normal(int(s * RATE)).astype(np.float32)
        for s in seconds
    ]


def alone(model: torch.nn.Module, extractor, waveform: np.ndarray) -> np.ndarray:
    """Transformers' logits (C,) for one clip."""
    inputs = extractor(waveform, sampling_rate=RATE, return_tensors="pt")
    with torch.no_grad():
        return model(**inputs).logits[0].numpy()


@every_family
def test_a_batch_gives_what_transformers_gives_for_each_clip_alone(name, tmp_path):
    model = saved(name, tmp_path)
    classifier = audioclf.load(tmp_path)
    sounds = clips(0.31, 0.9, 0.5003, 0.04, 0.7, 0.33)
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path)
    wanted = np.stack([alone(model, extractor, sound) for sound in sounds])
    items = [{"waveform": sound, "label": 0, "index": index} for index, sound in enumerate(sounds)]
    batch = classifier.collator(items)
    with torch.inference_mode():
        logits = classifier.model(batch["input_values"], batch["attention_mask"]).numpy()
    assert np.ptp(wanted, axis=0).max() > 0.03  # the clips do differ
    assert np.abs(logits - wanted).max() < 1e-5


@every_family
def test_gradients_of_a_batch_are_those_of_its_clips(name):
    """With the model in training mode; dropout is 0."""
    model = build_classifier(CONFIGS[name], "mean", LABELS).train()
    wide(model)
    collator = make_collator(model.config, load_feature_extractor(CONFIGS[name]))
    items = [{"waveform": c, "label": i % 3, "index": i} for i, c in enumerate(clips(0.31, 0.9, 0.5))]

    def gradients(*batches):
        model.zero_grad()
        for batch in map(collator, batches):
            logits = model(batch["input_values"], batch["attention_mask"])
            torch.nn.functional.cross_entropy(logits, batch["labels"], reduction="sum").backward()
        return {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}

    together, apart = gradients(items), gradients(*([item] for item in items))
    largest = max(gradient.abs().max() for gradient in apart.values())
    for key, gradient in apart.items():
        assert (together[key] - gradient).abs().max() < 2e-5 * largest, key


@every_family
def test_frames_are_hidden_states(name):
    model = build_classifier(CONFIGS[name], "mean", LABELS).eval()
    wide(model)
    (clip,) = clips(0.6)
    batch = make_collator(model.config, load_feature_extractor(CONFIGS[name]))(
        [{"waveform": clip, "label": 0, "index": 0}]
    )
    with torch.no_grad():
        frames, mask = encode(model.backbone, batch["input_values"], None, "reference")
        theirs = model.backbone(batch["input_values"], output_hidden_states=True)
    reference = [*theirs.hidden_states]
    if len(frames) > len(reference):
        reference.append(theirs.last_hidden_state)
    assert len(frames) == len(reference) == num_outputs(model.config)
    for ours, wanted in zip(frames, reference, strict=True):
        assert torch.equal(ours, wanted)
    assert torch.equal(frames[-1], theirs.last_hidden_state)
    assert mask.shape == frames[0].shape[:2]
    assert mask.all()


@every_family
def test_numbers_of_frames(name):
    model = build_classifier(CONFIGS[name], "mean", LABELS).eval()
    extractor = load_feature_extractor(CONFIGS[name])
    collator = make_collator(model.config, extractor)
    lengths = [400, 559, 560, 719, 720, 721, 1_000, 8_000, 8_191, 12_345]
    counted = backbone_of(model.config).num_frames(torch.tensor(lengths), model.config, extractor)
    for length, count in zip(lengths, counted.clamp(min=1).tolist(), strict=True):
        batch = collator([{"waveform": np.ones(length, np.float32), "label": 0, "index": 0}])
        with torch.no_grad():
            frames, mask = encode(model.backbone, batch["input_values"], batch["attention_mask"])
        assert frames[0].shape[1] == int(mask.sum()) == count


@pytest.mark.parametrize(
    ("name", "head"),
    [
        *((name, "mean") for name in CONFIGS),
        ("hubert", "attention"),
        *(pytest.param(name, "attention", marks=pytest.mark.slow) for name in DIFFERENT if name != "hubert"),
    ],
)
def test_training_and_back_to_transformers(name, head, tmp_path, tones, quick):
    saved(name, tmp_path / "start")
    result = audioclf.train(
        tones,
        output_dir=tmp_path / "run",
        **{**quick, "model": str(tmp_path / "start"), "head": head, "num_epochs": 1},
    )
    classifier = audioclf.load(result.checkpoint_dir)
    audioclf.register()
    pipe = pipeline("audio-classification", model=str(result.checkpoint_dir), device="cpu")
    for clip in clips(0.4, 0.8):
        soundfile.write(tmp_path / "clip.wav", clip, RATE, subtype="FLOAT")
        ours = {entry["label"]: entry["score"] for entry in classifier(tmp_path / "clip.wav")}
        theirs = pipe({"array": clip.copy(), "sampling_rate": RATE}, top_k=None)
        assert {entry["label"]: entry["score"] for entry in theirs} == pytest.approx(ours, abs=1e-5)
    again = audioclf.evaluate(result.checkpoint_dir, tones, split="valid")
    assert again["loss"] == pytest.approx(result.best_metrics["loss"], abs=1e-5)


@pytest.mark.parametrize(
    "name", ["data2vec-audio", "wav2vec2-conformer relative", "wav2vec2-bert relative_key", *FIXED_WINDOW]
)
def test_features_of_a_frozen_backbone(name, tmp_path, tones, quick):
    """Cached and live they give the same run."""
    saved(name, tmp_path / "start")
    options = {**quick, "model": str(tmp_path / "start"), "freeze": "backbone", "num_epochs": 2}
    cached, live = (
        audioclf.train(tones, output_dir=tmp_path / str(kept), cache_features=kept, **options) for kept in (True, False)
    )
    assert cached.history[0]["event"] == "step"
    for one, other in zip(cached.history, live.history, strict=True):
        if "loss" in one:
            assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("name", "pretrained", "prefix"),
    [
        ("wav2vec2", Wav2Vec2ForPreTraining, "wav2vec2."),
        ("wavlm", WavLMModel, ""),
        ("unispeech-sat", UniSpeechSatForPreTraining, "unispeech_sat."),
        ("data2vec-audio", Data2VecAudioModel, ""),
        ("wav2vec2-conformer relative", Wav2Vec2ConformerForPreTraining, "wav2vec2_conformer."),
        ("wav2vec2-bert relative_key", Wav2Vec2BertModel, ""),
        ("audio-spectrogram-transformer", ASTModel, ""),
        ("whisper", WhisperForConditionalGeneration, "model.encoder."),
    ],
)
def test_weights_of_a_pretrained_checkpoint_arrive(name, pretrained, prefix, tmp_path):
    """As they lie on the hub: without a classification head, some with a decoder."""
    model = wide(pretrained(CONFIGS[name]))
    model.save_pretrained(tmp_path)
    before = {key.removeprefix(prefix): value for key, value in model.state_dict().items() if key.startswith(prefix)}
    encoder = build_classifier(str(tmp_path), "mean", LABELS).backbone.state_dict()
    assert encoder
    for key, value in encoder.items():
        assert torch.equal(value, before[key]), key


@pytest.mark.parametrize("name", ["wav2vec2-bert relative_key", *FIXED_WINDOW])
def test_what_has_no_waveform_cnn_cannot_freeze_it(name, tmp_path, tones, quick):
    options = {**quick, "model": CONFIGS[name]}
    with pytest.raises(ConfigError, match="freezes the waveform CNN, and a model of the kind"):
        audioclf.train(tones, output_dir=tmp_path / "a", freeze="feature_encoder", **options)
    with pytest.raises(ConfigError, match="frontend='fast' cannot compute this model: it has no waveform CNN"):
        audioclf.train(tones, output_dir=tmp_path / "b", frontend="fast", **options)


@pytest.mark.parametrize(("name", "heard"), [("audio-spectrogram-transformer", 1.015), ("whisper", 1.0)])
def test_what_lies_beyond_the_window_is_not_heard(name, heard, tmp_path):
    saved(name, tmp_path)
    classifier = audioclf.load(tmp_path)
    assert classifier.max_seconds == heard
    (clip,) = clips(3.0)
    longer = clip.copy()
    longer[int(1.1 * RATE) :] = 0.9
    sounds = [{"array": sound, "sampling_rate": RATE} for sound in (clip, longer)]
    assert np.array_equal(*classifier.probabilities(sounds))


def test_the_window_is_told(tones, quick, tmp_path, capsys):
    options = {**quick, "model": CONFIGS["whisper"], "num_epochs": 1, "progress": True}
    result = audioclf.train(tones, output_dir=tmp_path, max_seconds=0.5, **options)
    assert "hears" not in capsys.readouterr().out
    assert audioclf.load(result.checkpoint_dir).max_seconds == 0.5
    result = audioclf.train(tones, output_dir=tmp_path, overwrite=True, **options)
    assert "This encoder hears 1 s of a clip" in capsys.readouterr().out
    assert audioclf.load(result.checkpoint_dir).max_seconds == 1.0


def test_batch_norms_keep_their_statistics(tones, quick, tmp_path):
    """Those of a batch would let its clips change each other's gradients."""
    name = "wav2vec2-conformer relative"
    before = saved(name, tmp_path / "start").state_dict()
    options = {**quick, "model": str(tmp_path / "start"), "num_epochs": 1}
    result = audioclf.train(tones, output_dir=tmp_path / "run", **options)
    after = audioclf.load(result.checkpoint_dir).model.state_dict()
    kept = [key for key in after if "running_" in key or "num_batches" in key]
    assert len(kept) == 6
    for key in kept:
        assert torch.equal(after[key], before[f"wav2vec2_conformer.{key.removeprefix('backbone.')}"])


def test_the_wrong_feature_extractor_is_refused(tmp_path):
    saved("whisper", tmp_path)
    saved("hubert", tmp_path / "other")
    (tmp_path / "preprocessor_config.json").write_bytes((tmp_path / "other/preprocessor_config.json").read_bytes())
    with pytest.raises(CheckpointError, match="Wav2Vec2FeatureExtractor, but its encoder, whisper, needs Whisper"):
        audioclf.load(tmp_path)


def test_short_names(tmp_path, monkeypatch):
    assert resolve("distilhubert") == "ntu-spml/distilhubert"
    assert all(hub_id.count("/") == 1 and resolve(name) == hub_id for name, hub_id in NAMES.items())
    assert resolve("someone/model") == "someone/model"
    config = HubertConfig()
    assert resolve(config) is config
    monkeypatch.chdir(tmp_path)
    (tmp_path / "distilhubert").mkdir()
    assert resolve("distilhubert") == "distilhubert"  # a folder of that name is what the user sees


def test_a_misspelt_name_is_corrected(tones, quick, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="'hubert-bas': there is no such model or local folder; did you mean 'hu"):
        audioclf.train(tones, output_dir=tmp_path / "a", **{**quick, "model": "hubert-bas"})


def test_every_family_is_tested():
    assert {config.model_type for config in CONFIGS.values()} == set(BACKBONES)
