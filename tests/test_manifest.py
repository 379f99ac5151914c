"""Tables of clips: what spreadsheets, scripts and people write, and what is wrong with it when it is wrong."""

import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audioclf import DatasetError, load_dataset
from audioclf.clips import decode


def table(folder: Path, text: str | bytes, name: str = "clips.csv") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return path


ROWS = [("a.wav", "dog", "", "s1"), ("sub folder/b, c.wav", "고양이", "val", "s2"), ('d "e".wav', "a b", "test", "s1")]
CSV = """\
path,label,split,group
a.wav,dog,,s1
"sub folder/b, c.wav",고양이,val,s2
"d ""e"".wav",a b,test,s1
"""
TSV = 'path|label|split|group\na.wav|dog||s1\nsub folder/b, c.wav|고양이|valid|s2\nd "e".wav|a b|eval|s1\n'.replace(
    "|", "\t"
)
JSONL = """\
{"path": "a.wav", "label": "dog", "split": null, "group": "s1"}

{"group": "s2", "path": "sub folder/b, c.wav", "label": "고양이", "split": "validation"}
{"path": "d \\"e\\".wav", "label": "a b", "split": "test", "group": "s1", "more": [1]}"""
OTHER_NAMES = """\
group,genre,split,  file_name
s1,dog,,a.wav
s2,고양이,dev,"sub folder/b, c.wav"
s1,a b,testing,"d ""e"".wav"
"""
SPACES = """\
path,label,split,group
  a.wav , dog , , s1
"sub folder/b, c.wav",고양이 , Validation ,s2
"d ""e"".wav",a b, TEST,s1
"""
FORMS = {
    "comma": ("clips.csv", CSV),
    "bom": ("clips.csv", "\ufeff" + CSV),
    "crlf": ("clips.csv", CSV.replace("\n", "\r\n")),
    "no newline at the end": ("clips.csv", CSV.rstrip("\n")),
    "blank lines": ("clips.CSV", CSV.replace("\n", "\n\n")),
    "other names and order": ("clips.csv", OTHER_NAMES),
    "spaces around": ("clips.csv", SPACES),
    "semicolon": ("clips.csv", TSV.replace("\t", ";")),
    "tab in a csv": ("clips.csv", TSV),
    "tsv": ("clips.tsv", TSV),
    "tsv with bom": ("clips.tsv", "\ufeff" + TSV),
    "jsonl": ("clips.jsonl", JSONL),
    "jsonl with bom and crlf": ("clips.jsonl", "\ufeff" + JSONL.replace("\n", "\r\n")),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_says_the_same(tmp_path, form):
    name, text = FORMS[form]
    splits = load_dataset(table(tmp_path, text, name))
    found = [*splits.train, *splits.valid, *splits.test]
    assert [Path(example.audio) for example in found] == [tmp_path / path for path, *_ in ROWS]
    assert [(example.label, example.group) for example in found] == [(label, group) for _, label, _, group in ROWS]
    assert {part: len(examples) for part, examples in splits.parts.items()} == {"train": 1, "valid": 1, "test": 1}
    assert splits.labels == ("a b", "dog", "고양이")
    assert splits.name == name
    (note,) = splits.notes
    assert note.startswith("1 group(s), for example 's1', are in both train and test")


def test_numbers_are_labels_in_the_order_of_numbers(tmp_path):
    csv = "path,label\n" + "".join(f"{n}.wav,{n}\n" for n in (10, 9, 0))
    jsonl = "".join(f'{{"path": "{n}.wav", "label": {n}}}\n' for n in (10, 9, 0))
    assert load_dataset(table(tmp_path, csv)).labels == ("0", "9", "10")
    assert load_dataset(table(tmp_path, jsonl, "clips.jsonl")).labels == ("0", "9", "10")


def test_columns_by_name(tmp_path):
    path = table(tmp_path, "file,the mood,label,who is it\n1.wav,sad,x,A\n2.wav,merry one,x,B\n")
    splits = load_dataset(path, label_column="the mood", group_column="who is it", labels=("sad", "merry one"))
    assert [(e.label, e.group) for e in splits.train] == [("sad", "A"), ("merry one", "B")]


def test_a_group_named_in_a_later_row_only_counts(tmp_path):
    """JSON lines leave out what is empty; the keys of the first one are not all there are."""
    text = '{"path": "1.wav", "label": "a"}\n{"path": "2.wav", "label": "b", "group": "s", "split": "valid"}\n'
    splits = load_dataset(table(tmp_path, text, "clips.jsonl"))
    assert [e.group for e in (*splits.train, *splits.valid)] == [None, "s"]


def test_paths(tmp_path):
    there = table(tmp_path / "else where", "", "x.wav")
    table(tmp_path / "sub", "", "win.wav")
    csv = f"path,label\nsub\\win.wav,a\n{there},b\n./sub/../rel.wav,a\nsub\\missing.wav,b\n"
    audio = [Path(example.audio) for example in load_dataset(table(tmp_path, csv)).train]
    assert audio[0] == tmp_path / "sub" / "win.wav"
    assert audio[1] == there
    assert audio[2].resolve() == tmp_path / "rel.wav"
    assert audio[3].parent.parent == tmp_path


def test_relative_paths_do_not_depend_on_the_working_folder(tmp_path, monkeypatch):
    table(tmp_path / "data", "path,label\n1.wav,a\n2.wav,b\n")
    monkeypatch.chdir(tmp_path)
    audio = [Path(example.audio) for example in load_dataset("data/clips.csv").train]
    assert [path.resolve() for path in audio] == [tmp_path / "data" / "1.wav", tmp_path / "data" / "2.wav"]


def test_start_and_end(tmp_path):
    """Pieces of one recording are clips of their own, and each is just its samples."""
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000).astype(np.float32)
    soundfile.write(tmp_path / "long.wav", samples, 16_000, subtype="FLOAT")
    csv = "path,label,start,end,split\nlong.wav,a,,0.25,\nlong.wav,b,0.25,0.5,\nlong.wav,a,0.5,,valid\n"
    splits = load_dataset(table(tmp_path, csv))
    assert [(e.start, e.end) for e in splits.train] == [(None, 0.25), (0.25, 0.5)]
    assert splits.train[1].name.endswith("long.wav [0.25-0.5 s]")
    parts = decode(splits, sampling_rate=16_000, max_seconds=None, cache_dir=tmp_path / "cache").parts
    found = [parts["train"][0, 0], parts["train"][1, 0], parts["valid"][0, 0]]
    for item, (first, last) in zip(found, [(0, 4_000), (4_000, 8_000), (8_000, 16_000)], strict=True):
        assert np.array_equal(item["waveform"], samples[first:last])


