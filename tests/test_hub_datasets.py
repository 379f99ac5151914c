"""`datasets` objects and ids: real ones, by the real clients, decoded by us (torchcodec is not installed for tests)."""

import io
import json
import os
import re
from pathlib import Path

import datasets
import loopback_hub
import numpy as np
import pytest
import soundfile
from datasets import Audio, ClassLabel, Dataset, DatasetDict

from audioclf import AudioError, DatasetError, load_dataset
from audioclf.clips import decode

RATE = 16_000


def samples(number: int) -> np.ndarray:
    return np.random.default_rng(number).uniform(-0.5, 0.5, 400 + number).astype(np.float32)


def encoded(number: int, kind: str = "WAV") -> dict:
    file = io.BytesIO()
    soundfile.write(file, samples(number), RATE, format=kind, subtype="FLOAT" if kind == "WAV" else None)
    return {"bytes": file.getvalue(), "path": f"{number}.{kind.lower()}"}


def dataset(labels: list, first: int = 0, names: list[str] | None = None, **columns) -> Dataset:
    """Rows of one clip each, whose samples are `samples(first)`, `samples(first + 1)`, ..."""
    audio = [encoded(first + row) for row in range(len(labels))]
    data = Dataset.from_dict({"audio": audio, "label": labels, **columns}).cast_column("audio", Audio())
    return data if names is None else data.cast_column("label", ClassLabel(names=names))


def heard(splits, folder: Path, part: str = "train") -> list[np.ndarray]:
    decoded = decode(splits, sampling_rate=RATE, max_seconds=None, bad_audio="error", cache_dir=folder)
    clips = decoded.parts[part]
    return [clips[index, 0]["waveform"] for index in range(len(clips))]


