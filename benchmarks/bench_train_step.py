"""One optimizer step of DistilHuBERT's full shape: transformers' and torchaudio's models and ours, side by side.

Usage: python benchmarks/bench_train_step.py [--clips 2] [--seconds 30] [--precision fp32] [--freeze none]
       [--device cpu] [--cached] [--keep-memory] [--rounds 3] [--json FILE]

Random weights, the config's own dropout of 0.1, train mode; forward, loss, backward, clipping, AdamW: Trainer's recipe.
All sides run in one process by turns, and medians are printed; peak memory is measured in a process of its own.
"products alone" is what a side's matrix products would take at the speed of a large product. --cached gives ours the
features of a frozen encoder, as `cache_features` does. --keep-memory lets the C library keep freed memory, for all
sides alike. --rounds 0 measures memory only.
"""

import argparse
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import torch
import torchaudio
import transformers
from measure import interleaved, num_operations, parser, peak_gib, write

from audioclf.allocator import keep_freed_memory
from audioclf.evaluation import forward
from audioclf.models.classifier import build_classifier, freeze, place
from audioclf.runtime import DTYPES, autocast

RATE, LABELS = 16_000, [str(label) for label in range(10)]
SIDES = ("transformers", "torchaudio", "audioclf")


def main() -> None:
    made = parser(__doc__, rounds=3, device=True)
    made.add_argument("--clips", type=int, default=2)
    made.add_argument("--seconds", type=float, default=30)
    made.add_argument("--precision", choices=list(DTYPES), default="fp32")
    made.add_argument("--freeze", choices=["none", "feature_encoder", "backbone"], default="none")
    made.add_argument("--cached", action="store_true")
    made.add_argument("--keep-memory", action="store_true")
    options = made.parse_args()
    peaks = {}
    for side in SIDES:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            peaks[side] = pool.submit(peak_memory, side, options).result()
    figures = {}
    for side in SIDES:
        share = peaks["audioclf"] / peaks[side]
        figures[side] = {"peak_gib": round(peaks[side], 2), "audioclf's share of its memory": round(share, 2)}
    if options.rounds:
        steps = {side: make_step(side, options) for side in SIDES}
        rows, speed = interleaved(steps, options.rounds, options.precision, options.device)
        for side, row in rows.items():
            row["products alone"] = round(num_operations(steps[side]) / speed / 1e9, 3)
            row["audioclf is times as fast"] = round(row["seconds"] / rows["audioclf"]["seconds"], 2)
            figures[side] |= row
        figures["product_gflops"] = round(speed, 1)
    write(options, figures)


def make_step(side: str, options: argparse.Namespace) -> Callable[[], None]:
    """One step of either side on the same batch, ready to be called."""
    device = torch.device(options.device)
    if options.keep_memory:
        keep_freed_memory()
    torch.manual_seed(0)
    shape = {"num_hidden_layers": 2, "feat_proj_layer_norm": False, "apply_spec_augment": False}
    config = transformers.HubertConfig(final_dropout=0.0, layerdrop=0.0, num_labels=len(LABELS), **shape)
    values = torch.randn(options.clips, round(options.seconds * RATE)).to(device)
    batch = {"input_values": values, "attention_mask": torch.ones(values.shape, dtype=torch.long, device=device)}
    labels = torch.arange(options.clips, device=device) % len(LABELS)
    if side == "transformers":
        model = transformers.AutoModelForAudioClassification.from_config(config).to(device)
        if options.freeze != "none":
            model.freeze_feature_encoder()
        if options.freeze == "backbone":
            model.freeze_base_model()

        def logits() -> torch.Tensor:
            with autocast(device, options.precision):
                return model(**batch).logits.float()
    elif side == "torchaudio":
        model = torchaudio_model().to(device)
        if options.freeze != "none":
            model[0].feature_extractor.requires_grad_(False)
        if options.freeze == "backbone":
            model[0].requires_grad_(False)

        def logits() -> torch.Tensor:
            with autocast(device, options.precision):
                return model[1](model[0].extract_features(values)[0][-1].mean(1)).float()
    else:
        model = place(build_classifier(config, "mean", LABELS), device)
        freeze(model, options.freeze)
        if options.cached:
            with torch.no_grad(), autocast(device, options.precision):
                features = model.eval().features(values).to(DTYPES[options.precision])
            batch = {"features": features, "num_frames": torch.full((options.clips,), features.shape[1])}

        def logits() -> torch.Tensor:
            return forward(model, batch, device, options.precision)

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=5e-5, fused=True)
    model.train()

    def step() -> None:
        torch.nn.functional.cross_entropy(logits(), labels).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def torchaudio_model() -> torch.nn.Sequential:
    """The encoder of torchaudio in the same shape, and a linear head for the mean of its frames."""
    encoder = torchaudio.models.wav2vec2_model(
        extractor_mode="group_norm",
        extractor_conv_layer_config=[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512, 2, 2)] * 2,
        extractor_conv_bias=False,
        encoder_embed_dim=768,
        encoder_projection_dropout=0.0,
        encoder_pos_conv_kernel=128,
        encoder_pos_conv_groups=16,
        encoder_num_layers=2,
        encoder_num_heads=12,
        encoder_attention_dropout=0.1,
        encoder_ff_interm_features=3072,
        encoder_ff_interm_dropout=0.1,
        encoder_dropout=0.1,
        encoder_layer_norm_first=False,
        encoder_layer_drop=0.0,
        aux_num_out=None,
    )
    return torch.nn.Sequential(encoder, torch.nn.Linear(768, len(LABELS)))


def peak_memory(side: str, options: argparse.Namespace) -> float:
    """Peak in GiB after two steps in a process of its own."""
    step = make_step(side, options)
    step()
    step()
    return peak_gib(options.device)


if __name__ == "__main__":
    main()
