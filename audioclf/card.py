"""The model card of a checkpoint: README.md and confusion.png, of what its audioclf.json and its evaluations say."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import Environment, PackageLoader

from . import __version__
from .checkpoint import write_file
from .config import TrainConfig
from .evaluation import Evaluation
from .export import read_metadata
from .figures import MAX_MATRIX_CLASSES, confusion_figure
from .metrics import NAMES
from .models.loading import resolve

CARD_FILE, CONFUSION_FILE = "README.md", "confusion.png"
PARTS = {"valid": "validation", "test": "test"}
HUB_METRICS = {"uar": "recall", "macro_f1": "f1", "micro_f1": "f1", "auroc": "roc_auc"}
"""What the hub calls some of our metrics; the others go by their own names."""
NO_LICENSE = "No licence is stated here; that of the base model and of the data apply."
LOCAL = (
    *("output_dir", "cache_dir", "resume", "overwrite", "progress", "num_workers", "device", "report"),
    *("push_to_hub", "hub_private"),
)
"""Options that say nothing about the model."""
FOLDERS = re.compile(r"(?:[A-Za-z]:)?[\\/](?:[^\\/'\"\n]+[\\/])+")
"""The folders of an absolute path."""


def without_local_paths(value: Any) -> Any:
    """The same JSON, with only the last part of each path that begins at the root."""
    if isinstance(value, str):
        return FOLDERS.sub("", value)
    if isinstance(value, dict):
        return {without_local_paths(key): without_local_paths(entry) for key, entry in value.items()}
    return [without_local_paths(entry) for entry in value] if isinstance(value, list) else value


def public_metadata(folder: Path) -> dict[str, Any]:
    """What a checkpoint's audioclf.json says, less what concerns only the machine it was trained on."""
    metadata = without_local_paths(read_metadata(str(folder)))
    if "config" in metadata:
        metadata["config"] = {key: value for key, value in metadata["config"].items() if key not in LOCAL}
    if "set_aside" in metadata.get("data", {}):
        metadata["data"]["set_aside"] = {f"clip {n}": "unreadable" for n in range(len(metadata["data"]["set_aside"]))}
    return metadata


def write_card(
    folder: Path,
    evaluations: dict[str, Evaluation] | None = None,
    *,
    groups: bool = False,
    repo: str | None = None,
    license: str | None = None,
) -> None:
    """Writes the card into a checkpoint's folder.

    Args:
        folder: The checkpoint.
        evaluations: Of these very weights, by part (`valid`, `test`); what audioclf.json says when not given.
        groups: Whether the data has groups, each of which is in one part.
        repo: The repository it is for, `user/name`.
        license: Its licence, as the hub calls it, such as `apache-2.0`.

    Raises:
        OSError: when a file cannot be written.
    """
    metadata, config = public_metadata(folder), json.loads((folder / "config.json").read_text(encoding="utf-8"))
    scores = {PARTS[part]: evaluation.metrics for part, evaluation in (evaluations or {}).items()}
    if not scores and metadata.get("metrics"):
        scores = {"validation": metadata["metrics"]}
    name = re.sub(r"[^\w.-]+", "-", (repo or folder.resolve().parent.name).split("/")[-1])
    shown = next((evaluations[part] for part in ("test", "valid") if part in (evaluations or {})), None)
    if shown is not None and shown.confusion is not None:
        _draw(folder / CONFUSION_FILE, shown.confusion, metadata["labels"])
    labels = metadata.get("labels") or [config["id2label"][key] for key in sorted(config["id2label"], key=int)]
    options = metadata.get("config", {})
    defaults = TrainConfig().to_dict()
    data = ModelCardData(
        license=license,
        base_model=_hub_id(options.get("model")),
        library_name="transformers",
        pipeline_tag="audio-classification",
        tags=["audio-classification", "audioclf"],
        model_name=name,
        eval_results=_eval_results(metadata.get("data", {}).get("name", "its data"), scores) or None,
    )
    facts = {
        "name": name,
        "repo": repo or f"USER/{name}",
        "base": _hub_id(options.get("model")) or _base(options.get("model")),
        "data": metadata.get("data", {}),
        "labels": labels,
        "multi_label": config.get("problem_type") == "multi_label_classification",
        "plain": config.get("model_type") != "audioclf",
        "chunk_seconds": metadata.get("chunk_seconds"),
        "max_seconds": metadata.get("max_seconds"),
        "clip_seconds": metadata.get("clip_seconds") or 0.0,
        "epoch": metadata.get("epoch", "unknown"),
        "scores": scores,
        "metrics": {key: title for key, title in NAMES.items() if any(key in part for part in scores.values())},
        "classes": {PARTS[p]: _rows(e, labels) for p, e in (evaluations or {}).items()},
        "has_confusion": (folder / CONFUSION_FILE).is_file(),
        "temperature": metadata.get("temperature"),
        "groups": groups,
        "options": {key: value for key, value in options.items() if defaults.get(key) != value and key != "model"},
        "batch": _effective_batch(metadata),
        "precision": metadata.get("precision", "fp32"),
        "version": metadata.get("audioclf_version", __version__),
        "no_license": None if license else NO_LICENSE,
    }
    body = _environment().get_template("card.md.j2").render(facts)
    card = ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}")
    write_file(folder / CARD_FILE, str(card).encode("utf-8", "backslashreplace"))