class TestAudio:
    def test_bytes(self, tmp_path):
        splits = load_dataset(dataset(["a", "b", "a"]))
        assert [example.audio.name for example in splits.train] == [f"the data set, row {row}" for row in range(3)]
        for row, waveform in enumerate(heard(splits, tmp_path)):
            assert np.array_equal(waveform, samples(row))

    def test_paths(self, tmp_path):
        paths = [str(tmp_path / f"clip {row}.wav") for row in range(2)]
        for row, path in enumerate(paths):
            soundfile.write(path, samples(row), RATE, subtype="FLOAT")
        data = Dataset.from_dict({"sound": paths, "genre": ["x", "y"]}).cast_column("sound", Audio())
        for row, waveform in enumerate(heard(load_dataset(data), tmp_path / "cache")):
            assert np.array_equal(waveform, samples(row))

    def test_other_rates_and_formats(self, tmp_path):
        """What the column says of rate and decoding does not matter: it is the file that is decoded."""
        data = dataset(["a", "b"])
        for column in (Audio(sampling_rate=8_000), Audio(decode=False)):
            found = heard(load_dataset(data.cast_column("audio", column)), tmp_path / "cache")
            assert [len(waveform) for waveform in found] == [400, 401]
        flac = Dataset.from_dict({"audio": [encoded(0, "FLAC"), encoded(1, "FLAC")], "label": ["a", "b"]})
        found = heard(load_dataset(flac.cast_column("audio", Audio())), tmp_path / "cache")
        assert np.allclose(found[1], samples(1), atol=1e-4)

    @pytest.mark.parametrize(
        "change", ["select", "shuffle", "filter", "torch", "numpy", "columns", "transform", "disk"]
    )
    def test_views_of_a_data_set(self, tmp_path, change):
        data = dataset(["a", "b", "a", "b"], names=["b", "a"], speaker=[1, 1, 2, 2])
        data = {
            "select": lambda: data.select([3, 1, 0]),
            "shuffle": lambda: data.shuffle(seed=1),
            "filter": lambda: data.filter(lambda speaker: speaker == 2, input_columns="speaker"),
            "torch": lambda: data.with_format("torch"),
            "numpy": lambda: data.with_format("numpy"),
            "columns": lambda: data.with_format("numpy", columns=["label"]),
            "transform": lambda: data.with_transform(lambda batch: {"x": batch["label"]}),
            "disk": lambda: data.save_to_disk(tmp_path / "saved") or datasets.load_from_disk(tmp_path / "saved"),
        }[change]()  # fmt: skip
        splits = load_dataset(data, group_column="speaker")
        assert splits.labels == ("b", "a")
        found = heard(splits, tmp_path / "cache")
        order = [len(waveform) - 400 for waveform in found]
        assert order == {"select": [3, 1, 0], "filter": [2, 3]}.get(change, order)
        assert sorted(order) == order or change in ("select", "shuffle")
        for number, waveform, example in zip(order, found, splits.train, strict=True):
            assert np.array_equal(waveform, samples(number))
            assert (example.label, example.group) == ("ab"[number % 2], str(1 + number // 2))

    def test_a_broken_row_is_named(self, tmp_path):
        rows = [encoded(0), encoded(1), {"bytes": b"garbage" * 50, "path": None}]
        data = Dataset.from_dict({"audio": rows, "label": ["a", "b", "a"]}).cast_column("audio", Audio())
        splits = load_dataset(data)
        with pytest.raises(AudioError, match="the data set, row 2"):
            heard(splits, tmp_path)
        decoded = decode(splits, sampling_rate=RATE, max_seconds=None, bad_audio="skip", cache_dir=tmp_path)
        assert list(decoded.set_aside) == ["the data set, row 2"]
        assert len(decoded.parts["train"]) == 2

    def test_a_row_without_audio_is_named(self, tmp_path):
        data = Dataset.from_dict({"audio": [encoded(0), encoded(1), None], "label": ["a", "b", "a"]})
        with pytest.raises(AudioError, match="the data set, row 2"):
            heard(load_dataset(data.cast_column("audio", Audio())), tmp_path)

    def test_a_file_that_changed_under_the_data_set_is_decoded_anew(self, tmp_path):
        paths = []
        for number in range(2):
            (tmp_path / f"{number}.wav").write_bytes(encoded(number)["bytes"])
            paths.append(str(tmp_path / f"{number}.wav"))
        data = Dataset.from_dict({"audio": paths, "label": ["a", "b"]}).cast_column("audio", Audio())
        assert np.array_equal(heard(load_dataset(data), tmp_path)[0], samples(0))
        (tmp_path / "0.wav").write_bytes(encoded(7)["bytes"])
        os.utime(tmp_path / "0.wav", ns=(1, 1))
        assert np.array_equal(heard(load_dataset(data), tmp_path)[0], samples(7))

    def test_equal_content_is_decoded_once(self, tmp_path):
        """The second load of the same data finds the first one's cache, and another data set does not."""
        data = dataset(["a", "b"])
        heard(load_dataset(data), tmp_path)
        (store,) = (tmp_path / "waveforms").iterdir()
        heard(load_dataset(data), tmp_path)
        assert [path for path in (tmp_path / "waveforms").iterdir() if path.is_dir()] == [store]
        found = heard(load_dataset(dataset(["a", "b"], first=5)), tmp_path)
        assert np.array_equal(found[0], samples(5))


class TestLabels:
    def test_official_order(self):
        splits = load_dataset(dataset([2, 0, 1], names=["zebra", "ape", "mole", "unused"]))
        assert splits.labels == ("zebra", "ape", "mole", "unused")
        assert [example.label for example in splits.train] == ["mole", "zebra", "ape"]

    def test_strings_and_numbers(self):
        assert load_dataset(dataset(["b", "a"])).labels == ("a", "b")
        assert load_dataset(dataset([10, 9, 2])).labels == ("2", "9", "10")
        assert load_dataset(dataset(["b", "a"]), labels=["b", "a"]).labels == ("b", "a")

    def test_order_is_kept_when_one_split_lost_its_names(self):
        data = DatasetDict(train=dataset([0, 1], names=["z", "a"]), test=dataset(["z", "a"], first=5))
        assert load_dataset(data).labels == ("z", "a")

    def test_the_column(self):
        data = dataset([0, 1], names=["x", "y"], emotion=["sad", "gay"], words=["one", "two"])
        assert load_dataset(data).labels == ("x", "y")
        assert load_dataset(data, label_column="emotion").labels == ("gay", "sad")
        renamed = data.rename_column("label", "kind").remove_columns("emotion")
        assert load_dataset(renamed).labels == ("x", "y")  # the one column of classes

    def test_groups(self):
        data = dataset(["a", "b", "a"], singer=["S", None, "T"])
        assert [e.group for e in load_dataset(data, group_column="singer").train] == ["S", None, "T"]
        assert [e.group for e in load_dataset(data).train] == [None] * 3


@pytest.mark.parametrize("valid", ["val", "validation", "dev", "valid"])
def test_names_of_splits(tmp_path, valid):
    parts = {
        "train": dataset([0, 1], 0, ["z", "a"]),
        valid: dataset([0], 2, ["z", "a"]),
        "test": dataset([1], 3, ["z", "a"]),
    }
    splits = load_dataset(DatasetDict(parts))
    assert {part: len(examples) for part, examples in splits.parts.items()} == {"train": 2, "valid": 1, "test": 1}
    assert splits.labels == ("z", "a")
    assert np.array_equal(heard(splits, tmp_path, "test")[0], samples(3))


def test_groups_on_two_sides_are_noted():
    data = DatasetDict(train=dataset(["a", "b"], 0, s=["x", "y"]), test=dataset(["a", "b"], 2, s=["z", "x"]))
    assert load_dataset(data, group_column="s").notes == (
        "1 group(s), for example 'x', are in both train and test: scores on test will look better than they are.",
    )


def two_columns_of_classes() -> Dataset:
    data = dataset([0, 1], names=["x", "y"], b=[0, 1]).rename_column("label", "a")
    return data.cast_column("b", ClassLabel(names=["p", "q"]))


def validation_twice() -> DatasetDict:
    return DatasetDict(train=dataset(["a", "b"]), dev=dataset(["a"], 5), validation=dataset(["b"], 6))


REFUSED = {
    "no audio column": (
        lambda: Dataset.from_dict({"file": ["a.wav"], "label": ["a"]}),
        ": has no Audio column, only file, label; cast the column of paths with "
        "dataset.cast_column(column, datasets.Audio()).",
    ),
    "no label column": (
        lambda: dataset(["a", "b"]).rename_column("label", "kind"),
        ": which column holds the labels? Name one of audio, kind with label_column.",
    ),
    "two columns of classes": (
        two_columns_of_classes,
        ": which column holds the labels? Name one of audio, a, b with label_column.",
    ),
    "label -1": (
        lambda: dataset([0, -1, 1], names=["x", "y"]),
        ", row 1: has no single label (-1).",
    ),
    "label None": (lambda: dataset(["a", "b", None]), ", row 2: has no single label (None)."),
    "empty label": (lambda: dataset(["a", "b", ""]), ", row 2: has no single label ('')."),
    "None in a split": (
        lambda: DatasetDict(train=dataset(["a", "b"]), dev=dataset([None, "a"], 5)),
        ", valid, row 0: has no single label (None).",
    ),
    "unknown split": (
        lambda: DatasetDict(train=dataset(["a", "b"]), holdout=dataset(["a"], 5)),
        ": 'holdout' is no split; use train, valid (or val, validation, dev) or test.",
    ),
    "ids beyond the names": (
        lambda: Dataset(dataset([0, 2]).data, info=dataset([0, 1], names=["x", "y"]).info),
        ", row 1: has the label id 2, but there are 2 names of classes.",
    ),
    "one class": (lambda: dataset(["a", "a"]), ": has one class only ('a'); a classifier needs two or more."),
    "no rows": (lambda: dataset([0, 1], names=["x", "y"]).select([]), ": holds no clips."),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    make, sentence = REFUSED[case]
    with pytest.raises(DatasetError, match=re.escape(f"the data set{sentence}")):
        load_dataset(make())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"label_column": "lable"}, "has no column 'lable' (label_column); did you mean 'label'?"),
        ({"group_column": "who"}, "has no column 'who' (group_column)."),
        ({"labels": ["a", "c"]}, "the data set, row 1 has the label 'b', which is not among labels."),
    ],
)
def test_refused_options(options, sentence):
    with pytest.raises(DatasetError, match=re.escape(f"the data set: {sentence}")):
        load_dataset(dataset(["a", "b"]), **options)


