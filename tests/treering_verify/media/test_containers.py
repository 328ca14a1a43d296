"""Images within archives and tables: named, counted, read up to a size, and never trusted."""

from __future__ import annotations

import io
import tarfile
import time
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.audits import KEY
from helpers.hostile import archives as hostile_archives
from helpers.images import array, encoded, smooth

from treering_verify.audit.folder import audit_folder
from treering_verify.audit.inputs.reading import read_path
from treering_verify.audit.inputs.sources import Entry, Inputs, list_inputs
from treering_verify.benchmark.speed.null_model import NULL_INVERSION, NullModel
from treering_verify.errors import ImageError
from treering_verify.media import containers
from treering_verify.media.containers import is_archive, list_members, read_member, split_member
from treering_verify.media.images import open_image

PNG = encoded(smooth(), "PNG")
SHAPE = (32, 32)


def zip_file(path: Path, members: dict[str, bytes]) -> Path:
    """Write a ZIP archive."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def tar_file(path: Path, members: dict[str, bytes]) -> Path:
    """Write a tar archive, with a link and a folder beside the members."""
    with tarfile.open(path, "w") as archive:
        for name, kind in (("folder", tarfile.DIRTYPE), ("link.png", tarfile.SYMTYPE), ("hard.png", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


MEMBERS = {"000/a.png": PNG, "000/a.json": b"{}", "../up.png": PNG, "/abs.png": PNG, "b!/c.png": PNG}


@pytest.mark.parametrize(("make", "ending"), [(zip_file, "zip"), (tar_file, "tar")])
def test_each_member_is_an_entry_and_is_read(make: object, ending: str, tmp_path: Path) -> None:
    path = make(tmp_path / f"shard.{ending}", MEMBERS)  # type: ignore[operator]
    assert is_archive(str(path))
    assert [member.lstrip("/") for member in list_members(str(path))] == [name.lstrip("/") for name in MEMBERS]
    for member in list_members(str(path)):
        name = f"{path}!/{member}"
        assert split_member(name) == (str(path), member)
        reading = read_path(name, SHAPE)
        assert reading.status == ("ok" if member.endswith("png") else "skipped"), reading
    assert read_path(f"{path}!/missing.png", SHAPE).code == "not_found"
    assert not (tmp_path.parent / "up.png").exists()


@pytest.mark.parametrize(("make", "ending"), [(zip_file, "zip"), (tar_file, "tar")])
def test_a_walk_meets_members_and_an_audit_has_a_row_for_each(make: object, ending: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    make(tmp_path / "in" / f"shard.{ending}", {"a.png": PNG, "b.txt": b"text"})  # type: ignore[operator]
    (tmp_path / "in" / "single.png").write_bytes(PNG)
    rows = list(audit_folder(str(tmp_path / "in"), KEY, model=NullModel(), inversion=NULL_INVERSION))
    found = {Path(row.path).name: (row.status, row.code) for row in rows}
    assert found == {
        "a.png": ("ok", rows[0].code),
        "b.txt": ("skipped", "not_an_image"),
        "single.png": ("ok", rows[2].code),
    }


def test_what_only_calls_itself_an_archive_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(PNG)
    (tmp_path / "y.tar").write_bytes(b"")
    zip_file(tmp_path / "z.docx", {"a.png": PNG})
    assert not any(is_archive(str(tmp_path / name)) for name in ("x.zip", "y.tar", "z.docx"))
    assert read_path(str(tmp_path / "x.zip"), SHAPE).status == "ok"
    assert read_path(str(tmp_path / "z.docx"), SHAPE).code == "container"


def test_a_damaged_archive_is_one_row_with_its_reason(tmp_path: Path) -> None:
    path = zip_file(tmp_path / "cut.zip", {"a.png": PNG * 50, "b.png": PNG})
    path.write_bytes(path.read_bytes()[:4000])
    assert list(list_inputs(Inputs((str(path),)), tmp_path)) == [Entry(str(path), code="archive_damaged")]
    with pytest.raises(ImageError, match="damaged"):
        read_member(str(path), "a.png")


def lengths(path: Path) -> list[tuple[int, str]]:
    """Return lengths at which a tar archive is cut, and what of its members "a.png" and "b.png" is whole then."""
    with tarfile.open(path) as archive:
        a, b = archive.getmember("a.png"), archive.getmember("b.png")
    ends = [member.offset_data + member.size for member in (a, b)]
    return [
        (a.offset_data + 100, ""),
        (ends[0], "a"),
        (b.offset_data - 512, "a"),
        (b.offset_data - 300, "a"),
        (ends[1] - 1, "a"),
        (ends[1], "ab"),
        (ends[1] + -ends[1] % 512, "ab"),
    ]


def test_whole_members_of_a_tar_that_was_cut_short_are_judged_and_one_row_says_so(tmp_path: Path) -> None:
    path = tar_file(tmp_path / "x.tar", {"a.png": PNG, "b.png": encoded(smooth(64, 64), "PNG")})
    data = path.read_bytes()
    for number, (length, whole) in enumerate(lengths(path)):
        cut = tmp_path / f"{number}.tar"
        cut.write_bytes(data[:length])
        found = list(list_inputs(Inputs((str(cut),)), tmp_path))
        members = [f"{cut}!/{name}.png" for name in whole]
        assert found == [*(Entry(name) for name in members), Entry(str(cut), code="archive_cut_short")], length
        assert all(read_path(name, SHAPE).status == "ok" for name in members)
        assert read_path(f"{cut}!/c.png", SHAPE).code == "archive_cut_short"
    rows = list(audit_folder(str(tmp_path / "4.tar"), KEY, model=NullModel(), inversion=NULL_INVERSION))
    assert [(row.status, row.code) for row in rows][1:] == [("error", "archive_cut_short")] and rows[0].status == "ok"
    assert "cut short" in rows[1].reason and "copy or download it again" in rows[1].reason


@pytest.mark.parametrize("ending", ["zip", "tar"])
def test_members_of_the_same_name_are_judged_each(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{ending}"
    contents = {"a.png": [1, 2, 3], "a.png#2": [4], "b.png": [5]}
    names = [name for name, seeds in contents.items() for _ in seeds]
    files = [encoded(smooth(30 + seed, 40), "PNG") for seeds in contents.values() for seed in seeds]
    if ending == "zip":
        with zipfile.ZipFile(path, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
            for name, data in zip(names, files, strict=True):
                archive.writestr(name, data)
    else:
        with tarfile.open(path, "w") as archive:
            for name, data in zip(names, files, strict=True):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    listed = list(list_members(str(path)))
    assert listed == ["a.png", "a.png#2", "a.png#3", "a.png#2#2", "b.png"]
    assert [read_member(str(path), name) for name in listed] == files


def test_an_archive_of_too_many_members_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "MOST_MEMBERS", 3)
    path = zip_file(tmp_path / "many.zip", {f"{i}.png": PNG for i in range(5)})
    assert list(list_inputs(Inputs((str(path),)), tmp_path))[-1] == Entry(str(path), code="archive_too_large")


def test_a_member_that_declares_less_than_it_holds_is_read_up_to_a_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.png", b"\x89PNG" + bytes(1 << 20))
    monkeypatch.setattr(containers, "MAX_BYTES", 1000)
    with pytest.raises(ImageError) as error:
        read_member(str(tmp_path / "bomb.zip"), "bomb.png")
    assert error.value.code == "too_large_file"


def images_table() -> pa.Table:
    """Return a table as Hugging Face's data sets store images, with one row empty."""
    values = [{"bytes": PNG, "path": "a.png"}, None, {"bytes": PNG, "path": None}]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.table({"label": [1, 2, 3], "image": pa.array(values, kind)})


