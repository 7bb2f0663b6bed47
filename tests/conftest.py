import gc
import pathlib
import sys

import jax
import pytest

from tests.compiling import compile_once, compile_quickly

compile_quickly()
compile_once()

_TESTS = pathlib.Path(__file__).parent


@pytest.hookimpl(tryfirst=True)  # before xdist 3.8 reads the marks, which it does in vain from pytest 9.2 on
def pytest_collection_modifyitems(items):
    """Tests that share what is expensive to make run in one process: those of a folder, or of a model."""
    for item in items:
        folder = item.path.parent.relative_to(_TESTS).parts
        case = getattr(item, "callspec", None) and item.callspec.params.get("case")
        group = f"{item.path.stem}-{case}" if case else "-".join(folder) or item.path.stem
        item.add_marker(pytest.mark.xdist_group(group))


def pytest_collection_finish():
    """What was imported stays: looking for garbage in it is a tenth of the time that tracing takes."""
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _programs_are_forgotten():
    """What all modules compile takes five gigabytes."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="module")
def own_models():
    """What config files register while a module is tested is forgotten afterwards."""
    from suan_jax.models import model  # which many tests do without

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path])
        patch.setattr(model, "_REGISTRY", dict(model._REGISTRY))
        yield
