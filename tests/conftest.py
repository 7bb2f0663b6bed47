import pathlib

import pytest

_TESTS = pathlib.Path(__file__).parent


def pytest_collection_modifyitems(items):
    """Tests that share what is expensive to make run in one process: those of a folder, or of a model."""
    for item in items:
        folder = item.path.parent.relative_to(_TESTS).parts
        case = getattr(item, "callspec", None) and item.callspec.params.get("case")
        group = f"{item.path.stem}-{case}" if case else "-".join(folder) or item.path.stem
        item.add_marker(pytest.mark.xdist_group(group))