@pytest.mark.parametrize("form", ["parquet", "arrow file", "arrow stream"])
def test_a_column_of_images_is_read_row_by_row(form: str, tmp_path: Path) -> None:
    path, table = tmp_path / "table", images_table()
    if form == "parquet":
        pq.write_table(table, path)
    else:
        make = pa.ipc.new_file if form == "arrow file" else pa.ipc.new_stream
        with pa.OSFile(str(path), "wb") as sink, make(sink, table.schema) as writer:
            writer.write_table(table)
    found = [entry.path for entry in list_inputs(Inputs(manifests=(str(path),)), tmp_path)]
    assert found == [f"{path}!/image/0", f"{path}!/image/2"]
    for name in reversed(found):  # backwards too
        assert read_path(name, SHAPE).status == "ok"
        assert (array(open_image(read_member(*split_member(name)))) == array(smooth())).all()  # type: ignore[misc]


# --- archives made to do harm -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", hostile_archives.TARS)
def test_a_tar_whose_headers_no_program_writes_is_refused_and_costs_nothing(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    hostile_archives.TARS[name](path)
    started = time.process_time()
    assert is_archive(str(path))
    with pytest.raises(ImageError) as caught:
        list(list_members(str(path)))
    assert caught.value.code == "archive_damaged"
    assert read_path(f"{path}!/a.png", SHAPE).code == "archive_damaged"
    assert time.process_time() - started < 5
    assert list(list_inputs(Inputs((str(tmp_path),)), tmp_path))[-1] == Entry(str(path), code="archive_damaged")


def test_a_tar_with_a_damaged_header_in_the_middle_lists_what_comes_before_and_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for name in ("a.png", "b.png", "c.png"):
            info = tarfile.TarInfo(name)
            info.size = 512
            archive.addfile(info, io.BytesIO(bytes(512)))
    data = bytearray(path.read_bytes())
    data[data.index(b"b.png")] ^= 1  # the header's sum is wrong now
    path.write_bytes(data)
    found = list(list_inputs(Inputs((str(path),)), tmp_path))
    assert [entry.path for entry in found] == [f"{path}!/a.png", str(path)]
    assert found[-1].code == "archive_damaged"


def test_headers_that_programs_do_write_are_read(tmp_path: Path) -> None:
    name = "folder/" * 40 + "\u00e9" * 50 + "1" * 200 + ".png"
    for style in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(tmp_path / "a.tar", "w", format=style) as archive:
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.uname = len(PNG), 1.5, "\u00e9" * 40
            archive.addfile(info, io.BytesIO(PNG))
        assert list(list_members(str(tmp_path / "a.tar"))) == [name]
        assert read_member(str(tmp_path / "a.tar"), name) == PNG


def test_members_that_share_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    hostile_archives.shared_zip(path, 1000)
    with pytest.raises(ImageError) as caught:
        list(list_members(str(path)))
    assert caught.value.code == "archive_damaged"


def test_a_list_that_names_members_of_a_refused_archive_is_refused_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.zip"
    hostile_archives.shared_zip(path, 1000)
    names = [f"{path}!/{member}" for member in ("0.png", "none.png")]
    (tmp_path / "list").write_text("\n".join(names))
    assert [entry.path for entry in list_inputs(Inputs(files_from=(str(tmp_path / "list"),)), tmp_path)] == names
    containers._opened_zip.cache_clear()
    assert [read_path(name, SHAPE).code for name in names] == ["archive_damaged"] * 2
    assert containers._opened_zip.cache_info().misses == 1  # its directory is read once, also to be refused
    monkeypatch.setattr(containers, "MOST_MEMBERS", 3)
    many = zip_file(tmp_path / "many.zip", {f"{i}.png": PNG for i in range(5)})
    assert read_path(f"{many}!/0.png", SHAPE).code == "archive_too_large"


def test_a_refused_tar_is_not_read_again_for_each_member_that_a_list_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tar_file(tmp_path / "many.tar", {f"{i}.png": PNG for i in range(5)})
    damaged = tmp_path / "damaged.tar"
    damaged.write_bytes(whole.read_bytes()[:-20000] + b"x" * 20000)
    monkeypatch.setattr(containers, "MOST_MEMBERS", 3)
    containers._tar_index.cache_clear()
    for path, code in ((whole, "archive_too_large"), (damaged, "archive_damaged")):
        assert {read_path(f"{path}!/{i}.png", SHAPE).code for i in range(5)} == {code}
    assert containers._tar_index.cache_info().misses == 2


def test_an_archives_directory_is_read_once_for_all_members(tmp_path: Path) -> None:
    path = str(zip_file(tmp_path / "a.zip", {f"{i}.png": PNG for i in range(5)}))
    containers._opened_zip.cache_clear()
    for member in list_members(path):
        assert read_member(path, member) == PNG
    assert containers._opened_zip.cache_info().misses == 1
    zip_file(tmp_path / "a.zip", {"0.png": PNG + b"0"})
    assert read_member(path, "0.png") == PNG + b"0"  # another file by that name


def test_memory_that_a_directory_takes_is_an_error_of_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(members: object) -> None:
        raise MemoryError

    path = str(zip_file(tmp_path / "a.zip", MEMBERS))
    monkeypatch.setattr(containers, "check_places", full)
    with pytest.raises(ImageError) as caught:
        list(list_members(path))
    assert caught.value.code == "archive_too_large"


def test_archives_within_archives_do_not_take_their_place(tmp_path: Path) -> None:
    inner = zip_file(tmp_path / "inner.zip", {"c.png": PNG}).read_bytes()
    within = tar_file(tmp_path / "x.tar", {"a.png": PNG, "inner.zip": inner})
    assert list(list_members(str(within))) == ["a.png", "inner.zip"]  # zipfile finds the directory at its end
    assert read_member(str(within), "a.png") == PNG
    outer = zip_file(tmp_path / "outer.zip", {"a.png": PNG, "inner.zip": inner})
    assert list(list_members(str(outer))) == ["a.png", "inner.zip"]
    outer.write_bytes(outer.read_bytes()[:-30])  # the last directory is that of inner.zip now
    assert list(list_inputs(Inputs((str(outer),)), tmp_path)) == [Entry(str(outer), code="archive_damaged")]
    assert read_path(f"{outer}!/c.png", SHAPE).code == "archive_damaged"
    (tmp_path / "self.zip").write_bytes(b"#!/bin/sh\n" * 20 + inner)  # one that unpacks itself
    assert list(list_members(str(tmp_path / "self.zip"))) == ["c.png"]
    assert read_member(str(tmp_path / "self.zip"), "c.png") == PNG