class TestFolds:
    CSV = "path,label,fold\n1.wav,a,1\n2.wav,b,1\n3.wav,a,2\n4.wav,b,2\n5.wav,a,10\n"

    @pytest.mark.parametrize("fold", [2, "2"])
    def test_one_is_test(self, tmp_path, fold):
        splits = load_dataset(table(tmp_path, self.CSV), fold=fold)
        assert [Path(example.audio).name for example in splits.test] == ["3.wav", "4.wav"]
        assert [Path(example.audio).name for example in splits.train] == ["1.wav", "2.wav", "5.wav"]

    def test_all_are_train_when_none_is_named(self, tmp_path):
        assert len(load_dataset(table(tmp_path, self.CSV)).train) == 5

    def test_unknown(self, tmp_path):
        with pytest.raises(DatasetError, match=r"clips\.csv' has no fold '7'; it has 1, (2, 10|10, 2)\."):
            load_dataset(table(tmp_path, self.CSV), fold=7)

    def test_no_column(self, tmp_path):
        with pytest.raises(DatasetError, match=r"has no column fold, so fold=1 chooses nothing; leave fold out"):
            load_dataset(table(tmp_path, "path,label\n1.wav,a\n2.wav,b\n"), fold=1)


GOOD = "path,label\n1.wav,a\n2.wav,b\n"
JSON_GOOD = '{"path": "1.wav", "label": "a"}\n'
TIMES = "path,label,start,end\n1.wav,a,0,1\n2.wav,b,{}\n"
PARTS = "path,label,split\n1.wav,a,train\n2.wav,b,{}\n"
TWO_PIECES = "path,label,start,end,split\n1.wav,a,0,2,train\n2.wav,b,0,1,train\n1.wav,a,1.5,3,valid\n"
NO_PATH = "has no column path or file_name or filename; it has wav, label: call it path."
NO_LABEL = "has no column label or class or category; it has path, mood: name it with label_column."
NO_SPLIT = "line 3: 'holdout' is no split; use train, valid (or val, validation, dev) or test."
BAD = {
    "nothing": ("c.csv", "", "c.csv' lists no clips."),
    "header only": ("c.tsv", "path\tlabel\n", "c.tsv' lists no clips."),
    "no lines": ("c.jsonl", "\n\n", "c.jsonl' lists no clips."),
    "no path": ("c.csv", "wav,label\n1.wav,a\n", NO_PATH),
    "no label": ("c.csv", "path,mood\n1.wav,a\n", NO_LABEL),
    "no json label": ("c.jsonl", '{"path": "1.wav", "mood": "a"}', NO_LABEL),
    "empty label": ("c.csv", GOOD + "3.wav,\n", "c.csv', line 4: label is empty."),
    "blank label": ("c.csv", GOOD + "3.wav,  \n", "line 4: label is empty."),
    "empty path": ("c.csv", GOOD + ",a\n", "line 4: path is empty."),
    "short row": ("c.csv", GOOD + "3.wav\n", "line 4: label is empty."),
    "long row": ("c.csv", GOOD + "3, 4.wav,a\n", "line 4"),
    "null label": ("c.jsonl", JSON_GOOD + '{"path": "2.wav", "label": null}', "line 2: label is empty."),
    "key missing": ("c.jsonl", JSON_GOOD + '{"path": "2.wav"}', "line 2: label is empty."),
    "nested label": (
        "c.jsonl",
        JSON_GOOD + '\n{"path": "2.wav", "label": ["a", ["b"]]}',
        "line 3: ['a', ['b']] is no list of labels.",
    ),
    "object label": ("c.jsonl", JSON_GOOD + '{"path": "2.wav", "label": {"a": 1}}', "line 2"),
    "bad json": ("c.jsonl", JSON_GOOD + '{"path": "2.wav", ', "c.jsonl', line 2: is not JSON ("),
    "json array": (
        "c.jsonl",
        JSON_GOOD + '["2.wav", "a"]',
        'line 2: expected an object like {"path": ..., "label": ...}.',
    ),
    "json number": ("c.jsonl", "7", "line 1: expected an object"),
    "latin-1": ("c.csv", "path,label\ncafé.wav,a\n".encode("latin-1"), "c.csv' is not UTF-8 ("),
    "utf-16": ("c.csv", GOOD.encode("utf-16"), "c.csv' is not UTF-8 ("),
    "latin-1 json": ("c.jsonl", '{"path": "é"}'.encode("latin-1"), "c.jsonl' is not UTF-8 ("),
    "open quote": ("c.csv", GOOD + '"3.wav,a\n4.wav,b\n', "c.csv', line 4: is no proper table ("),
    "bad split": ("c.csv", PARTS.format("holdout"), NO_SPLIT),
    "bad start": ("c.csv", TIMES.format("1:30,"), "line 3: start='1:30' is no time in seconds."),
    "negative start": ("c.csv", TIMES.format("-1,"), "line 3: start='-1' is no time in seconds."),
    "nan end": ("c.csv", TIMES.format(",nan"), "line 3: end='nan' is no time in seconds."),
    "infinite end": (
        "c.jsonl",
        JSON_GOOD + '{"path": "1", "label": "a", "end": Infinity}',
        "line 2: end=inf is no time in seconds.",
    ),
    "decimal comma": ("c.csv", "path;label;end\n1.wav;a;1,5\n", "line 2: end='1,5' is no time in seconds."),
    "end before start": ("c.csv", TIMES.format("2,1"), "line 3"),
    "one class": ("c.csv", "path,label\n1.wav,a\n2.wav,a\n", "c.csv: has one class only ('a'); a classifier needs two"),
    "two splits": (
        "c.csv",
        PARTS.format("train") + "./1.wav,a,test\n",
        "1.wav is in train and in test; leave it in one of them.",
    ),
    "two labels": ("c.csv", GOOD + "1.wav,b\n", "1.wav has two labels, 'a' and 'b'; leave it with one."),
    "overlap": ("c.csv", TWO_PIECES, "1.wav [1.5-3.0 s] is in train and in valid"),
}


