import gzip

import pytest

from suan_jax.data.sources import amazon_electronics_x1, eleme, kuaivideo_x1, taobao_ad_x1
from suan_jax.data.sources.official_csv import integer, integer_check, label_check, open_official
from suan_jax.errors import UserError


def _open(path, content: bytes, header: bool = True):
    path.write_bytes(content)
    return open_official([path], ("a", "c"), "a log", header)


def test_spaces_in_the_header_windows_lines_and_repeated_headers(tmp_path):
    content = b"\xef\xbb\xbfa,b,c \r\n1,2,NULL\r\n4,5,\r\na,b,c \r\n6,7,8\r\n"
    table = _open(tmp_path / "x.csv", content)
    rows = table.scan(("a", "c")).select(integer("a"), integer("c")).collect()
    assert rows.rows() == [(1, None), (4, None), (6, 8)]
    table.check([integer_check("a"), integer_check("c", missing=True)])
    with pytest.raises(UserError, match=r"x.csv: column 'c', row 1 holds None, expected an integer"):
        table.check([integer_check("c")])


def test_rows_are_numbered_as_in_the_file(tmp_path):
    table = _open(tmp_path / "x.csv", b"a,c\n1,0\na,c\n2,1\n3,5\n")
    with pytest.raises(UserError, match=r"column 'c', row 4 holds '5', expected a label, 0 or 1"):
        table.check([label_check("c")])


def test_a_file_without_a_header_is_read_by_position(tmp_path):
    table = _open(tmp_path / "x.csv", b"1,2\n3,4.0\n", header=False)
    assert table.scan(("c",)).select(integer("c")).collect()["c"].to_list() == [2, 4]
    with pytest.raises(UserError, match="row 1 has 1 fields, expected 2"):
        _open(tmp_path / "y.csv", b"1\n3,4\n", header=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b,c\n1,2,3\n4,5\n", "row 2 has 2 fields, expected 3: the line is broken"),
        (b"a,b,c\n" + b"1,2,3\n" * 5001 + b"1,2,3,4\n", "row 5002 has 4 fields, expected 3"),
        (b"a,b,c\n1,2,3\n\n4,5,6\n", "row 2 has 1 fields, expected 3"),
        (b"a,b\n1,2\n", "column 'c' is missing, expected the columns of a log: a, c"),
        (b"a,b,c\n", "is empty, expected at least one row"),
    ],
)
def test_the_form_of_every_line_is_checked(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        _open(tmp_path / "x.csv", content)


def test_a_quote_joins_no_lines(tmp_path):
    table = _open(tmp_path / "x.csv", b'a,c\n"1,2\n3",4\n5,6\n')
    assert table.scan(("a", "c")).collect()["a"].to_list() == ['"1', '3"', "5"]


@pytest.mark.parametrize(
    ("content", "header", "message"),
    [
        (b"a,\xff\n1,2\n", True, "its header is not text in UTF-8"),
        (b"a,c\n1,2\n3,\xff\n", True, "row 2 is not text in UTF-8"),
        (b"1,2\n3,\xff\n", False, "row 2 is not text in UTF-8"),
        (gzip.compress(b"1,2\n", mtime=0)[:-12], False, "cannot be read"),
    ],
)
def test_what_is_no_text_is_named(tmp_path, content, header, message):
    with pytest.raises(UserError, match=f"x.csv:? {message}"):
        _open(tmp_path / "x.csv", content, header)


def test_files_of_one_table_have_one_header(tmp_path):
    (tmp_path / "1.csv").write_text("a,c\n1,2\n")
    (tmp_path / "2.csv").write_text("c,a\n1,2\n")
    with pytest.raises(UserError, match=r"2.csv: its header is not that of .*1.csv, expected a, c"):
        open_official([tmp_path / "1.csv", tmp_path / "2.csv"], ("a", "c"), "a log")


@pytest.mark.parametrize("source", [amazon_electronics_x1, eleme, kuaivideo_x1, taobao_ad_x1])
def test_a_source_names_its_columns_in_order(source):
    assert f": {', '.join(source.COLUMNS)}." in " ".join(source.__doc__.split())
