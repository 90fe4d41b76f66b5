"""The rules on imports: quick to load, one way from the public functions down to the core, the core on its own."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

SRC = Path(__file__).parents[2] / "src"
FILES = sorted(SRC.rglob("*.py"))

# Each room may import from its own layer and from those before it. A new room takes its place here.
LAYERS = [
    {"errors", "_logging"},
    {"_arguments", "_files", "_section", "names"},
    {"params"},
    {"core", "metrics"},
    {"methods"},
    {"device"},
    {"_sdata"},
    {"run"},
    {"pp", "tl", "pl", "io", "datasets"},
    {"_demo", "report"},
    {"cli"},
]
RANK = {room: rank for rank, rooms in enumerate(LAYERS) for room in rooms}
HEAVY = [
    "anndata",
    "cellpose",
    "dask",
    "distributed",
    "geopandas",
    "matplotlib",
    "numba",
    "pandas",
    "pyarrow",
    "safetensors",
    "scanpy",
    "scipy",
    "skimage",
    "spatialdata",
    "spatialdata_io",
    "squidpy",
    "torch",
    "tqdm",
    "xarray",
    "zarr",
]
CORE_MAY_IMPORT = {"numba", "numpy", "scipy", "skimage", "torch"}
CORE_MUST_NOT_NEED = {
    *(
        "anndata",
        "cellpose",
        "csbdeep",
        "dask",
        "deepcell",
        "geopandas",
        "matplotlib",
        "pandas",
        "safetensors",
        "scanpy",
        "spatialdata",
    ),
    *("squidpy", "tqdm", "typer", "xarray", "zarr"),
}


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(file): file for file in FILES}
ARRAYS_ONLY = [name for name in MODULES if name.split(".")[1:2] in (["core"], ["methods"])]
FOLDERS = {path.name for path in (SRC / "sslcst" / "methods").iterdir() if path.is_dir()}
BESIDE = {
    "sslcst.core.nuclei.sslcst": {"safetensors"},
    "sslcst.core.nuclei.stardist": {"csbdeep"},
    "sslcst.methods.network.load": {"safetensors"},
    "sslcst.methods.ssl_cst.model": {"safetensors"},
}


def imported(file: Path) -> Iterator[str]:
    """Full name of all that a file imports when it runs, wherever in it: ``from a import b`` gives ``a.b``."""
    package = module_name(file).split(".") if file.stem == "__init__" else module_name(file).split(".")[:-1]
    nodes = [ast.parse(file.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        nodes.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def third_party(file: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(file)} - set(sys.stdlib_module_names) - {"sslcst"}


def run_python(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize(
    "code",
    [
        "import sslcst; dir(sslcst); sslcst.__version__",
        "from sslcst.cli import app; app(['--help'], standalone_mode=False)",
        "from sslcst.cli import app; app(['segment', '--help'], standalone_mode=False)",
        "from sslcst.cli import app; app(['--version'], standalone_mode=False)",
    ],
)
def test_start_is_light(code: str) -> None:
    """`import sslcst` and the help answer at once, because nothing heavy is loaded."""
    loaded = run_python(f"import sys; {code}; print('LOADED', *sys.modules)").split("LOADED")[1].split()
    assert not set(HEAVY) & set(loaded)
    assert "sslcst.cli" in loaded or "numpy" not in loaded


def test_subpackages_load_on_use() -> None:
    """Each name in `sslcst.__all__` is a subpackage that attribute access loads."""
    run_python(
        "import sslcst; assert all(getattr(sslcst, name).__name__ == f'sslcst.{name}' for name in sslcst.__all__)"
    )


@pytest.mark.parametrize("name", ["errors.SslcstError", "params.Params.of({})"])
def test_what_the_pages_write_works_first_of_all(name: str) -> None:
    """`import sslcst; sslcst.params.Params.of(params)`: nothing was called before that had loaded the module."""
    run_python(f"import sslcst; sslcst.{name}")


def test_unknown_attribute_is_an_attribute_error() -> None:
    import sslcst

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sslcst.nothing


@pytest.mark.parametrize("module", [name for name in MODULES if name != "sslcst"])
def test_imports_run_one_way(module: str) -> None:
    """`cli -> pp tl pl io -> run -> _sdata -> methods -> core -> params -> errors`, and never back."""
    own = {name for name in imported(MODULES[module]) if name.startswith("sslcst.")}
    targets = {name for name in own if name in MODULES or name.rpartition(".")[0] in MODULES} - {"sslcst.__version__"}
    room = module.split(".")[1]
    upward = {name for name in targets if RANK[name.split(".")[1]] > RANK[room]}
    assert not upward


@pytest.mark.parametrize("module", ARRAYS_ONLY)
def test_core_and_methods_know_arrays_only(module: str) -> None:
    """They import the array libraries, and a nucleus backend the one package that it is named after.

    What reads weights that come with this package, or models, needs safetensors; StarDist's backend asks csbdeep.
    """
    backend = {MODULES[module].stem} if module.startswith("sslcst.core.nuclei.") else set()
    assert third_party(MODULES[module]) <= CORE_MAY_IMPORT | backend | BESIDE.get(module, set())


@pytest.mark.parametrize("module", [name for name in ARRAYS_ONLY if name.startswith("sslcst.methods.")])
def test_no_method_knows_another(module: str) -> None:
    """A folder of `methods` imports from the rooms below, from itself, and from what lies beside the folders."""
    folder = module.split(".")[2]
    others = {
        name
        for name in imported(MODULES[module])
        if name.startswith("sslcst.methods.") and name.split(".")[2] in FOLDERS - {folder}
    }
    assert not others


@pytest.mark.parametrize(("package", "rooms"), [("dask", {"run", "io"}), ("typer", {"cli"})])
def test_package_has_one_room(package: str, rooms: set[str]) -> None:
    users = {name.split(".")[1] for name, file in MODULES.items() if package in third_party(file)}
    assert users <= rooms


def test_core_loads_on_its_own() -> None:
    """Every module of core and methods loads where SpatialData and all that comes with it cannot be imported."""
    run_python(f"""
import sys
from importlib import import_module

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {CORE_MUST_NOT_NEED!r}:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Absent())
for name in {ARRAYS_ONLY!r}:
    import_module(name)
""")


def test_imports_are_declared() -> None:
    """Each package that the source imports is in pyproject.toml, and does not come by chance through another one."""
    project = tomllib.loads((SRC.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    declared = {canonicalize_name(Requirement(line).name) for line in lines}
    providers = {"instanseg": ["instanseg-torch"]} | packages_distributions()
    used = set().union(*map(third_party, FILES))
    missing = {name for name in used if not declared & {canonicalize_name(d) for d in providers.get(name, [name])}}
    assert not missing
