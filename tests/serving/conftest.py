from tests.training.conftest import _compile_once  # noqa: F401
