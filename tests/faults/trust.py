"""J: files that would run code or write where they should not; a canary shows whether they do."""

import io
import json
import os
import pickle
import shutil
import tarfile
from pathlib import Path
from typing import Any

import torch
from conftest import tiny_config

import audioclf
from audioclf import checkpoint, resume
from audioclf.datasets.archive import unpack

from .harness import attempted, child, ended, options, train
from .storing import stop_soon


class Evil:
    """Unpickling it creates the canary."""

    def __init__(self, canary: Path) -> None:
        self.canary = str(canary)

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.canary,)


def evil_files(workspace: Path, data: Path, quick: bool) -> dict[str, Any]:
    """Pickles, code in a model's folder, archives that reach out, markup in labels."""
    canary = workspace / "canary"
    pickle.loads(pickle.dumps(Evil(canary)))
    assert canary.is_dir()  # it would sing
    canary.rmdir()
    attempts = {
        "pickled weights": _pickled_weights,
        "pickled training state": _pickled_training_state,
        "code beside a model": _code_beside_a_model,
        "archives": _archives,
        "markup in labels": _markup,
    }
    for name, attempt in attempts.items():
        attempt(workspace, data, canary)
        assert not canary.exists(), name
    return {"attempts": list(attempts), "canary": "silent"}


def _pickled_weights(workspace: Path, data: Path, canary: Path) -> None:
    for name in ("pytorch_model.bin", "model.safetensors", "pytorch_model.bin.index.json", "training_args.bin"):
        folder = workspace / f"evil {name}"
        tiny_config(architectures=["HubertForSequenceClassification"]).save_pretrained(folder)
        if name == "training_args.bin":
            run = options(workspace, "for weights", num_epochs=1)
            shutil.copytree(audioclf.train(data, **run).checkpoint_dir, folder, dirs_exist_ok=True)
        (folder / name).write_bytes(pickle.dumps({"classifier.weight": Evil(canary)}))
        attempted(data, options(workspace, f"evil run {name}", model=str(folder), num_epochs=1))


def _pickled_training_state(workspace: Path, data: Path, canary: Path) -> None:
    run = options(workspace, "evil state", num_epochs=2)
    assert ended(child(train, data, run, None, stop_soon)) == 130
    last = Path(run["output_dir"]) / "last"
    for write in (_pickle, torch.save):

        def fill(folder: Path, write: Any = write) -> None:
            for file in last.iterdir():
                if file.name not in (checkpoint.CHECKSUMS_FILE, resume.STATE_FILE):
                    shutil.copy(file, folder)
            write({"state": Evil(canary)}, folder / resume.STATE_FILE)

        checkpoint.write_folder(last, fill)
        _, said = attempted(data, {**run, "resume": True})
        assert "is no training state of this version" in said, said


def _pickle(value: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(value))


def _code_beside_a_model(workspace: Path, data: Path, canary: Path) -> None:
    folder = workspace / "evil code"
    folder.mkdir()
    config = tiny_config().to_dict() | {"model_type": "evil", "architectures": ["EvilModel"]}
    config["auto_map"] = dict.fromkeys(("AutoConfig", "AutoModel", "AutoModelForAudioClassification"), "evil.Evil")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"feature_extractor_type": "Evil", "auto_map": {"AutoFeatureExtractor": "evil.Evil"}})
    )
    (folder / "evil.py").write_text(f"import os\nos.mkdir({str(canary)!r})\nclass Evil: pass\n")
    (folder / "model.safetensors").write_bytes(b"")
    _, said = attempted(data, options(workspace, "evil code run", model=str(folder)))
    assert said


def _archives(workspace: Path, data: Path, canary: Path) -> None:
    deep = workspace / "deep" / "er"
    deep.mkdir(parents=True)
    for number, (name, kind, target) in enumerate(
        [
            ("../../canary", tarfile.REGTYPE, ""),
            (str(canary), tarfile.REGTYPE, ""),
            ("a/../../../canary", tarfile.REGTYPE, ""),
            ("..\\..\\canary", tarfile.REGTYPE, ""),
            ("link", tarfile.SYMTYPE, str(workspace)),
            ("hard", tarfile.LNKTYPE, "/etc/passwd"),
            ("pipe", tarfile.FIFOTYPE, ""),
            ("device", tarfile.CHRTYPE, ""),
        ]
    ):
        path = deep / f"{number}.tar"
        with tarfile.open(path, "w") as tar:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.size = kind, target, 4 if kind == tarfile.REGTYPE else 0
            tar.addfile(entry, io.BytesIO(b"sing") if entry.size else None)
            if kind == tarfile.SYMTYPE:
                through = tarfile.TarInfo("link/canary")
                through.size = 4
                tar.addfile(through, io.BytesIO(b"sing"))
        said = ""
        try:
            unpack(path, deep / "into", 10**6)
        except audioclf.DatasetError as error:
            said = str(error)
        assert "not to be trusted" in said, (name, said)


def _markup(workspace: Path, data: Path, canary: Path) -> None:
    """They are names like any other; nothing reads them as more."""
    labels = {"high": "<script>alert(1)</script>", "low": "$(mkdir canary)", "mid": "!!python/object:os.system 'x'"}
    rows = ["path,label"]
    for path in sorted((data / "train").rglob("*.wav")):
        rows.append(f'"{path}","{labels[path.parent.name]}"')
    (workspace / "markup.csv").write_text("\n".join(rows))
    result, said = attempted(workspace / "markup.csv", options(workspace, "markup", num_epochs=1))
    assert result is not None, said
    assert set(audioclf.load(result.checkpoint_dir, device="cpu").labels) == set(labels.values())
