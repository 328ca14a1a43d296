from __future__ import annotations

import io
import os
import stat
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from treering_verify.audit.inputs import manifests as lists
from treering_verify.audit.inputs import sources, urls
from treering_verify.audit.inputs.sources import Entry, Inputs, list_inputs
from treering_verify.errors import UsageError
from treering_verify.media.containers import read_member
from treering_verify.media.conversion import encode_png


def found(tmp_path: Path, *paths: object, excluded: Path | None = None, **more: object) -> list[str]:
    scratch = tmp_path.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    inputs = Inputs(tuple(map(str, paths)), **more)  # type: ignore[arg-type]
    return [entry.path for entry in list_inputs(inputs, scratch, excluded)]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b/2.png", "b/10.png", "a.png", "b/c/x.png", "z", "B.png"):
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).touch()
    return tmp_path / "tree"


def test_a_walk_is_deep_first_and_in_the_order_of_bytes(tree: Path, tmp_path: Path) -> None:
    names = [os.path.relpath(path, tree) for path in found(tmp_path, tree)]
    assert names == ["B.png", "a.png", "b/10.png", "b/2.png", "b/c/x.png", "z"]


def test_a_large_folder_is_sorted_in_runs(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(23):
        (tree / "b" / f"{i * 7919 % 23:02d}").touch()
    whole = found(tmp_path, tree)
    monkeypatch.setattr(sources, "_RUN", 3)
    assert found(tmp_path, tree) == whole


def test_a_folder_of_frames_is_one_input_at_its_first_frame_and_the_rest_as_ever(tree: Path, tmp_path: Path) -> None:
    still = encode_png(Image.new("RGB", (8, 8)))
    for style in ("PNG", "WEBP", "GIF"):
        moving = io.BytesIO()
        parts = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
        parts[0].save(moving, format=style, save_all=True, append_images=parts[1:])
        (tree / "b" / f"0 moves.{style.lower()}").write_bytes(moving.getvalue())
    for name in ("b/2.png", "b/10.png", "b/c/x.png", "b/c/y"):
        (tree / name).write_bytes(still)
    (tree / "b" / "link.png").symlink_to("2.png")
    os.mkfifo(tree / "b" / "fifo")

    def framed(*paths: Path) -> list[str]:
        inputs = Inputs(tuple(map(str, paths)))
        return [entry.path for entry in list_inputs(inputs, tmp_path, framed=True)]

    names = ["0 moves.gif", "0 moves.png", "0 moves.webp", "", "c", "fifo", "link.png"]
    inside = [str(tree / "b" / name) for name in names]
    assert framed(tree / "b") == inside
    assert framed(tree) == [str(tree / "B.png"), str(tree / "a.png"), *inside, str(tree / "z")], "empty files are none"
    assert framed(tree / "b" / "2.png", tree / "b" / "c", tree)[:2] == [
        str(tree / "b" / "2.png"),
        str(tree / "b" / "c"),
    ]
    assert framed(tree / "b" / "c", tree).count(str(tree / "b" / "c")) == 1
    (tree.parent / "named").symlink_to(tree / "b" / "c")
    (linked,) = framed(tree.parent / "named")
    assert os.path.isdir(linked) and not stat.S_ISLNK(os.lstat(linked).st_mode), "followed, as it was named"
    assert len(found(tmp_path, tree / "b")) == 9, "images are inputs of their own where no videos are audited"


def test_links_are_named_but_never_followed(tree: Path, tmp_path: Path) -> None:
    (tree / "loop").symlink_to(tree)
    (tree / "file").symlink_to(tree / "a.png")
    (tree / "dangling").symlink_to("nowhere")
    inside = found(tmp_path, tree)
    assert len(inside) == len(set(inside)) == 9 and {str(tree / n) for n in ("loop", "file", "dangling")} <= set(inside)
    assert found(tmp_path, tree / "loop") == [
        path.replace("/tree/", "/tree/loop/") for path in inside
    ]  # named by the user


def test_every_input_comes_once_at_its_first_place(tree: Path, tmp_path: Path) -> None:
    whole = found(tmp_path, tree)
    first = str(tree / "b" / "2.png")
    again = found(tmp_path, first, tree, tree / "b", f"{tree}/./z", tree / "b" / "c" / ".." / "2.png")
    assert again[0] == first and sorted(again[:-1]) == sorted(whole)
    assert again[-1].endswith("c/../2.png")  # may be another file, where c is a link: not taken for the same


def test_globs_are_matched_in_order_unless_a_file_has_that_very_name(tree: Path, tmp_path: Path) -> None:
    assert found(tmp_path, tree / "**" / "*.png") == sorted(
        path for path in found(tmp_path, tree) if path.endswith("png")
    )
    assert found(tmp_path, tree / "*.gif") == [str(tree / "*.gif")]  # gets a row: not found
    (tree / "[a].png").touch()
    assert found(tmp_path, tree / "[a].png") == [str(tree / "[a].png")]


def test_lists_end_entries_with_lines_or_nul(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines, nul = tmp_path / "lines", tmp_path / "nul"
    lines.write_bytes(b"a b.png\r\n\n\xff.png\nhttps://x.org/1.png\nlast")
    nul.write_bytes(b"two\nlines\0\0 x\r\0last")
    scratch = tmp_path
    named = list(list_inputs(Inputs(files_from=(str(lines),)), scratch))
    assert named == [Entry("a b.png"), Entry("\udcff.png"), Entry("https://x.org/1.png", True), Entry("last")]
    assert found(tmp_path, files_from=(str(nul),), null=True) == ["two\nlines", " x\r", "last"]


def test_a_list_longer_than_a_block_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "_BLOCK", 5)
    names = [f"file {i}" for i in range(50)]
    (tmp_path / "list").write_text("\n".join(names) + "\n")
    assert found(tmp_path, files_from=(str(tmp_path / "list"),)) == names


def test_manifests_are_parquet_or_csv_by_content(tmp_path: Path) -> None:
    table, text = tmp_path / "table.csv", tmp_path / "text.parquet"  # named after the other kind
    pyarrow.parquet.write_table(pa.table({"n": [1, 2, 3], "url": ["s3://b/1", None, "x.png"]}), table)
    text.write_bytes(b'\xef\xbb\xbfpath,n\n"a,\n b.png",1\n,2\n\xfe.png,3\n')
    assert found(tmp_path, manifests=(str(table), str(text))) == ["s3://b/1", "x.png", "a,\n b.png", "\udcfe.png"]
    with pytest.raises(UsageError, match="'n' holds int64"):
        found(tmp_path, manifests=(str(table),), column="n")


def test_a_manifest_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    text = tmp_path / "m.csv"
    text.write_text("x,y\n1,2\n")
    with pytest.raises(UsageError, match="--column one of x, y"):
        found(tmp_path, manifests=(str(text),))
    with pytest.raises(UsageError, match="no column 'z'"):
        found(tmp_path, manifests=(str(text),), column="z")
    (tmp_path / "m.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(UsageError, match="cannot be"):
        found(tmp_path, manifests=(str(tmp_path / "m.parquet"),))
    with pytest.raises(UsageError, match="cannot read the list"):
        found(tmp_path, files_from=(str(tmp_path / "none"),))


def test_urls_are_told_from_paths(tmp_path: Path) -> None:
    assert [urls.is_url(t) for t in ("s3://b/k", "zip://a::https://x/y.zip", "./s3://b", "a:b", "C:\\x")] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert list(list_inputs(Inputs(("file:///images/a%20b.png",)), tmp_path)) == [Entry("/images/a b.png")]


def test_a_folder_that_cannot_be_listed_is_an_entry_with_a_code(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.scandir

    def refusing(path: str) -> object:
        if path == str(tree / "b"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", refusing)
    listed = list(list_inputs(Inputs((str(tree),)), tmp_path))
    assert Entry(str(tree / "b"), code="folder_not_readable") in listed and len(listed) == 4


def test_the_output_inside_the_folder_is_not_walked(tree: Path, tmp_path: Path) -> None:
    assert found(tmp_path, tree, excluded=tree / "b") == [str(tree / n) for n in ("B.png", "a.png", "z")]


def test_deep_folders_do_not_exhaust_the_stack(tmp_path: Path) -> None:
    deep = tmp_path / "deep"
    deep.mkdir()
    here = os.getcwd()
    try:
        os.chdir(deep)
        for _ in range(400):
            os.mkdir("d")
            os.chdir("d")
        Path("x").touch()
    finally:
        os.chdir(here)
    assert [path.count("/d") for path in found(tmp_path, deep)] == [401]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lists_that_editors_write_are_read_as_they_are_meant(encoding: str, end: str, tmp_path: Path) -> None:
    mark = "\ufeff" if encoding.endswith(("le", "be")) else ""
    (tmp_path / "list.txt").write_bytes((mark + end.join(["a b.png", "", "ü.png", "c.png"])).encode(encoding))
    assert found(tmp_path, files_from=(str(tmp_path / "list.txt"),)) == ["a b.png", "ü.png", "c.png"]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_told_by_its_zero_bytes(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes("a b.png\r\nc.png\r\n".encode(encoding))
    assert found(tmp_path, files_from=(str(tmp_path / "list.txt"),)) == ["a b.png", "c.png"]
    (tmp_path / "m.csv").write_bytes("id;path\r\n1;a.png\r\n".encode(encoding))
    assert found(tmp_path, manifests=(str(tmp_path / "m.csv"),)) == ["a.png"]
    (tmp_path / "m.jsonl").write_bytes('{"path": "a.png"}\r\n'.encode(encoding))
    assert found(tmp_path, manifests=(str(tmp_path / "m.jsonl"),)) == ["a.png"]


def test_zero_bytes_in_a_list_of_lines_name_the_option(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"a long name.png\0another.png\0")
    with pytest.raises(UsageError, match="--null"):
        found(tmp_path, files_from=(str(tmp_path / "list.txt"),))


def test_quotes_around_an_entry_go_unless_a_file_has_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / '"b.png"').touch()
    (tmp_path / "list.txt").write_text('"a b.png"\n"b.png"\n"say ""x"".png"\n"\n')
    assert found(tmp_path, files_from=("list.txt",)) == ["a b.png", '"b.png"', 'say "x".png', '"']


def test_entries_are_what_people_mean_by_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (" spaced.png", "'own'.png", "own\\name.png", "sub/c d.png"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    given = [
        "  a.png\t",
        "'b c.png'",
        " spaced.png",
        "sub\\c d.png",
        "own\\name.png",
        "no\\file.png",
        "'it''s.png'",
        "  '",
    ]
    meant = ["a.png", "b c.png", " spaced.png", "sub/c d.png", "own\\name.png", "no\\file.png", "it's.png", "'"]
    Path("list.txt").write_text("\n".join(given))
    assert found(tmp_path, files_from=("list.txt",)) == meant
    Path("m.csv").write_text("id; path\n" + "\n".join(f"1; {name}" for name in given if "spaced" not in name))
    assert found(tmp_path, manifests=("m.csv",)) == [name for name in meant if "spaced" not in name]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_carriage_returns_end_lines_where_no_line_feed_does(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes("a b.png\rc.png\r".encode(encoding))
    assert found(tmp_path, files_from=(str(tmp_path / "list.txt"),)) == ["a b.png", "c.png"]
    (tmp_path / "m.csv").write_bytes("id;path\r1;a b.png\r2;c.png".encode(encoding))
    assert found(tmp_path, manifests=(str(tmp_path / "m.csv"),)) == ["a b.png", "c.png"]


def test_one_path_may_stand_for_a_tuple_of_one(tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("a.png\n")
    for inputs in (Inputs(files_from=listed), Inputs(files_from=str(listed)), Inputs(manifests=[listed])):  # type: ignore[arg-type]
        assert inputs.files_from + inputs.manifests == (str(listed),)
    assert [entry.path for entry in list_inputs(Inputs(str(listed)), tmp_path)] == [str(listed)]  # type: ignore[arg-type]


def test_a_list_that_is_given_as_a_table_loses_no_entry(tmp_path: Path) -> None:
    for text in ("a.png\nb.png\n", "https://example.org/a\nhttps://example.org/b\n", '"a.png"\n"b.png"\n'):
        (tmp_path / "m.csv").write_text(text)
        with pytest.raises(UsageError, match="--files-from"):
            found(tmp_path, manifests=(str(tmp_path / "m.csv"),))


def test_the_line_in_which_a_spreadsheet_names_the_delimiter_is_no_header(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes(b"\xef\xbb\xbfsep=;\r\nid;path\r\n1;a,b.png\r\n")
    assert found(tmp_path, manifests=(str(tmp_path / "m.csv"),)) == ["a,b.png"]


@pytest.mark.parametrize(("text", "message"), [('[{"path": "a.png"}]', "JSON array"), ("", "no columns")])
def test_other_tables_are_refused_by_what_they_are(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "m").write_text(text)
    with pytest.raises(UsageError, match=message):
        found(tmp_path, manifests=(str(tmp_path / "m"),))


def test_images_that_a_data_set_names_and_does_not_hold_are_paths(tmp_path: Path) -> None:
    rows = [
        {"bytes": None, "path": "a.png"},
        {"bytes": b"\x89PNG", "path": "b.png"},
        {"bytes": None, "path": None},
        None,
    ]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pa.parquet.write_table(pa.table({"image": pa.array(rows, kind)}), tmp_path / "m.parquet")
    assert found(tmp_path, manifests=(str(tmp_path / "m.parquet"),))[:2] == [
        "a.png",
        f"{tmp_path / 'm.parquet'}!/image/1",
    ]


def test_a_list_that_is_not_encoded_as_it_says_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbfa\n\xff\xfe\xfd\n")
    with pytest.raises(UsageError, match="save it as UTF-8"):
        found(tmp_path, files_from=(str(tmp_path / "list.txt"),))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_csv_files_of_any_office_are_read(delimiter: str, encoding: str, tmp_path: Path) -> None:
    rows = [["id", "path", "note"], ["1", "a;b,c.png" if delimiter == "\t" else "a.png", "x"], ["2", '"q".png', ""]]
    text = "\r\n".join(delimiter.join(f'"{cell.replace(chr(34), chr(34) * 2)}"' for cell in row) for row in rows)
    (tmp_path / "m.csv").write_bytes(text.encode(encoding))
    assert found(tmp_path, manifests=(str(tmp_path / "m.csv"),)) == [rows[1][1], '"q".png']


def test_lines_of_json_that_name_the_path_in_different_ways_are_all_read(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text(
        '{"path": "a.png"}\n{"file_name": "b.png"}\n{"text": "none"}\n{"path": "c.png"}\n'
    )
    assert found(tmp_path, manifests=(str(tmp_path / "m.jsonl"),)) == ["a.png", "b.png", "c.png"]


def test_json_lines_are_a_manifest(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"path": "a.png", "n": 1}\n\n{"n": 2}\n{"path": null}\n{"path": "b.png"}\n')
    assert found(tmp_path, manifests=(str(path),)) == ["a.png", "b.png"]
    for text, message in (
        ('{"path": 3}', "'path' is int"),
        ('{"path": "a"}\n[1]', "line 2"),
        ('{"path": "a', "not JSON"),
    ):
        path.write_text(text)
        with pytest.raises(UsageError, match=message):
            found(tmp_path, manifests=(str(path),))


def test_a_column_of_another_type_is_refused_by_name_and_type(tmp_path: Path) -> None:
    pa.parquet.write_table(pa.table({"path": [1, 2]}), tmp_path / "m.parquet")
    with pytest.raises(UsageError, match="'path' holds int64, and not paths, URLs or images"):
        found(tmp_path, manifests=(str(tmp_path / "m.parquet"),))


def test_bytes_never_become_a_path(tmp_path: Path) -> None:
    pa.parquet.write_table(pa.table({"path": [b"\x89PNG", b"abc"]}), tmp_path / "m.parquet")
    assert found(tmp_path, manifests=(str(tmp_path / "m.parquet"),)) == [
        f"{tmp_path / 'm.parquet'}!/path/{row}" for row in (0, 1)
    ]


@pytest.mark.parametrize(
    "text",
    [
        "Label,Path\n1,a.png\n",
        "id,file_name\n1,a.png\n",
        "id, path\n1, a.png\n",
        "\n\nid,path\n1,a.png\n",
        "id,image_url,image_path\n1,https://example.org/a,a.png\n",
    ],
)
def test_columns_that_people_name_in_other_ways_are_found(text: str, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(text)
    assert found(tmp_path, manifests=(str(tmp_path / "m.csv"),)) == ["a.png"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png,1\nb.png,2\n", "write a first line that names the columns"),
        ('{\n "path": "a.png"\n}\n', "jq -c . writes it so"),
    ],
)
def test_tables_of_another_form_say_how_to_write_them(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "m").write_text(text)
    with pytest.raises(UsageError, match=message):
        found(tmp_path, manifests=(str(tmp_path / "m"),))


def test_json_lines_that_are_given_as_a_list_are_refused(tmp_path: Path) -> None:
    (tmp_path / "l").write_text('{"path": "a.png"}\n{"path": "b.png"}\n')
    with pytest.raises(UsageError, match="give JSON Lines as --manifest"):
        lists.check_list(str(tmp_path / "l"), b"\n")


def test_columns_in_arrows_layout_of_views_are_read(tmp_path: Path) -> None:
    kind = pa.struct([("bytes", pa.binary_view()), ("path", pa.string_view())])
    columns = {
        "path": pa.array(["a.png", None], pa.string_view()),
        "image": pa.array([{"bytes": b"\x89PNG", "path": None}, {"bytes": None, "path": "b.png"}], kind),
        "data": pa.array([b"\x89PNG", None], pa.binary_view()),
    }
    table = pa.table(columns)
    pa.parquet.write_table(table, tmp_path / "m.parquet")
    with pa.OSFile(str(tmp_path / "m.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    for name in (str(tmp_path / "m.parquet"), str(tmp_path / "m.arrow")):
        listed = {column: found(tmp_path, manifests=(name,), column=column) for column in columns}
        assert listed == {"path": ["a.png"], "image": [f"{name}!/image/0", "b.png"], "data": [f"{name}!/data/0"]}
        assert read_member(name, "image/0") == read_member(name, "data/0") == b"\x89PNG"