IDS = """
import json, sys, audioclf, numpy as np
from audioclf.clips import decode
from audioclf.readers import RowReader
def say(name, **options):
    try:
        splits = audioclf.load_dataset(name, cache_dir=sys.argv[1], **options)
    except audioclf.DatasetError as error:
        return {"error": str(error)}
    except Exception as error:
        return {"leak": f"{type(error).__module__}.{type(error).__name__}: {error}"}
    clips = decode(splits, sampling_rate=16000, max_seconds=None, bad_audio="error", cache_dir=sys.argv[1]).parts
    train = None if splits.stream is None else RowReader(splits.stream, 0).read(100)
    return {
        "name": splits.name,
        "labels": splits.labels,
        "streamed": train and [[clip.example.name, clip.example.label] for clip in train],
        "parts": {part: [e.label for e in examples] for part, examples in splits.parts.items()},
        "sums": {part: [float(np.abs(c[i, 0]["waveform"]).sum()) for i in range(len(c))] for part, c in clips.items()},
    }
"""


def asked(hub: loopback_hub.LoopbackHub, folder: Path, calls: dict[str, str], **env: str) -> dict[str, dict]:
    """What each call of `say` said, all in one process that has this hub only."""
    code = IDS + "import time; time.sleep = lambda seconds: None  # the client's waits between its tries\n"
    code += "print(json.dumps({" + ", ".join(f"{key!r}: {call}" for key, call in calls.items()) + "}))"
    done = loopback_hub.run(code, hub.env(folder / "home") | env, folder / "cache")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def put(data: Dataset, repository: Path, name: str) -> None:
    (repository / name).parent.mkdir(parents=True, exist_ok=True)
    data.to_parquet(str(repository / name))


