import subprocess
import sys

import pytest

import suan_jax


@pytest.mark.smoke
def test_parts_are_imported_when_first_used():
    code = (
        "import sys, suan_jax; before = set(sys.modules); "
        "assert not before & {'jax', 'numpy', 'polars'}, before; "
        "suan_jax.data.open_store, suan_jax.models.build; assert 'jax' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_is_not_there_is_an_attribute_error():
    assert not hasattr(suan_jax, "__wrapped__")
    with pytest.raises(AttributeError, match="'suan_jax' has no attribute 'modles'"):
        _ = suan_jax.modles


def test_a_part_that_lacks_a_package_says_which(tmp_path, monkeypatch):
    (tmp_path / "broken_part.py").write_text("import no_such_package")
    monkeypatch.setattr(suan_jax, "__path__", [str(tmp_path)])
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        _ = suan_jax.broken_part
