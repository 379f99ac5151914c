"""Class folders and AudioFolder metadata, as people keep them. Few clips are decoded here, so most are empty files."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audioclf import DatasetError, load_dataset
from audioclf.clips import decode


def lay(root: Path, *names: str, text: str = "") -> Path:
    """Makes files below `root`, with the folders they need."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def listing(root: Path, part: tuple) -> dict[str, str]:
    """Label of each clip by its path below `root`."""
    return {Path(example.audio).relative_to(root).as_posix(): example.label for example in part}


def test_flat_class_folders(tmp_path):
    root = lay(tmp_path, "dog/1.wav", "dog/2.FLAC", "cat/a b.mp3", "cat/deep/er/c.ogg", "고양이/야옹.wav")
    splits = load_dataset(root)
    assert splits.labels == ("cat", "dog", "고양이")
    assert (splits.valid, splits.test) == ((), ())
    assert splits.name == root.name
    assert listing(root, splits.train) == {
        "cat/a b.mp3": "cat",
        "cat/deep/er/c.ogg": "cat",
        "dog/1.wav": "dog",
        "dog/2.FLAC": "dog",
        "고양이/야옹.wav": "고양이",
    }
    assert load_dataset(str(root)) == splits


@pytest.mark.parametrize(
    ("names", "valid"),
    [
        (("train", "valid", "test"), "valid"),
        (("train", "val", "test"), "val"),
        (("train", "validation", "test"), "validation"),
        (("Train", "Dev", "TEST"), "Dev"),
        (("training", "dev", "evaluation"), "dev"),
    ],
)
def test_folders_of_splits(tmp_path, names, valid):
    lay(tmp_path, *(f"{split}/{label}/{split}{label}.wav" for split in names for label in ("a", "b")))
    splits = load_dataset(tmp_path)
    assert splits.labels == ("a", "b")
    assert {part: len(examples) for part, examples in splits.parts.items()} == {"train": 2, "valid": 2, "test": 2}
    assert listing(tmp_path, splits.valid) == {f"{valid}/{x}/{valid}{x}.wav": x for x in ("a", "b")}
    assert {example.split for example in splits.test} == {"test"}


def test_train_and_test_without_valid(tmp_path):
    splits = load_dataset(lay(tmp_path, "train/a/1.wav", "train/b/2.wav", "test/a/3.wav"))
    assert {part: len(examples) for part, examples in splits.parts.items()} == {"train": 2, "test": 1}


@pytest.mark.parametrize("other", ["docs/readme.txt", "figures/a/b.png", "empty/.keep"])
def test_a_folder_without_audio_does_not_turn_splits_into_classes(tmp_path, other):
    splits = load_dataset(lay(tmp_path, "train/a/1.wav", "train/b/2.wav", "valid/a/3.wav", other))
    assert splits.labels == ("a", "b")
    assert {part: len(examples) for part, examples in splits.parts.items()} == {"train": 2, "valid": 1}


@pytest.mark.parametrize("other", ["bus/1.wav", "bus/line 4/1.wav"])
@pytest.mark.parametrize("train", ["train/1.wav", "train/ice/1.wav"])
def test_a_class_called_train_among_other_classes(tmp_path, train, other):
    splits = load_dataset(lay(tmp_path, train, other))
    assert splits.labels == ("bus", "train")
    assert Counter(example.label for example in splits.train) == {"bus": 1, "train": 1}


def test_classes_called_train_and_test(tmp_path):
    """Flat folders are classes, whatever their names."""
    splits = load_dataset(lay(tmp_path, "train/1.wav", "test/2.wav"))
    assert (splits.labels, len(splits.train), splits.test) == (("test", "train"), 2, ())


