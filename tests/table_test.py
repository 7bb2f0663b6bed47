import io

import pytest
import rich.console

from suan_jax.table import print_table


def _print(terminal: bool, *args) -> str:
    console = rich.console.Console(file=io.StringIO(), force_terminal=terminal, width=60)
    print_table(*args, console=console)
    return console.file.getvalue()


def test_plain_text_is_aligned_and_never_wrapped():
    text = _print(False, "Models", ["model", "auc"], [["suan", 0.71234567], ["d" * 80, None]])
    title, *lines = text.splitlines()
    assert title == "Models"
    assert [line.split() for line in lines] == [["model", "auc"], ["suan", "0.712346"], ["d" * 80, "-"]]
    assert len({len(line) for line in lines}) == 1


def test_a_terminal_gets_a_drawn_table_with_the_text_as_it_is():
    text = _print(True, "Models", ["model", "auc"], [["[bold]", 0.5]])
    assert "Models" in text
    assert "[bold]" in text
    assert "│" in text


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="1 values for 2 columns"):
        _print(False, "t", ["a", "b"], [["x"]])


def test_a_table_wider_than_the_terminal_keeps_its_digits():
    text = _print(True, "Models", ["model", "a long heading"] * 3, [["suan", 0.71234567] * 3])
    assert "…" not in text and "│" not in text
    assert text.splitlines()[-1].split() == ["suan", "0.712346"] * 3