@pytest.fixture(scope="module")
def said(tmp_path_factory) -> dict[str, dict]:
    """A hub of good and bad repositories, each asked for in one client process; then one with the hub gone."""
    folder = tmp_path_factory.mktemp("ids")
    hub_root = folder / "hub" / "datasets" / "user"
    names = ["zed", "abc"]
    for repository in ("mini", "damaged", "cut"):
        train = dataset([0, 1, 0, 1], 0, names, speaker=[1, 1, 2, 2])
        put(train, hub_root / repository, "data/train-00000-of-00001.parquet")
        put(dataset([1, 0], 10, names, speaker=[3, 3]), hub_root / repository, "data/validation-00000-of-00001.parquet")
    (hub_root / "damaged/data/train-00000-of-00001.parquet").write_bytes(b"PAR1" + bytes(500) + b"PAR1")
    (hub_root / "script").mkdir()
    (hub_root / "script" / "script.py").write_text("import datasets\n")
    (hub_root / "empty").mkdir()
    (hub_root / "empty" / "notes.md").write_text("nothing here\n")
    put(dataset(["a", "b"]), hub_root / "configs", "small/train.parquet")
    put(dataset(["a", "b", "c"]), hub_root / "configs", "large/train.parquet")
    (hub_root / "configs" / "README.md").write_text(
        "---\nconfigs:\n- config_name: small\n  data_files: small/train.parquet\n"
        "- config_name: large\n  data_files: large/train.parquet\n---\n"
    )
    calls = {
        "mini": 'say("user/mini")',
        "grouped": 'say("user/mini", group_column="speaker")',
        "streamed": 'say("user/mini", streaming=True)',
        "missing": 'say("user/missing")',
        "one word": 'say("nosuchname")',
        "script": 'say("user/script")',
        "cold": 'say("user/cold")',
        "cut": 'say("user/cut")',
        "empty": 'say("user/empty")',
        "damaged": 'say("user/damaged")',
        "config": 'say("user/configs", protocol="large")',
        "no config": 'say("user/configs")',
        "wrong config": 'say("user/configs", protocol="huge")',
    }
    with loopback_hub.serve(folder / "hub") as hub:
        hub.faults = {"user/cold": "500", "user/cut": "cut"}
        answers = asked(hub, folder, calls)
    answers |= asked(hub, folder, {"cached": 'say("user/mini")', "not cached": 'say("user/m")'}, HF_HUB_OFFLINE="1")
    return answers | {"strays": {re.sub(r":\d+", "", host) for host in hub.strays}}