def test_what_is_no_clip_is_passed_over(tmp_path):
    lay(tmp_path, "a/1.wav", "b/2.wav", "a/._1.wav", "a/.hidden.wav", "a/cover.jpg", "a/1.txt", "a/noending", "top.wav")
    lay(tmp_path, ".git/x.wav", "__MACOSX/a/1.wav", "a/__MACOSX/3.wav", "a/.cache/4.wav", "README.md")
    splits = load_dataset(tmp_path)
    assert listing(tmp_path, splits.train) == {"a/1.wav": "a", "b/2.wav": "b"}
    where = repr(str(tmp_path / "top.wav"))
    assert splits.notes == (f"1 sound(s) lie beside the class folders and are not used, for example {where}.",)


def test_sounds_beside_the_classes_of_a_split(tmp_path):
    splits = load_dataset(
        lay(tmp_path, "train/a/1.wav", "train/b/2.wav", "train/3.wav", "valid/a/4.wav", "valid/5.wav")
    )
    (note,) = splits.notes
    assert note.startswith("2 sound(s) lie beside the class folders and are not used, for example")


def test_numbered_classes_are_in_the_order_of_numbers(tmp_path):
    assert load_dataset(lay(tmp_path, *(f"{n}/x.wav" for n in range(11)))).labels == tuple(map(str, range(11)))


def test_labels_give_the_order(tmp_path):
    splits = load_dataset(lay(tmp_path, "a/1.wav", "b/2.wav"), labels=["b", "silence", "a"])
    assert splits.labels == ("b", "silence", "a")
    assert (splits.id2label[0], splits.label2id["a"]) == ("b", 2)


def test_clips_are_listed_in_one_order(tmp_path):
    """Whatever order the file system gives: the sampler's order is drawn over this one."""
    names = [f"{label}/{number}.wav" for number in (3, 10, 2) for label in ("b", "a")]
    paths = [example.audio for example in load_dataset(lay(tmp_path, *names)).train]
    assert paths == sorted(paths)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (("1.wav", "2.wav"), "has no folders with audio files in it: expected one folder a class"),
        ((".a/1.wav",), "has no folders with audio files in it"),
        (("a/readme.txt", "b/._1.wav"), "has no folders with audio files in it"),
        (("a/1.wav",), "has one class only ('a'); a classifier needs two or more."),
        (("train/a/1.wav", "test/a/2.wav"), "has one class only ('a')"),
        (("train/a/x.txt", "test/b/x.txt"), "has no folders with audio files in it"),
    ],
)
def test_refused_folders(tmp_path, names, sentence):
    with pytest.raises(DatasetError, match=re.escape(sentence)):
        load_dataset(lay(tmp_path, *names))


def test_refused_labels(tmp_path):
    lay(tmp_path, "a/1.wav", "b/2.wav")
    with pytest.raises(DatasetError, match=r"b.2\.wav has the label 'b', which is not among labels"):
        load_dataset(tmp_path, labels=["a", "c"])
    with pytest.raises(DatasetError, match="'b' stands twice in labels"):
        load_dataset(tmp_path, labels=["a", "b", "b"])


