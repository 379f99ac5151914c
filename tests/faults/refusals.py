"""I: what cannot be used is refused on the command line with one sentence and status 2."""

import contextlib
import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

from conftest import tiny_config

from audioclf.cli import main

OPTIONS = {
    "--num-epochs 0": "num_epochs=0 must be a whole number of at least 1",
    "--batch-size 0": "batch_size=0 must be",
    "--batch-size -3": "batch_size=-3 must be",
    "--gradient-accumulation-steps 0": "gradient_accumulation_steps=0 must be",
    "--logging-steps 0": "logging_steps=0 must be",
    "--save-steps 0": "save_steps=0 must be",
    "--save-total-limit 0": "save_total_limit=0 must be",
    "--eval-batch-size 0": "eval_batch_size=0 must be",
    "--patience 0": "patience=0 must be",
    "--num-workers -1": "num_workers=-1 must be",
    "--seed -1": "seed=-1 must be",
    "--learning-rate 0": "learning_rate=0.0 must be a number above 0",
    "--learning-rate nan": "learning_rate=nan must be",
    "--learning-rate inf": "learning_rate=inf must be",
    "--head-learning-rate -1": "head_learning_rate=-1.0 must be",
    "--weight-decay -0.1": "weight_decay=-0.1 must be",
    "--warmup-ratio 1.5": "warmup_ratio=1.5 must be",
    "--valid-fraction 1": "valid_fraction=1.0 must be",
    "--max-grad-norm 0": "max_grad_norm=0.0 must be",
    "--max-seconds 0": "max_seconds=0.0 must be",
    "--max-batch-seconds 0": "max_batch_seconds=0.0 must be",
    "--max-batch-seconds 0.1": "max_batch_seconds=0.1 is less than",
    "--max-memory-gb 0": "max_memory_gb=0.0 must be",
    "--device cuda": "device='cuda' is not available",
    "--precision fp8": "fp8",
    "--lr-schedule lineer": "lineer",
    "--head atention": "head='atention' is not one of mean, attention, mix, multihead, mlp; did you mean 'attention'?",
    "--loss focal": "loss='focal' is not one of auto",
    "--class-weights ballanced": "ballanced",
    "--cache-features True": "cache_features=True keeps what a frozen encoder gives",
    "--cache-features True --freeze backbone --augment noise": "augment changes the clip in every epoch",
    "--resume --overwrite": "resume=True goes on with the run that overwrite=True would delete",
    "--fold 1": "fold='1' means nothing for a folder",
    "--protocol random": "protocol='random' means nothing for a folder",
    "--label-column genre": "label_column='genre' means nothing for a folder",
    "--labels high low": "which is not among labels",
    "--epochs 3": "epochs",
}
"""Options of `audioclf train` and words of the sentence each has to bring."""


def refusals(workspace: Path, data: Path, quick: bool) -> dict[str, Any]:
    """Bad options, manifests, labels, models, checkpoints, archives and folders."""
    tiny_config().to_json_file(workspace / "encoder.json")
    common = ["--model", str(workspace / "encoder.json"), "--cache-dir", str(workspace / "cache"), "--num-epochs", "1"]
    common += ["--device", "cpu", "--precision", "fp32"]
    cases: list[tuple[list[str], str]] = []
    for given, words in OPTIONS.items():
        cases.append((["train", str(data), *common, "--output-dir", str(workspace / "no"), *given.split()], words))
    for path, words in (*_manifests(workspace, data), *_folders(workspace, data)):
        cases.append((["train", str(path), *common, "--output-dir", str(workspace / "no")], words))
    for model, words in _models(workspace, data):
        options = ["--output-dir", str(workspace / "no"), "--cache-dir", str(workspace / "cache")]
        cases.append((["train", str(data), "--model", str(model), *options], words))
        cases.append((["predict", str(model), str(next(data.rglob("*.wav")))], words))
    for folder, words in _outputs(workspace):
        cases.append((["train", str(data), *common, "--output-dir", str(folder)], words))
    for archive, words in _archives(workspace):
        arguments = ["train", "gtzan", "--root", str(archive), "--output-dir", str(workspace / "no")]
        cases.append(([*arguments, "--cache-dir", str(workspace / "cache")], words))
    unlike = []
    for arguments, words in cases:
        status, told = _told(arguments)
        kind = status == 2 and words in told and "Traceback" not in told
        if not kind or (workspace / "no" / "history.jsonl").exists():
            unlike.append((arguments, status, words, told[-500:]))
    assert not unlike, unlike
    return {"kinds": len(cases)}


