"""The door: which kind of data a name, path or object is, and no option ignored."""

import re
from pathlib import Path

import pytest

from audioclf import AudioSource, AudioSplits, ConfigError, DatasetError, Example, load_dataset, make_splits


def examples(*labels: str, **fields) -> list[Example]:
    return [Example(f"{number}.wav", label, **fields) for number, label in enumerate(labels)]


@pytest.fixture
def kinds(tmp_path) -> dict:
    """One small data set of each kind that needs no synthesis."""
    import datasets

    for name in ("folder/a/1.wav", "folder/b/2.wav"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    (tmp_path / "table.csv").write_text("path,label\n1.wav,a\n2.wav,b\n")
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "metadata.csv").write_text("file_name,label\n1.wav,a\n2.wav,b\n")
    rows = {"audio": ["1.wav", "2.wav"], "label": ["a", "b"]}
    return {
        "folder": tmp_path / "folder",
        "table": tmp_path / "table.csv",
        "audiofolder": tmp_path / "meta",
        "object": datasets.Dataset.from_dict(rows).cast_column("audio", datasets.Audio()),
        "splits": make_splits(examples("a", "b"), name="mine"),
        "gtzan": "gtzan",
        "demo": "demo",
    }


@pytest.mark.parametrize(
    ("kind", "option", "value", "words"),
    [
        ("folder", "label_column", "x", "a folder of class folders"),
        ("folder", "group_column", "x", "a folder of class folders"),
        ("folder", "fold", 1, "a folder of class folders"),
        ("folder", "protocol", "random", "a folder of class folders"),
        ("folder", "root", "/x", "a folder of class folders"),
        ("table", "protocol", "x", "a manifest"),
        ("table", "root", "/x", "a manifest"),
        ("audiofolder", "protocol", "x", "a manifest"),
        ("audiofolder", "root", "/x", "a manifest"),
        ("object", "protocol", "x", "a datasets object"),
        ("object", "root", "/x", "a datasets object"),
        ("object", "fold", 0, "a datasets object"),
        ("splits", "labels", ["a", "b"], "a data set that is already loaded"),
        ("splits", "group_column", "x", "a data set that is already loaded"),
        ("gtzan", "fold", 1, "gtzan"),
        ("gtzan", "labels", ["rock", "pop"], "gtzan"),
        ("gtzan", "label_column", "genre", "gtzan"),
        ("demo", "labels", ["waltz", "dub"], "demo"),
        ("demo", "fold", 1, "the demo set music"),
        ("demo", "group_column", "x", "demo"),
    ],
)
def test_an_option_without_a_meaning_is_refused(kinds, tmp_path, kind, option, value, words):
    sentence = f"{option}={value!r} means nothing for {words}; leave it out."
    with pytest.raises(ConfigError, match=f"^{re.escape(sentence)}$"):
        load_dataset(kinds[kind], **{option: value}, cache_dir=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("kind", ["folder", "table", "audiofolder", "object"])
def test_every_kind_gives_the_same_parts(kinds, kind):
    splits = load_dataset(kinds[kind])
    assert splits.labels == ("a", "b")
    assert [example.label for example in splits.train] == ["a", "b"]
    assert load_dataset(kinds[kind], labels=("b", "a")).label2id == {"b": 0, "a": 1}


def test_loaded_splits_pass_through(kinds):
    assert load_dataset(kinds["splits"]) is kinds["splits"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("./nowhere", "'./nowhere': no such file or folder."),
        ("nowhere.csv", "'nowhere.csv': no such file or folder."),
        ("a/b.jsonl", "'a/b.jsonl': no such file or folder."),
        ("a/b/c", "'a/b/c': no such file or folder."),
        ("/no/such/place", "'/no/such/place': no such file or folder."),
        ("C:\\music\\mine", "'C:\\\\music\\\\mine': no such file or folder."),
        (Path("nowhere/at/all"), "no such file or folder."),
        (7, "int is no data set: give a name, a path, a datasets.Dataset or what load_dataset returns."),
        (None, "NoneType is no data set"),
        ([("1.wav", "a")], "list is no data set"),
        ("", "no such file or folder"),
    ],
)
def test_what_is_no_data_set(name, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # an empty folder
    with pytest.raises(DatasetError, match=re.escape(sentence)):
        load_dataset(name)


def test_a_file_that_is_no_table(tmp_path):
    (tmp_path / "song.wav").touch()
    with pytest.raises(
        DatasetError, match=r"song\.wav' is no data set: give a folder, or a table that ends in \.csv, "
    ):
        load_dataset(tmp_path / "song.wav")


def test_home_is_expanded(kinds, monkeypatch):
    monkeypatch.setenv("HOME", str(kinds["folder"].parent))
    monkeypatch.setenv("USERPROFILE", str(kinds["folder"].parent))
    assert load_dataset("~/folder").labels == ("a", "b")


class TestMakeSplits:
    def test_parts_labels_and_maps(self):
        clips = [
            *examples("b", "a", "b"),
            Example("v.wav", "a", split="valid", group="x"),
            Example("t.wav", "b", split="test", group="x"),
        ]
        splits = make_splits(clips, name="mine", notes=["first"])
        assert isinstance(splits, AudioSplits)
        assert splits.parts == {"train": tuple(clips[:3]), "valid": (clips[3],), "test": (clips[4],)}
        assert (splits.labels, splits.id2label, splits.label2id) == (("a", "b"), {0: "a", 1: "b"}, {"a": 0, "b": 1})
        assert splits.notes == (
            "first",
            "1 group(s), for example 'x', are in both valid and test: scores on test will look better than they are.",
        )

    def test_any_iterable(self):
        assert len(make_splits(iter(examples("a", "b")), name="mine").train) == 2

    def test_groups_on_one_side_are_no_note(self):
        clips = [
            Example("1", "a", group="x"),
            Example("2", "b", split="test", group="y"),
            Example("3", "b", split="test"),
        ]
        assert make_splits(clips, name="mine").notes == ()

    def test_every_pair_of_parts_is_compared(self):
        clips = [
            Example(split, label, split, group="g")
            for split, label in zip(("train", "valid", "test"), "aba", strict=True)
        ]
        notes = make_splits(clips, name="mine").notes
        assert [re.search("both (.+):", note)[1] for note in notes] == [
            "train and valid",
            "train and test",
            "valid and test",
        ]

    def test_no_clips(self):
        with pytest.raises(DatasetError, match=r"^mine: holds no clips\."):
            make_splits([], name="mine")

    def test_split_of_another_name(self):
        """Either read as valid, as everywhere else, or refused in words."""
        clips = [*examples("a", "b"), Example("9.wav", "a", split="validation")]
        try:
            told = [example.split for example in make_splits(clips, name="mine").valid]
        except DatasetError as error:
            told = str(error)
        assert told in (["valid"], ["validation"]) or "validation" in told

    @pytest.mark.parametrize("audio", ["same.wav", AudioSource("row 3", "content", lambda: b"")])
    def test_one_clip_on_two_sides(self, audio):
        clips = [Example(audio, "a"), Example(audio, "a", split="valid"), Example("other", "b")]
        with pytest.raises(
            DatasetError, match=r"(same\.wav|row 3) is in train and in valid; leave it in one of them\."
        ):
            make_splits(clips, name="mine")

    def test_sources_of_one_name_and_two_contents_are_two_clips(self):
        sources = [AudioSource("row", identity, lambda: b"") for identity in "xy"]
        clips = [Example(sources[0], "a"), Example(sources[1], "b", split="test")]
        assert len(make_splits(clips, name="mine").parts) == 2