class TestAudioFolder:
    CSV = "file_name,label,group\nclips/1.wav,a,x\nclips/2.wav,b,y\n"
    JSONL = '{"file_name": "clips/1.wav", "label": "a", "group": "x"}\n{"file_name": "clips/2.wav", "label": "b"}\n'

    @pytest.mark.parametrize(
        ("name", "text"), [("metadata.csv", CSV), ("metadata.jsonl", JSONL.replace('"b"', '"b", "group": "y"'))]
    )
    def test_at_the_root(self, tmp_path, name, text):
        lay(tmp_path, "clips/1.wav", "clips/2.wav", "clips/unlisted.wav")
        splits = load_dataset(lay(tmp_path, name, text=text))
        assert listing(tmp_path, splits.train) == {"clips/1.wav": "a", "clips/2.wav": "b"}
        assert [example.group for example in splits.train] == ["x", "y"]
        assert splits.name == tmp_path.name

    @pytest.mark.parametrize("valid", ["validation", "val", "dev"])
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("metadata.csv", "file_name,label\nSPLIT 1.wav,a\nSPLIT 2.wav,b\n"),
            (
                "metadata.jsonl",
                '{"file_name": "SPLIT 1.wav", "label": "a"}\n{"file_name": "SPLIT 2.wav", "label": "b"}\n',
            ),
        ],
    )
    def test_in_each_split(self, tmp_path, name, text, valid):
        for split in ("train", valid, "test"):
            lay(tmp_path, f"{split}/{name}", text=text.replace("SPLIT", split))
        splits = load_dataset(tmp_path)
        assert listing(tmp_path, splits.valid) == {f"{valid}/{valid} 1.wav": "a", f"{valid}/{valid} 2.wav": "b"}
        assert {part: len(examples) for part, examples in splits.parts.items()} == {"train": 2, "valid": 2, "test": 2}

    def test_at_the_root_over_split_folders(self, tmp_path):
        """As AudioFolder has it: the folder tells the split where the table does not."""
        lay(tmp_path, "metadata.csv", text="file_name,label\ntrain/1.wav,a\ntrain/2.wav,b\ntest/1.wav,a\n")
        splits = load_dataset(tmp_path)
        assert {part: len(examples) for part, examples in splits.parts.items()} == {"train": 2, "test": 1}
        lay(tmp_path, "metadata.csv", text="file_name,label\ntrain/1.wav,a\nother/2.wav,b\n")
        assert list(load_dataset(tmp_path).parts) == ["train"]

    def test_options_of_a_manifest_are_known(self, tmp_path):
        lay(tmp_path, "metadata.csv", text="file_name,mood,singer\n1.wav,sad,A\n2.wav,gay,B\n")
        splits = load_dataset(tmp_path, label_column="mood", group_column="singer", labels=["sad", "gay"])
        assert [(e.label, e.group) for e in splits.train] == [("sad", "A"), ("gay", "B")]
        assert splits.labels == ("sad", "gay")

    def test_a_listed_clip_twice_in_two_splits(self, tmp_path):
        lay(tmp_path, "train/metadata.csv", text="file_name,label\n../shared/1.wav,a\n2.wav,b\n")
        lay(tmp_path, "test/metadata.csv", text="file_name,label\n../shared/1.wav,a\n")
        with pytest.raises(DatasetError, match=r"1\.wav is in train and in test; leave it in one of them"):
            load_dataset(tmp_path)

    def test_a_split_that_is_not_listed_is_not_dropped_in_silence(self, tmp_path):
        lay(tmp_path, "train/metadata.csv", text="file_name,label\n1.wav,a\n2.wav,b\n")
        lay(tmp_path, "train/1.wav", "train/2.wav", "test/a/3.wav", "test/b/4.wav")
        try:
            splits = load_dataset(tmp_path)
            told = [*splits.parts, *splits.notes]
        except DatasetError as error:
            told = [str(error)]
        assert any("test" in sentence for sentence in told)


def test_paths_lead_to_the_sound(tmp_path):
    """From listing to samples, with names that trip careless code."""
    rng = np.random.default_rng(0)
    written = {}
    for name in ("a/1 2.wav", "a/x, y.wav", "b/it's 100%.wav", "b/소리 #1.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        written[name] = rng.uniform(-0.5, 0.5, 800).astype(np.float32)
        soundfile.write(tmp_path / name, written[name], 16_000, subtype="FLOAT")
    splits = load_dataset(tmp_path)
    clips = decode(splits, sampling_rate=16_000, max_seconds=None, cache_dir=tmp_path / ".cache").parts["train"]
    for index, example in enumerate(splits.train):
        item = clips[index, 0]
        name = Path(example.audio).relative_to(tmp_path).as_posix()
        assert np.array_equal(item["waveform"], written[name])
        assert splits.labels[item["label"]] == name[0]
