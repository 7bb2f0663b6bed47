import gzip

import pytest

from suan_jax.data.sources.csv_form import check_form
from suan_jax.errors import UserError

_GOOD = ["1,2,3", '"1,""\n",2,3', ",,"]


def _file(folder, *rows: str):
    path = folder / "log.csv"
    path.write_bytes("\n".join(["a,b,c", *rows]).encode("latin-1"))
    return path


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("rows", [_GOOD[:1], _GOOD])
def test_sound_files_pass(tmp_path, end, pack, rows):
    (tmp_path / "log.csv").write_bytes(pack(b"\xef\xbb\xbf" + end.join(["a,b,c", *rows, ""]).encode()))
    check_form(tmp_path / "log.csv", 3)


def test_a_long_quoted_field_passes(tmp_path):
    check_form(_file(tmp_path, f'"{"x" * 200_000}",2,3'), 3)


@pytest.mark.parametrize("before", [[], _GOOD])
@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1,2", "row {} has 2 fields, expected 3"),
        ("1,2,3,4", "row {} has 4 fields, expected 3"),
        ("", "row {} has 0 fields, expected 3"),
        ("1,\xff,3", "row {} is not text in UTF-8"),
        ('"1,2,3', "row {} has a quote that is not closed"),
        ('1,5" wide,3', "row {} has a quote inside a field"),
    ],
)
def test_the_first_broken_row_is_named(tmp_path, before, row, message):
    with pytest.raises(UserError, match=message.format(len(before) + 1)) as raised:
        check_form(_file(tmp_path, *before, row, "1,2,3"), 3)
    assert "log.csv" in str(raised.value) and "\n" not in str(raised.value)


def test_a_file_in_another_encoding_is_refused_by_its_header(tmp_path):
    (tmp_path / "log.csv").write_bytes("a,b\n1,2\n".encode("utf-16"))
    with pytest.raises(UserError, match="its header is not text in UTF-8"):
        check_form(tmp_path / "log.csv", 2)