def test_parquet_by_id(said):
    answer = said["mini"]
    assert answer["name"] == "user/mini"
    assert answer["labels"] == ["zed", "abc"]
    assert answer["parts"] == {"train": ["zed", "abc", "zed", "abc"], "valid": ["abc", "zed"]}
    for part, first in (("train", 0), ("valid", 10)):
        expected = [np.abs(samples(first + row)).sum() for row in range(len(answer["parts"][part]))]
        assert answer["sums"][part] == pytest.approx(expected, rel=1e-5)
    assert said["grouped"] == answer
    assert said["cached"] == answer


def test_streamed_by_id(said):
    """Train is read shard by shard from the hub; the held-out part is kept."""
    answer = said["streamed"]
    assert sorted(answer["streamed"]) == [[f"user/mini, {row}.wav", ["zed", "abc"][row % 2]] for row in range(4)]
    assert answer["labels"] == ["zed", "abc"]
    assert answer["parts"] == {"valid": ["abc", "zed"]}
    assert answer["sums"]["valid"] == pytest.approx([np.abs(samples(row)).sum() for row in (10, 11)], rel=1e-5)


def test_a_configuration_is_a_protocol(said):
    assert said["config"]["labels"] == ["a", "b", "c"]
    for case in ("no config", "wrong config"):
        assert "small" in said[case]["error"]
        assert "large" in said[case]["error"]
        assert "protocol" in said[case]["error"]


@pytest.mark.parametrize("case", ["missing", "one word", "empty", "damaged", "cold", "cut", "not cached"])
def test_what_cannot_be_fetched(said, case):
    name = {"one word": "nosuchname", "not cached": "user/m"}.get(case, f"user/{case}")
    assert "leak" not in said[case]
    assert re.match(
        rf"'{name}' is no file or folder here, and could not be fetched from the hub \(\w+: .+\); check the name",
        said[case]["error"],
    )


def test_a_data_set_with_a_script(said):
    assert said["script"]["error"] == (
        "'user/script' is a data set with a loading script, which no longer runs: load its parquet form with "
        "datasets.load_dataset('user/script', revision='refs/convert/parquet') and give the result instead."
    )


def test_nothing_went_elsewhere(said):
    """But for the data set viewer, which `datasets` looks for beside its hub, and which was refused here."""
    assert said["strays"] <= {"datasets-server.127.0.0.1"}


MODELS = """
import sys
from transformers import AutoConfig, AutoModel, HubertConfig, HubertModel
shape = {"conv_dim": (8,) * 7, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
small = {"intermediate_size": 16, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
HubertModel(HubertConfig(**shape, **small)).save_pretrained(sys.argv[1])
print(AutoModel.from_pretrained("user/model").config.model_type, AutoConfig.from_pretrained("user/model").hidden_size)
try:
    AutoConfig.from_pretrained("user/none")
except OSError as error:
    print("not a valid model identifier" in str(error))
"""


@pytest.mark.slow
def test_models_come_from_the_same_hub(tmp_path):
    """`AutoModel.from_pretrained("user/model")`, for other tests, and what transformers says of one that is missing."""
    with loopback_hub.serve(tmp_path / "hub") as hub:
        done = hub.run(MODELS, tmp_path / "home", tmp_path / "hub" / "models" / "user" / "model")
    assert done.stdout.split() == ["hubert", "16", "True"], done.stderr
    assert hub.strays == []
    assert ("GET", "/api/models/user/model") in hub.requests
