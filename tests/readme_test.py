import ast
import inspect
import re
import shlex
from pathlib import Path

import pytest

from suan_jax import config_file
from suan_jax.config import Config, ModelConfig
from suan_jax.config_check import leaves
from suan_jax.data.prepare_store import prepare_store
from suan_jax.distillation import DistillConfig
from suan_jax.models import registered
from suan_jax.studies import CompareConfig, SweepConfig
from tests.readme import PAGES, RESULTS, ROOT, TEXT, block, blocks

_COMMANDS = [line for text in blocks("sh") for line in text.splitlines() if "launch/" in line]
_FLOORS = {
    "data": 1,
    "layers": 1,
    "scaling": 1,
    "cluster": 1,
    "evaluation": 2,
    "models": 2,
    "training": 4,
    "serving": 5,
    "benchmark": 6,
    "distillation": 5,
    "studies": 6,
}
_FLOORS |= {"config_dict": 3, "config_file": 3}  # they know the models by name


def test_the_results_page_shows_figures_that_exist():
    links = re.findall(r"\]\(([^)#]*)\)", RESULTS.read_text())
    assert len(links) > 3
    assert [link for link in links if not (RESULTS.parent / link).is_file()] == []


@pytest.mark.smoke
def test_named_paths_exist():
    paths = set(re.findall(r"\b(?:suan_jax|configs|launch|tests)/[\w./-]*\w", PAGES))
    paths |= set(re.findall(r"\]\(([^)#:]*)\)", TEXT))
    # Capitals, as in configs/MODEL.py, stand for several.
    paths = {path for path in paths if not re.search(r"/[A-Z]+\b", path)}
    paths |= set(re.findall(r"`([A-Z]+(?:\.\w+)?)`", TEXT)) - {"SIGTERM"}
    assert {"suan_jax/config.py", "LICENSE", "CITATION.cff"} <= paths
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


@pytest.mark.smoke
def test_named_fields_exist():
    configs = [Config(model=kind()) for kind in registered().values()] + [CompareConfig(model=ModelConfig())]
    known = {name for config in configs for name, _, _ in leaves(config)}
    named = {name for name in re.findall(r"--config\.([A-Za-z_.]+)", PAGES) if name.islower()}
    assert len(named) > 15
    assert sorted(named - known) == []


@pytest.mark.smoke
def test_python_blocks_compile():
    for text in blocks("python"):
        compile(text, "README.md", "exec")


def test_links_within_the_page_have_their_heading():
    headings = re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    links = re.findall(r"\]\(#([^)]*)\)", TEXT)
    assert links
    assert sorted(set(links) - anchors) == []


@pytest.mark.parametrize("launch", re.findall(r"^\| `python (launch/\w+\.py [^`]*)`", TEXT, re.MULTILINE))
def test_the_table_of_commands_names_every_flag(launch):
    path, _, flags = launch.partition(" ")
    source = (ROOT / path).read_text()
    known = set(re.findall(r'DEFINE_\w+\(\s*"(\w+)"', source))
    if "define_config" in source:
        known.add("config")
    if "processes.define_flags" in source:
        known |= {"distributed", "coordinator", "processes", "process"}
    assert set(re.findall(r"--(\w+)", flags)) == known


@pytest.mark.parametrize("command", _COMMANDS)
def test_commands_are_well_formed(command, tmp_path, monkeypatch):
    arguments = shlex.split(command[command.index("launch/") :])
    source = (ROOT / arguments[0]).read_text()
    for shared in ("processes", "cluster/actions"):
        if f"{Path(shared).stem}.define_flags" in source:
            source += (ROOT / "suan_jax" / f"{shared}.py").read_text()
    flags = [argument for argument in arguments[1:] if argument.startswith("--config")]
    for argument in arguments[1:]:
        assert argument in flags or f'"{argument[2:].partition("=")[0]}"' in source
    if flags:
        (tmp_path / "mean_pool.py").write_text(block("python", "class MeanPool"))
        (tmp_path / "configs").symlink_to(ROOT / "configs")
        monkeypatch.chdir(tmp_path)
        kinds = (CompareConfig, SweepConfig, DistillConfig)
        kind = next((kind for kind in kinds if kind.__name__ in source), Config)
        config_file.load_config(flags, kind)


def test_the_table_of_configs_names_their_arguments():
    lines = re.findall(r"^\| (`configs/[^|]*) \| ([\w, ]*)\|", TEXT, re.MULTILINE)
    rows = [(path, names) for paths, names in lines for path in re.findall(r"`(.*?)`", paths)]
    assert {path for path, _ in rows} == {f"configs/{path.name}" for path in (ROOT / "configs").glob("*.py")}
    for path, names in rows:
        get_config = config_file._get_config(ROOT / path)
        assert list(inspect.signature(get_config).parameters) == re.findall(r"\w+", names)


def test_the_log_is_prepared_and_the_api_trains_on_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_log").mkdir()
    (tmp_path / "my_log" / "impressions.csv").write_text(block("csv", "ann"))
    (tmp_path / "my_spec.py").write_text(block("python", "get_spec"))
    summary = prepare_store("logs", "my_log", "stores/my_log", "my_spec.py")
    assert (summary.users, summary.impressions) == (3, 16)
    names = {}
    exec(compile(block("python", "import suan_jax\n"), "README.md", "exec"), names)
    assert names["logits_BxM"].shape == (8, 1)
    assert set(names["variables"]) == {"params", "tables", "batch_stats", "constants"}
    assert names["summary"]["steps"] == 20
    assert (tmp_path / "runs" / "notebook" / "summary.json").exists()


def test_the_picture_of_the_floors_is_true():
    for path in sorted((ROOT / "suan_jax").rglob("*.py")):
        name = path.relative_to(ROOT / "suan_jax").parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            parts = (node.module or "").split(".") if isinstance(node, ast.ImportFrom) else []
            below = parts[1] if parts[:1] == ["suan_jax"] and len(parts) > 1 else name
            # Single files, but for those above, are the lowest floor.
            if {name, below} != {"config_dict", "config_file"} and _FLOORS.get(below) and below != name:
                assert _FLOORS[below] < _FLOORS.get(name, 0), f"{path} imports {node.module}"