def licensed(path: Path, license: str) -> str:
    """The text of a card, with its licence."""
    card = ModelCard.load(path, ignore_metadata_errors=True)
    card.data.license = license
    return str(card).replace(f"- {NO_LICENSE}\n", "")


def _effective_batch(metadata: dict[str, Any]) -> int:
    options = {**TrainConfig().to_dict(), **metadata.get("config", {})}
    return options["batch_size"] * options["gradient_accumulation_steps"] * metadata.get("num_processes", 1)


def _hub_id(model: Any) -> str | None:
    """The hub id of an encoder; None for one from elsewhere."""
    name = resolve(model) if isinstance(model, str) else None
    return name if name and re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not Path(name).exists() else None


def _base(model: Any) -> str:
    return f"The checkpoint {model}" if isinstance(model, str) else "An encoder from random weights"


def _eval_results(data: str, scores: dict[str, dict[str, Any]]) -> list[EvalResult]:
    return [
        EvalResult(
            task_type="audio-classification",
            dataset_type=re.sub(r"[^a-z0-9]+", "-", data.lower()).strip("-") or "data",
            dataset_name=data,
            dataset_split=part,
            metric_type=HUB_METRICS.get(key, key),
            metric_name=NAMES[key],
            metric_value=values[key],
        )
        for part, values in scores.items()
        for key in NAMES
        if f"{key}_ci" in values and values[key] is not None
    ]


def _rows(evaluation: Evaluation, labels: list[str]) -> list[dict[str, Any]]:
    return [
        {"label": label, **{name: float(values[index]) for name, values in evaluation.classes.items()}}
        for index, label in enumerate(labels)
    ]


def _draw(path: Path, confusion: np.ndarray, labels: list[str]) -> None:
    figure = confusion_figure(confusion, labels)
    figure.savefig(path, dpi=100 if len(labels) <= MAX_MATRIX_CLASSES else 60)


def _environment() -> Environment:
    environment = Environment(loader=PackageLoader("audioclf"), trim_blocks=True, keep_trailing_newline=True)
    environment.filters |= {"md": _markdown, "code": lambda value: str(value).replace("`", "'"), "score": _score}
    return environment


def _markdown(text: str) -> str:
    """The text as Markdown shows it, in a table too."""
    text = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]|$~#])", r"\\\1", text)


def _score(metrics: dict[str, Any], name: str) -> str:
    value, interval = metrics.get(name), metrics.get(f"{name}_ci")
    if value is None:
        return "not defined"
    return f"{value:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")
