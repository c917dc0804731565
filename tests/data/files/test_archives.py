"""Archives as folders: what is listed and read, whatever the names, links and damage in them."""

import io
import os
import stat
import tarfile
import zipfile

import pytest
import tensorflow as tf
from layouts import png

from tf_simclr.data.files import archives, listing

SYMLINK, HARDLINK = tarfile.SYMTYPE, tarfile.LNKTYPE


def write_tar(path, *members, file_format=tarfile.PAX_FORMAT):
    """Members are (name, content) or (name, kind, target)."""
    with tarfile.open(path, "w", format=file_format, errors="surrogateescape") as tar:
        for name, *what in members:
            info = tarfile.TarInfo(name)
            if len(what) == 2:
                info.type, info.linkname = what
                tar.addfile(info)
            else:
                info.size = len(what[0])
                tar.addfile(info, io.BytesIO(what[0]))
    return str(path)


def write_zip(path, *members, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return str(path)


def keys_of(place):
    return list(listing.list_images(place).keys)


def problems_of(place):
    prefix = f"{place}/"
    return {path.removeprefix(prefix): reason for path, reason in listing.list_images(place).problems.items()}


WRITERS = pytest.mark.parametrize("write, suffix", [(write_tar, "tar"), (write_zip, "zip"), (write_zip, "ZIP")])


@WRITERS
def test_an_archive_lists_and_reads_as_its_folder(tmp_path, write, suffix):
    members = [("./b/2.png", png(2)), ("a/1.png", png(1)), ("a/deep/3.png", png(3)), ("a.txt", b"x"), ("a", b"y")]
    members += [("a/.hidden.png", b""), ("__MACOSX/a/1.png", b""), ("Thumbs.db", b"")]
    place = write(tmp_path / f"photos.{suffix}", *members)
    listed = listing.list_images(place)
    assert list(listed.keys) == ["a/1.png", "a/deep/3.png", "b/2.png"] and listed.classes == ["a", "a", "b"]
    assert [archives.read(path) for path in listed.paths] == [png(1), png(3), png(2)]
    assert listed.ignored == {".txt": 1, "": 1} and not listed.problems
    assert keys_of(f"{place}/a") == ["1.png", "deep/3.png"]
    assert keys_of(f"{place},{place}/b") == ["a/1.png", "a/deep/3.png", "b/2.png"]


def test_a_folder_of_such_a_name_is_no_archive_and_an_archive_in_a_folder_no_image(tmp_path):
    folder = tmp_path / "photos.zip"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "1.png").write_bytes(png())
    write_zip(folder / "beside.zip", ("b/2.png", png()))
    listed = listing.list_images(str(folder))
    assert list(listed.keys) == ["a/1.png"] and listed.ignored == {".zip": 1}
    assert listing.list_images(f"{folder}/*").ignored == {".zip": 1}
    assert keys_of(f"{folder}/*.zip") == ["b/2.png"]
    assert archives.read(str(folder / "a" / "1.png")) == png()


@WRITERS
def test_names_lead_nowhere_outside_and_the_last_of_one_name_counts(tmp_path, caplog, write, suffix):
    (tmp_path / "outside.png").write_bytes(png(9))
    hostile = ["<script>.png", "tab\tnew\nline.png", "a b#record=1.png", "\u202egnp.png", "nested.zip/x.png"]
    members = [("../outside.png", png(9)), ("a/../../outside.png", png(9)), ("/absolute.png", png(1))]
    repeated = [("twice.png", b"old"), ("./twice.png", png(2))]
    place = write(tmp_path / f"x.{suffix}", *members, *repeated, *((name, png()) for name in hostile))
    assert sorted(keys_of(place)) == sorted(["absolute.png", "twice.png", *hostile])
    assert archives.read(f"{place}/twice.png") == png(2) and archives.read(f"{place}/tab\tnew\nline.png") == png()
    assert set(problems_of(place)) == {"../outside.png", "a/../../outside.png"}
    assert set(problems_of(place).values()) == {"its name leads out of the archive"}
    assert "1 name" in caplog.text
    with pytest.raises(tf.errors.NotFoundError):
        archives.read(f"{place}/../outside.png")


