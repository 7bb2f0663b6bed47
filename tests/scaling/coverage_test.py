import pytest

from tests.scaling.coverage import NOISES, coverage


@pytest.mark.parametrize("kind", NOISES)
def test_quoted_intervals_hold_what_was_planted(kind):
    shares = coverage(kind, 30)
    for name, share in shares.items():  # 95 % expected, with a standard deviation of 4 %
        if not name.startswith("bootstrap"):  # which is not quoted for so few sizes
            assert share > 0.8, (name, share)
    assert min(shares.values()) < 1
