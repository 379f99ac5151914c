"""Options are checked at the door, each with a sentence that names it."""

import dataclasses
import json
from pathlib import Path
from typing import get_args

import pytest
import torch
from transformers import HubertConfig

from audioclf.checks import nearest
from audioclf.config import HEADS, Metric, TrainConfig, default_cache_dir
from audioclf.errors import AudioclfError, ConfigError
from audioclf.recipes import RECIPES

NAN, INF = float("nan"), float("inf")


def fails(sentence: str, **options) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainConfig(**options)
    assert str(caught.value) == sentence


def whole(name: str, least: int) -> list:
    values = [least - 1, -5, 1.5, 8.0, "8", True, [8]]
    return [(name, v, f"{name}={v!r} must be a whole number of at least {least}.") for v in values]


def number(name: str, bounds: str, outside: tuple) -> list:
    values = [*outside, NAN, INF, -INF, "0.1", True, [0.1]]
    return [(name, v, f"{name}={v!r} must be a number {bounds}.") for v in values]


def choice(name: str, choices: str, near: tuple[str, str]) -> list:
    typo, meant = near
    return [
        (name, typo, f"{name}={typo!r} is not one of {choices}; did you mean {meant!r}?"),
        (name, "zzz", f"{name}='zzz' is not one of {choices}."),
        (name, 3, f"{name}=3 is not one of {choices}."),
    ]


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        *whole("num_epochs", 1),
        *whole("batch_size", 1),
        *whole("eval_batch_size", 1),
        *whole("gradient_accumulation_steps", 1),
        *whole("logging_steps", 1),
        *whole("patience", 1),
        *whole("seed", 0),
        *whole("num_workers", 0),
        *number("learning_rate", "above 0", (0, 0.0, -1e-5)),
        *number("head_learning_rate", "above 0", (0, -1e-5)),
        *number("max_batch_seconds", "above 0", (0, -1)),
        *number("max_grad_norm", "above 0", (0, -1)),
        *number("max_seconds", "above 0", (0, -1)),
        *whole("lora_rank", 1),
        *number("dropout", "at least 0 and below 1", (-0.1, 1)),
        *number("weight_decay", "at least 0", (-0.01,)),
        *number("warmup_ratio", "at least 0 and at most 1", (-0.1, 1.1, 500)),
        *number("valid_fraction", "above 0 and below 1", (0, 1, 1.0, -0.1, 20)),
        *choice("lr_schedule", "linear, cosine, constant", ("cosin", "cosine")),
        *choice("precision", "auto, fp32, bf16, fp16", ("fp23", "fp32")),
        *choice("device", "auto, cuda, mps, cpu", ("CUDA:cuda", "cuda")),
        *choice("freeze", "none, feature_encoder, backbone", ("feature-encoder", "feature_encoder")),
        *choice("metric_for_best", ", ".join(get_args(Metric)), ("macro-f1", "macro_f1")),
        *choice("bad_audio", "auto, skip, error", ("skipp", "skip")),
        *choice("head", ", ".join(HEADS), ("attn", "attention"))[1:],
        (
            "head",
            "atention",
            "head='atention' is not one of mean, attention, mix, multihead, mlp; did you mean 'attention'?",
        ),
        ("loss", "focal", "loss='focal' is not one of auto."),
        ("output_dir", "", "output_dir is empty: name a folder for the results."),
    ],
)
def test_bad_values(name, value, sentence):
    fails(sentence, **{name: value})


@pytest.mark.parametrize("name", ["resume", "overwrite", "random_crop", "progress", "balanced_sampling", "calibrate"])
@pytest.mark.parametrize("value", ["no", "false", 2, None])
def test_switches_are_true_or_false(name, value):
    """`overwrite="no"` must not delete a run."""
    with pytest.raises(ConfigError, match=name):
        TrainConfig(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("dropout", 0.0), ("lora_rank", 4)],
)
def test_nothing_is_asked_of_a_frozen_encoder(name, value):
    fails(
        f"{name}={value} is about training the encoder, all of which freeze='backbone' freezes: leave one of the two "
        "out.",
        **{name: value},
        freeze="backbone",
    )
    assert getattr(TrainConfig(**{name: value}, freeze="feature_encoder"), name) == value


def test_levers_that_exclude_each_other():
    fails(
        "class_weights='balanced' and balanced_sampling=True both make up for rare classes, and would do so twice: "
        "choose one of them.",
        class_weights="balanced",
        balanced_sampling=True,
    )
    assert TrainConfig(class_weights={"a": 2.0, "b": 1.0}, balanced_sampling=True).balanced_sampling


@pytest.mark.parametrize(("name", "value"), [("output_dir", 3), ("cache_dir", 3), ("model", 3), ("seed", 2**64)])
def test_values_that_fail_later(name, value):
    """What would end in a TypeError or OverflowError in mid-run is refused at the door."""
    with pytest.raises(ConfigError, match=name):
        TrainConfig(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_epochs", 1),
        ("eval_batch_size", None),
        ("patience", None),
        ("patience", 1),
        ("seed", 0),
        ("num_workers", 0),
        ("learning_rate", 1),
        ("head_learning_rate", None),
        ("max_batch_seconds", None),
        ("max_batch_seconds", 0.5),
        ("weight_decay", 0),
        ("warmup_ratio", 0),
        ("warmup_ratio", 1),
        ("valid_fraction", 0.999),
        ("max_seconds", 0.5),
        ("freeze", "backbone"),
        ("head", "attention"),
        ("head", torch.nn.Identity),
        ("loss", lambda config: torch.nn.CrossEntropyLoss(reduction="none")),
    ],
)
def test_good_values(name, value):
    assert getattr(TrainConfig(**{name: value}), name) is value