def _told(arguments: list[str]) -> tuple[int, str]:
    """Exit status and all that the command prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            status = main(arguments)
        except SystemExit as end:
            status = int(end.code or 0)
    return status, printed.getvalue()


def _manifests(workspace: Path, data: Path) -> list[tuple[Path, str]]:
    clip, other, third = (str(path) for path in sorted(data.rglob("*.wav"))[:3])
    tables: dict[str, tuple[str | bytes, str]] = {
        "nothing.csv": ("", "lists no clips"),
        "header only.csv": ("path,label\n", "lists no clips"),
        "no label.csv": (f"path,genre x\n{clip},a\n", "has no column label"),
        "no path.csv": ("name,label\nx,a\n", "has no column path"),
        "empty label.csv": (f"path,label\n{clip},\n", "label is empty"),
        "empty path.csv": ("path,label\n,a\n", "path is empty"),
        "one class.csv": (f"path,label\n{clip},a\n{other},a\n", "has one class only ('a')"),
        "two labels.csv": (f"path,label\n{clip},a\n{clip},b\n{other},b\n", "has two labels, 'a' and 'b'"),
        "two parts.csv": (f"path,label,split\n{clip},a,train\n{clip},a,test\n{other},b,train\n", "is in train and in"),
        "bad split.csv": (f"path,label,split\n{clip},a,trian\n{other},b,train\n", "'trian' is no split"),
        "bad time.csv": (f"path,label,start\n{clip},a,soon\n{other},b,0\n", "start='soon' is no time in seconds"),
        "end first.csv": (f"path,label,start,end\n{clip},a,2,1\n{other},b,0,1\n", "is not after the start"),
        "no file.csv": (f"path,label,split\nabsent.wav,a,\n{other},b,\n{clip},a,valid\n", "no such file"),
        "more cells.csv": (f"path,label\n{clip},a,b,c\n", "has more cells than the header"),
        "latin.csv": (f"path,label\n{clip},caf\xe9\n".encode("latin-1"), "is not UTF-8"),
        "lines.jsonl": ('{"path": "x.wav"\n', "is not JSON"),
        "list.jsonl": ("[1, 2]\n", "expected an object like"),
        "nested.jsonl": (json.dumps({"path": clip, "label": ["a", ["b"]]}) + "\n", "is no list of labels"),
        "table.txt": ("path,label\n", "is no data set"),
        "no train.csv": (f"path,label,split\n{clip},a,test\n{other},b,test\n", "has no train part"),
        "only valid.csv": (
            f"path,label,split\n{clip},a,train\n{third},a,train\n{other},b,valid\n",
            "train has no readable clip of 'b'",
        ),
    }
    made = []
    for name, (text, words) in tables.items():
        (workspace / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        made.append((workspace / name, words))
    return made


def _folders(workspace: Path, data: Path) -> list[tuple[Path | str, str]]:
    empty = workspace / "empty"
    empty.mkdir()
    broken = workspace / "broken"
    shutil.copytree(data, broken)
    for path in sorted(broken.rglob("*.wav"))[::3]:
        path.write_bytes(b"no sound")
    unlike = workspace / "unlike"
    for split in ("train", "test"):
        (unlike / split).mkdir(parents=True)
    (unlike / "train" / "metadata.csv").write_text("file_name,label\n")
    return [
        (empty, "has no folders with audio files in it"),
        (broken, "clips (34.1%) cannot be used"),
        (workspace / "absent", "no such file or folder"),
        ("", "no such file or folder"),
        (unlike, "lists no clips"),
    ]


def _models(workspace: Path, data: Path) -> list[tuple[Path | str, str]]:
    folders = {name: workspace / name for name in ("no config", "no json", "bert", "no weights", "torn weights")}
    for folder in folders.values():
        folder.mkdir()
    (folders["no json"] / "config.json").write_text("{not json")
    (folders["bert"] / "config.json").write_text('{"model_type": "bert"}')
    for name in ("no weights", "torn weights"):
        tiny_config(architectures=["HubertForSequenceClassification"]).save_pretrained(folders[name])
        (folders[name] / "preprocessor_config.json").write_text(
            '{"feature_extractor_type": "Wav2Vec2FeatureExtractor"}'
        )
    (folders["torn weights"] / "model.safetensors").write_bytes(b"\x40\0\0\0\0\0\0\0{torn")
    return [
        (workspace / "absent model", "no such folder"),
        (folders["no config"], "cannot be loaded"),
        (folders["no json"], "cannot be loaded"),
        (folders["bert"], "is a 'bert' model"),
        (folders["no weights"], "cannot be loaded"),
        (folders["torn weights"], "cannot be loaded"),
    ]


def _outputs(workspace: Path) -> list[tuple[Path, str]]:
    (workspace / "a file").write_text("")
    (workspace / "papers").mkdir()
    (workspace / "papers" / "thesis.txt").write_text("")
    return [
        (workspace / "a file", "cannot be used"),
        (workspace / "a file" / "below", "cannot be used"),
        (workspace / "papers", "is not empty"),
    ]


def _archives(workspace: Path) -> list[tuple[Path, str]]:
    torn, evil, other = (workspace / f"{name}.tar.gz" for name in ("torn", "evil", "other"))
    torn.write_bytes(b"\x1f\x8b no archive")
    for archive, name in ((evil, "../escaped.wav"), (other, "music/song.wav")):
        with tarfile.open(archive, "w:gz") as tar:
            entry = tarfile.TarInfo(name)
            entry.size = 4
            tar.addfile(entry, io.BytesIO(b"data"))
    return [
        (workspace / "absent.tar.gz", "is no folder and no archive"),
        (torn, "cannot be unpacked"),
        (evil, "leads outside its folder"),
        (other, "is no GTZAN"),
    ]
