"""Lists of images as people and programs write them."""

import os

import numpy as np
import pytest
import tensorflow as tf

from tf_simclr.data.files import labels, listing

FILES = ("a.png", "b.png", "c.png")
CLASSES = ("cat", "dog", "cat")
TRAIN = ["train/a.png", "train/b.png"]


@pytest.fixture
def make(tmp_path, caplog):
    """Writes images and a list, and reads it: {key: class}, and what the log says."""
    image = tf.io.encode_png(np.zeros([8, 8, 3], np.uint8)).numpy()

    def make(content: str | bytes, files=FILES, name="list.csv") -> tuple[dict[str, str | None], str]:
        for file in (*files, name):
            path = os.fsencode(tmp_path / file)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as opened:
                opened.write(image)
        content = content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape")
        (tmp_path / name).write_bytes(content)
        caplog.clear()
        with caplog.at_level("INFO", logger="absl"):
            listed = listing.list_images(str(tmp_path / name))
        assert all(os.path.isfile(os.fsencode(path)) for path in listed.paths)
        return dict(zip(listed.keys, listed.classes, strict=True)), caplog.text

    return make


def table(header: list[str], delimiter: str = ",") -> str:
    rows = [header, *zip(FILES, CLASSES, strict=True)] if header else zip(FILES, CLASSES, strict=True)
    return "".join(delimiter.join(row) + "\n" for row in rows)


@pytest.mark.parametrize("header", [["file", "class"], ["IMAGE PATH", "Class Name"], ["foo", "bar"], []])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_header_and_delimiter_are_recognised_by_the_files(make, header, delimiter):
    found, log = make(table(header, delimiter))
    assert found == dict(zip(FILES, CLASSES, strict=True))
    assert (
        "3 rows with 3 different files" in log and (f"labels in column `{header[1]}`" if header else "column 2") in log
    )


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + table(["File", "Label"], ";").replace("\n", "\r\n").encode(),
        b"sep=;\r\n" + table(["File", "Label"], ";").encode(),
        table(["File", "Label"], "\t").encode("utf-16"),
        b"\xfe\xff" + table(["File", "Label"], "\t").encode("utf-16-be"),
        table(["File", "Label"], "\t").encode("utf-16-le"),
        b"'path','label'\n'a.png','cat'\n'b.png','dog'\n'c.png','cat'\n",
        b"label,path\ncat,a.png\ndog,b.png\ncat,c.png\n",
        b"cat,a.png\ndog,b.png\ncat,c.png\n",
        b",path,label\n0,a.png,cat\n1,b.png,dog\n2,c.png,cat\n",
        b"id,label\na,cat\nb,dog\nc,cat\n",
        b"path,is_new,label\na.png,0,cat\nb.png,1,dog\nc.png,0,cat\n",
        b"path,cat,dog\na.png,1.0,0.0\nb.png,0.0,1.0\nc.png,1.0,0.0\n",
        b"# my list\npath,label\na.png,cat\nb.png,dog\nc.png,cat\n",
        b"# my list, of 3\n# by me\n\nlabel,path\ncat,a.png\ndog,b.png\ncat,c.png\n",
        b"# my list\nid,label\na,cat\nb,dog\nc,cat\n",
        b"# my list\n#path,label\na.png,cat\nb.png,dog\nc.png,cat\n",
        b"# my list\ncat,a.png\ndog,b.png\ncat,c.png\n",
        b"TRAIN,a.png,cat\nTEST,b.png,dog\nTRAIN,c.png,cat\n",
        b"a.png,1,2,3,4,cat\nb.png,1,5,3,4,dog\nc.png,1,2,3,9,cat\n",
    ],
)
def test_tables_of_programs(make, content):
    assert make(content)[0] == dict(zip(FILES, CLASSES, strict=True))


@pytest.mark.parametrize(
    ("content", "files", "name", "expected"),
    [
        ("id,label\na,1\nb,0\n", ["train/a.png", "train/b.png", "test/a.png"], "train.csv", TRAIN),
        ("image_id,dx,age\na,nv,8\nb,bkl,\n", ["part1/a.png", "part2/b.png"], "m.csv", ["part1/a.png", "part2/b.png"]),
        ("Path,Sex\nset/train/v.png,F\n", ["set/train/v.png"], "set/train.csv", ["../set/train/v.png"]),
        ("file,label\na.png,x\n", ["images/a.png"], "labels/l.csv", ["../images/a.png"]),
        ("path,label\nx\\a.png,cat\nx\\b.png,dog\n", ["x/a.png", "x/b.png"], "l.csv", ["x/a.png", "x/b.png"]),
        ("a.png 0\nmy b.png 1\n", ["a.png", "my b.png"], "l.txt", ["a.png", "my b.png"]),
        ("0 a.png\n1 my b.png\n", ["a.png", "my b.png"], "l.txt", ["a.png", "my b.png"]),
        ("my a.png\nmy b.png\n", ["my a.png", "my b.png"], "l.txt", ["my a.png", "my b.png"]),
        ("a\u2028b.png\nc\x85.png\n", ["a\u2028b.png", "c\x85.png"], "l.txt", ["a\u2028b.png", "c\x85.png"]),
        ('path\n"new\nline.png"\n"a, b.png"\n', ["new\nline.png", "a, b.png"], "l.csv", ["a, b.png", "new\nline.png"]),
        ("path,label\ncaf\udce9.png,x\nb.png,y\n", ["caf\udce9.png", "b.png"], "l.csv", ["b.png", "caf\udce9.png"]),
        ("path,label\ncaf\udce9.png,x\nb.png,y\n", ["café.png", "b.png"], "l.csv", ["b.png", "café.png"]),
    ],
)  # fmt: skip
def test_files_are_found_where_data_sets_have_them(make, content, files, name, expected):
    assert list(make(content, files, name)[0]) == expected