def test_names_of_any_bytes(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    tar = write_tar(tmp_path / "x.tar", (name, png(1)), ("日.png", png(2)), file_format=tarfile.GNU_FORMAT)
    assert keys_of(tar) == [name, "日.png"] and archives.read(f"{tar}/{name}") == png(1)
    path = write_zip(tmp_path / "x.zip", ("caf_.png", png(1)), ("日.png", png(2)))
    content = (tmp_path / "x.zip").read_bytes().replace(b"caf_.png", b"caf\xe9.png")
    (tmp_path / "x.zip").write_bytes(content)
    assert keys_of(path) == [name, "日.png"] and archives.read(f"{path}/{name}") == png(1)


def test_links_are_followed_inside_the_archive_only(tmp_path):
    (tmp_path / "outside.png").write_bytes(png(9))
    outside = str(tmp_path / "outside.png")
    links = [("hard.png", "a/1.png"), ("hard_out.png", "../outside.png")]
    symbolic = [
        ("b/soft.png", "../a/1.png"), ("b/chain.png", "soft.png"), ("out.png", "../outside.png"), ("abs.png", outside),
        ("loop.png", "loop.png"), ("no.png", "none.png"),
    ]  # fmt: skip
    links = [(name, HARDLINK, target) for name, target in links] + [(name, SYMLINK, to) for name, to in symbolic]
    links.append(("pipe.png", tarfile.FIFOTYPE, ""))
    place = write_tar(tmp_path / "x.tar", *links, ("a/1.png", png(1)))
    assert keys_of(place) == ["a/1.png", "b/chain.png", "b/soft.png", "hard.png"]
    assert {archives.read(path) for path in listing.list_images(place).paths} == {png(1)}
    out, nowhere = "the link leads out of the archive", "the link leads nowhere"
    assert problems_of(place) == {
        "out.png": out, "abs.png": out, "hard_out.png": out, "loop.png": nowhere, "no.png": nowhere,
        "pipe.png": "it is not a regular file",
    }  # fmt: skip
    info = zipfile.ZipInfo("link.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    place = write_zip(tmp_path / "x.zip", (info, "../outside.png"), ("1.png", png()))
    assert keys_of(place) == ["1.png"] and problems_of(place) == {"link.png": out}
    place = write_zip(tmp_path / "y.zip", (info, "a" * 5000), ("1.png", png()))
    assert keys_of(place) == ["1.png"] and "too long" in problems_of(place)["link.png"]
    info.compress_type = zipfile.ZIP_DEFLATED
    place = write_zip(tmp_path / "z.zip", (info, "1.png"), ("1.png", png()))
    content = bytearray((tmp_path / "z.zip").read_bytes())
    content[30 + len("link.png")] = 0xFF
    (tmp_path / "z.zip").write_bytes(content)
    assert keys_of(place) == ["1.png"] and "cannot be read" in problems_of(place)["link.png"]


def test_members_that_cannot_be_read_say_why(tmp_path):
    content = png(1)
    place = write_zip(tmp_path / "x.zip", ("crc.png", content), ("head.png", png(2)), ("good.png", png(3)))
    damaged = bytearray((tmp_path / "x.zip").read_bytes())
    damaged[30 + len("crc.png") + 20] ^= 0xFF
    second = damaged.index(b"PK\3\4", 10)
    damaged[second] = 0
    (tmp_path / "x.zip").write_bytes(damaged)
    for name, reason in [("crc", "its content in the archive is damaged"), ("head", "its header in the archive")]:
        with pytest.raises(tf.errors.DataLossError, match=reason):
            archives.read(f"{place}/{name}.png")
    assert archives.read(f"{place}/good.png") == png(3)

    place = write_zip(tmp_path / "y.zip", ("1.png", content), ("2.png", content), method=zipfile.ZIP_DEFLATED)
    encrypted = bytearray((tmp_path / "y.zip").read_bytes())
    encrypted[encrypted.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "y.zip").write_bytes(encrypted)
    assert keys_of(place) == ["2.png"] and problems_of(place) == {"1.png": "it is encrypted"}
    place = write_zip(tmp_path / "z.zip", ("1.png", content), method=zipfile.ZIP_LZMA)
    with pytest.raises(ValueError, match="no image files .* it is compressed by method 14: pack it stored or deflated"):
        listing.list_images(place)


def test_a_member_that_unpacks_to_more_than_it_says_does_not_fill_the_memory(tmp_path):
    bomb = write_zip(tmp_path / "x.zip", ("1.png", bytes(10**6)), ("2.png", png()), method=zipfile.ZIP_DEFLATED)
    content = bytearray((tmp_path / "x.zip").read_bytes())
    entry = content.index(b"PK\1\2")
    content[entry + 24 : entry + 28] = (100).to_bytes(4, "little")
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(tf.errors.DataLossError, match="is damaged"):
        archives.read(f"{bomb}/1.png")
    content[entry + 24 : entry + 28] = (2**31).to_bytes(4, "little")
    (tmp_path / "x.zip").write_bytes(content)
    assert problems_of(bomb) == {"1.png": "it takes more than 1 GiB"}


def test_archives_that_are_cut_off_or_damaged(tmp_path):
    members = [(f"{i}.png", png(i) + bytes(2000)) for i in range(4)]
    whole = write_tar(tmp_path / "whole.tar", *members)
    content = (tmp_path / "whole.tar").read_bytes()
    starts = [content.index(f"{i}.png".encode()) for i in range(4)]
    cut, damaged = tmp_path / "cut.tar", tmp_path / "damaged.tar"
    cut.write_bytes(content[: starts[2] + 1000])
    damaged.write_bytes(content[: starts[2]] + b"\xff" * 512 + content[starts[2] + 512 :])
    assert len(keys_of(whole)) == 4
    assert keys_of(str(cut)) == keys_of(str(damaged)) == ["0.png", "1.png"]
    assert problems_of(str(cut)).pop("2.png") == "the archive ends inside it"
    assert "cut off" in listing.list_images(str(cut)).problems[str(cut)]
    assert f"damaged from byte {starts[2]:,} on" in listing.list_images(str(damaged)).problems[str(damaged)]
    write_zip(tmp_path / "whole.zip", *members)
    (tmp_path / "cut.zip").write_bytes((tmp_path / "whole.zip").read_bytes()[:-30])
    (tmp_path / "text.tar").write_text("no archive" * 200)
    (tmp_path / "empty.tar").write_bytes(b"")
    for name in ("cut.zip", "text.tar", "empty.tar"):
        with pytest.raises(ValueError, match=f"cut off, damaged or of another format .*Received: .*{name}"):
            listing.list_images(str(tmp_path / name))


@pytest.mark.parametrize("mode, suffix", [("gz", "tar.gz"), ("gz", "tgz"), ("bz2", "tar.bz2"), ("xz", "tar.xz")])
def test_compressed_tar_files_are_refused_with_a_remedy(tmp_path, mode, suffix):
    names = [f"x.{suffix}", "misnamed.tar"]
    for name in names:
        with tarfile.open(tmp_path / name, f"w:{mode}") as tar:
            tar.addfile(tarfile.TarInfo("1.png"))
        with pytest.raises(ValueError, match=f"unpack it to a plain .tar.* `.*un.*`.* Received: .*{name}"):
            listing.list_images(str(tmp_path / name))


def test_a_changed_archive_is_listed_again(tmp_path):
    place = write_zip(tmp_path / "x.zip", ("1.png", png()))
    assert keys_of(place) == ["1.png"]
    write_zip(tmp_path / "x.zip", ("2.png", png()), ("3.png", png()))
    assert keys_of(place) == ["2.png", "3.png"]


@WRITERS
def test_archives_on_another_file_system(tmp_path, write, suffix):
    local = write(tmp_path / f"x.{suffix}", ("a/1.png", png(1)), ("b/2.png", png(2)))
    remote = f"ram://archives-{suffix}/x.{suffix}"
    tf.io.gfile.makedirs(os.path.dirname(remote))
    tf.io.gfile.copy(local, remote)
    listed = listing.list_images(remote)
    assert list(listed.keys) == ["a/1.png", "b/2.png"]
    assert [archives.read(path) for path in listed.paths] == [png(1), png(2)]


@WRITERS
def test_the_labels_of_webdataset_lie_beside_the_images(tmp_path, write, suffix):
    shard = [("0.jpg", png()), ("0.cls", b"7\n"), ("1.left.jpg", png()), ("1.right.jpg", png()), ("1.cls", b"12")]
    place = write(tmp_path / f"shard-0.{suffix}", *shard, ("2.jpg", png()), ("0.json", b'{"label": 3}'))
    listed = listing.list_images(place)
    assert list(zip(listed.keys, listed.classes, strict=True)) == [
        ("0.jpg", "7"), ("1.left.jpg", "12"), ("1.right.jpg", "12"), ("2.jpg", None),
    ]  # fmt: skip
    others = [("d/5.png", png()), ("d/5.json", b'{"width": 8, "Label": "cat"}'), ("d/6.png", png()), ("d/6.json", b"{")]
    second = write(tmp_path / f"shard-1.{suffix}", *others)
    assert listing.list_images(second).classes == ["cat", None]
    both = listing.list_images(f"{tmp_path}/shard-*.{suffix}")
    assert both.classes == ["7", "12", "12", None, "cat", None] and both.ignored == {".cls": 2, ".json": 3}
    plain = write(tmp_path / f"plain.{suffix}", ("a/1.png", png()), ("b/2.png", png()), ("b/2.json", b'{"width": 8}'))
    assert listing.list_images(plain).classes == ["a", "b"]
    stray = [(f"{label}/{number}.png", png()) for label in "ab" for number in (0, 1)]
    place = write(tmp_path / f"stray.{suffix}", *stray, ("a/0.json", b'{"class": 7}'), ("b/1.cls", b"7"))
    assert listing.list_images(place).classes == ["a", "a", "b", "b"]
    unrelated = [("0.png", png()), ("0.json", b'{"label": "cat"}'), ("1.png", png()), ("1.json", b'{"label": "dog"}')]
    place = write(tmp_path / f"unrelated.{suffix}", *unrelated, ("2.cls", b"tex"))
    assert listing.list_images(place).classes == ["cat", "dog"]