def test_defaults_are_the_course_recipe():
    config = TrainConfig()
    assert (config.num_epochs, config.batch_size, config.gradient_accumulation_steps) == (10, 8, 1)
    assert (config.learning_rate, config.warmup_ratio, config.lr_schedule) == (5e-5, 0.1, "linear")
    assert (config.model, config.max_seconds) == ("ntu-spml/distilhubert", 30.0)


def test_frozen_and_by_keyword_only():
    config = TrainConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 1
    with pytest.raises(TypeError):
        TrainConfig("out")


def test_every_option_is_documented():
    """One string below each field, in the order of the fields."""
    source = Path(__import__("audioclf.config").config.__file__).read_text(encoding="utf-8")
    for field in dataclasses.fields(TrainConfig):
        below = source.split(f"\n    {field.name}: ", 1)[1].split("\n", 2)[1]
        assert below.startswith('    """'), field.name
        assert below.endswith('."""'), field.name


def test_paths_become_strings():
    config = TrainConfig(output_dir=Path("out") / "run", cache_dir=Path("cache"), model=Path("model"))
    assert (config.output_dir, config.cache_dir, config.model) == (str(Path("out/run")), "cache", "model")


# --- overrides -------------------------------------------------------------------------------------------------------


def test_overrides():
    config = TrainConfig(batch_size=4, seed=7)
    changed = TrainConfig.from_overrides(config, {"seed": 8, "lr_schedule": "cosine"})
    assert changed == dataclasses.replace(config, seed=8, lr_schedule="cosine")
    assert config.seed == 7
    assert TrainConfig.from_overrides(None, {}) == TrainConfig()


def test_recipes():
    """Their options take the place of the config's; those given beside them go before."""
    config = TrainConfig(seed=7, num_epochs=3)
    best = TrainConfig.from_overrides(config, {"recipe": "best", "chunk_seconds": 5.0})
    assert (best.seed, best.num_epochs, best.augment) == (7, 20, RECIPES["best"]["augment"])
    assert (best.chunk_seconds, best.random_crop) == (5.0, True)
    assert TrainConfig.from_overrides(None, {"recipe": "course"}) == TrainConfig()
    assert TrainConfig.from_overrides(None, {"recipe": "fast"}) == TrainConfig(freeze="feature_encoder")
    with pytest.raises(ConfigError, match=r"recipe='bets' is not one of course, fast, best"):
        TrainConfig.from_overrides(None, {"recipe": "bets"})


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("batchsize", "; did you mean 'batch_size'?"),
        ("learning_rates", "; did you mean 'learning_rate'?"),
        ("epochs", "; did you mean 'num_epochs'?"),
        ("zzz", "."),
        ("to_dict", "."),
    ],
)
def test_unknown_option(name, end):
    with pytest.raises(ConfigError) as caught:
        TrainConfig.from_overrides(None, {name: 1})
    assert str(caught.value) == f"There is no option {name!r}{end}"


def test_overrides_are_checked():
    with pytest.raises(ConfigError, match=r"^batch_size=0 must be a whole number of at least 1\.$"):
        TrainConfig.from_overrides(TrainConfig(), {"batch_size": 0})


def test_config_errors_are_audioclf_errors():
    assert issubclass(ConfigError, AudioclfError)


# --- to_dict ---------------------------------------------------------------------------------------------------------


def test_to_dict_names_every_option():
    config = TrainConfig(seed=3, cache_dir=Path("cache"))
    values = json.loads(json.dumps(config.to_dict()))
    assert list(values) == [field.name for field in dataclasses.fields(TrainConfig)]
    assert TrainConfig(**values) == config


def test_to_dict_of_objects():
    class Head(torch.nn.Module):
        pass

    values = TrainConfig(model=HubertConfig(hidden_size=48), head=Head, loss=lambda config: None).to_dict()
    values = json.loads(json.dumps(values))
    assert values["model"]["hidden_size"] == 48
    assert values["head"] == f"{__name__}.test_to_dict_of_objects.<locals>.Head"
    assert values["loss"].startswith(f"{__name__}.")


def test_to_dict_is_a_copy():
    model = HubertConfig()
    TrainConfig(model=model).to_dict()["model"]["hidden_size"] = 1
    assert model.hidden_size == 768


# --- small ones ------------------------------------------------------------------------------------------------------


def test_nearest():
    assert nearest("vaild", ["train", "valid"]) == "; did you mean 'valid'?"
    assert nearest("x", ("train", "valid")) == "."
    assert nearest("x", []) == "."


def test_default_cache_dir(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert default_cache_dir() == tmp_path / ".cache" / "audioclf"