@pytest.mark.parametrize("case", BAD)
def test_refused(tmp_path, case):
    name, text, sentence = BAD[case]
    with pytest.raises(DatasetError, match=re.escape(sentence)):
        load_dataset(table(tmp_path, text, name))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"label_column": "lable"}, "has no column 'lable' (label_column); it has path, label; did you mean 'label'?"),
        ({"label_column": "xyz"}, "has no column 'xyz' (label_column); it has path, label."),
        ({"group_column": "speaker"}, "has no column 'speaker' (group_column); it has path, label."),
        ({"labels": ["a", "c"]}, "2.wav has the label 'b', which is not among labels."),
        ({"labels": ["a", "b", "a"]}, "'a' stands twice in labels."),
    ],
)
def test_refused_options(tmp_path, options, sentence):
    with pytest.raises(DatasetError, match=re.escape(sentence)):
        load_dataset(table(tmp_path, GOOD), **options)


def test_touching_pieces_and_equal_rows_are_no_overlap(tmp_path):
    csv = "path,label,start,end,split\n1.wav,a,0,1,train\n1.wav,b,1,2,valid\n2.wav,b,,,train\n2.wav,b,,,train\n"
    assert len(load_dataset(table(tmp_path, csv)).train) == 3


def test_many_pieces_of_one_recording_are_quick(tmp_path):
    """Weeks of annotated monitoring in one file: comparing each piece with each would take minutes."""
    num = 20_000
    csv = "path,label,start,end\n" + "".join(f"week.wav,{'ab'[i % 2]},{i},{i + 1}\n" for i in range(num))
    begun = time.process_time()
    assert len(load_dataset(table(tmp_path, csv)).train) == num
    assert time.process_time() - begun < 4


@pytest.mark.slow
def test_two_million_rows_in_bounded_memory(tmp_path):
    """In a process of its own, whose peak is that of the table."""
    with open(tmp_path / "clips.csv", "w", encoding="utf-8") as file:
        file.write("path,label,split\n")
        file.writelines(
            f"audio/part{i % 1000:03}/clip{i:07}.wav,label{i % 500},{'valid' if i % 50 == 0 else 'train'}\n"
            for i in range(2_000_000)
        )
    script = "import sys, audioclf, peak; s = audioclf.load_dataset(sys.argv[1]); print(len(s.valid), peak.peak_mib())"
    command = [sys.executable, "-c", script, str(tmp_path / "clips.csv")]
    told = subprocess.run(command, cwd=Path(__file__).parent, check=True, capture_output=True, text=True).stdout.split()
    assert told[0] == "40000"
    assert float(told[1]) < 1500