@pytest.mark.parametrize(
    ("content", "classes", "words"),
    [
        ("path,label\na.png,1.0\nb.png,\nc.png,0.0\n", ["1", None, "0"], "but for 1 of the rows"),
        ("path,label\na.png,1.0\nb.png,nan\nc.png,2.0\n", ["1", None, "2"], "but for 1 of the rows"),
        ("path,label\na.png,x\nb.png,nan\nc.png,y\n", ["x", None, "y"], "but for 1 of the rows"),
        (
            "path,label\na.png,x\na.png,y\nb.png,y\nc.png,y\nc.png,y\n",
            [None, "y", "y"],
            "several labels: 1, first a.png",
        ),
        ("path,A,B\na.png,1,1\nb.png,0,1\nc.png,1,0\n", [None] * 3, "none of the columns `A`, `B` is called label"),
        ("a.png,1,7\nb.png,2,7\nc.png,2,9\n", [None] * 3, "none of the columns 2, 3 is called label"),
        ("path,label,split\na.png,x,train\nb.png,y,test\nc.png,x,train\n", ["x", "y", "x"], "`split` names splits"),
        (
            "path,class_id,class_name\na.png,0,x\nb.png,1,y\nc.png,0,x\n",
            ["x", "y", "x"],
            "labels in column `class_name`",
        ),
        ("image,mask\na.png,m.png\nb.png,m.png\nc.png,m.png\n", [None] * 3, "no labels"),
    ],
)
def test_what_is_understood_is_said(make, content, classes, words):
    found, log = make(content)
    assert list(found.values()) == classes and words in log


def test_captions_are_no_labels(make):
    files = [f"{i:02}.png" for i in range(12)]
    found, log = make("file_name,text\n" + "".join(f"{file},a photo {file}\n" for file in files), files)
    assert set(found.values()) == {None} and "no labels" in log


@pytest.mark.parametrize("content", ["", "path,label\n", "foo,bar\n1,2\n", '"unclosed'])
def test_a_list_of_no_files_is_an_error(make, content):
    with pytest.raises(ValueError, match="none of the . rows looked at in .* names a file that exists"):
        make(content)


def test_one_file_of_many_that_exists_makes_a_list(tmp_path):
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(f"{i}.png,{i % 2}\n" for i in range(38)))
    (tmp_path / "20.png").touch()
    assert len(listing.list_images(str(tmp_path / "list.csv")).keys) == 38


def test_lines_of_a_text_file_behind_a_comment(make):
    assert list(make("# my images\na.png\n#b.png\n", ["a.png", "#b.png"], "l.txt")[0]) == ["#b.png", "a.png"]


@pytest.mark.parametrize(
    ("label", "name"),
    [
        *[(label, None) for label in (None, "", " ", b"", float("nan"), "NaN", "None", "null", "NULL", "<NA>", b"n/a")],
        (1.0, "1"), (-1.0, "-1"), ("2.00", "2"), (b"0.0", "0"), (-0.0, "0"), (7, "7"), (True, "True"), ("007", "007"),
        (1.5, "1.5"), ("NA", "NA"), ("none", "none"), (" a b ", "a b"), (b"\xff", "\udcff"), ("9" * 5000, "9" * 5000),
    ],
)  # fmt: skip
def test_labels_of_all_sources_follow_one_rule(label, name):
    assert labels.to_class_name(label) == name


def test_an_id_of_several_files_and_a_row_without_a_file_are_errors(make):
    with pytest.raises(ValueError, match="must stand for one file.*Received: 'a'"):
        make("id,label\na,1\nb,0\n", ["one/a.png", "two/a.png", "two/b.png"])
    with pytest.raises(ValueError, match="Row 4 of .* has no image path. Received: ',y'"):
        make("# my list\npath,label\na.png,x\n,y\n", ["a.png"], "rows.csv")


def test_a_first_column_of_labels_may_count_the_rows():
    rows = [["0", "a.png"], ["1", "b.png"], ["2", "c.png"]]
    assert labels.find(rows, ["label", "path"], 1)[0] == ["0", "1", "2"]
    assert labels.find(rows, ["number", "path"], 1)[0] == [None, None, None]
