"""The rules that keep the engine in layers, checked on its source text.

Nothing is imported here: the rules hold for modules whose libraries are not installed too.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ENGINE = "solvar_engine"
PLUGIN = "solvar_plugin"

# From the physics of one image up to the command line: a room may import what stands before it.
CHAIN = ("distributed", "solvers", "imaging", "projectors", "reconstruction", "estimation", "abinitio", "jobs", "cli")
# Rooms beside the chain, with what they may import. Only `jobs` enters them, and the plugin those in `SHARED_ROOMS`.
SIDE_ROOMS = {
    "contract": set(),
    "data": {"contract", "distributed", "imaging"},
    "figures": {"contract"},
    "reports": {"contract", "figures"},
    "simulation": {"projectors", "imaging"},
    "latent": {"imaging"},
    "evaluation": {"imaging"},
    "explorer": {"contract", "data", "imaging"},
    "orbit_recovery": {"imaging"},
}
ALLOWED_ROOMS = {
    **{room: set(CHAIN[:position]) for position, room in enumerate(CHAIN)},
    **SIDE_ROOMS,
}
ALLOWED_ROOMS["jobs"] |= set(SIDE_ROOMS)
ALLOWED_ROOMS["cli"] |= {"contract"}
ALLOWED_ROOMS["__main__"] = {"cli"}  # python -m solvar_engine
# Inside the estimation: what one image is, poses, factors, what is judged by them, and how all that takes turns.
ESTIMATION_CHAIN = ("pose_scores", "model", "poses", "solver", "judging", "alternation")

# Rooms whose `__init__` names every module that others use.
DESCRIBED_ROOMS = (
    "distributed", "contract", "data", "explorer", "imaging", "latent", "evaluation", "simulation", "reconstruction",
    "abinitio", "solvers", "orbit_recovery",
)

# What Scipion's own Python imports too, with the libraries that it has.
SHARED_ROOMS = {"contract": {"numpy"}, "figures": {"numpy", "matplotlib"}}

# Libraries that stay outside: Scipion's, and everything that stores code in data files.
SCIPION = {"pyworkflow", "pwem", "scipion", "relion", "xmipp3", "xmippLib"}
PICKLES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
FFT_MODULES = {"torch.fft", "numpy.fft", "scipy.fft", "scipy.fftpack"}


@dataclass(frozen=True)
class Module:
    """One source file, parsed.

    `imports` holds (dotted name, line) of every import, also those inside functions; `from a import b` counts
    as `a.b`. `names` holds (dotted name, line) of every attribute chain, with import aliases written out:
    `np.fft.rfft` becomes `numpy.fft.rfft`.
    """

    name: str
    path: Path
    tree: ast.Module
    imports: tuple[tuple[str, int], ...]
    names: tuple[tuple[str, int], ...]

    @property
    def room(self) -> str:
        """First part of the name below the package; empty for the package itself."""
        return self.name.split(".")[1] if "." in self.name else ""

    def at(self, line: int) -> str:
        """Where a finding is, for messages."""
        return f"{self.path.relative_to(ROOT)}:{line}"


def dotted(node: ast.expr) -> str | None:
    """Write an attribute chain as text; None if it does not start from a name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = dotted(node.value)
        return None if base is None else f"{base}.{node.attr}"
    return None


def parse(path: Path) -> Module:
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    relative = path.relative_to(ROOT).with_suffix("")
    is_package = relative.name == "__init__"
    name = ".".join(relative.parts[:-1] if is_package else relative.parts)
    imports: list[tuple[str, int]] = []
    aliases: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                imports.append((alias.name, node.lineno))
                aliases[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = name.split(".") if is_package else name.split(".")[:-1]
                parts = parts[: len(parts) - node.level + 1]
                base = ".".join([*parts, base] if base else parts)
            for alias in node.names:
                imports.append((f"{base}.{alias.name}", node.lineno))
                aliases[alias.asname or alias.name] = f"{base}.{alias.name}"
    names = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Attribute, ast.Name)):
            text = dotted(node)
            if text is not None:
                first, _, rest = text.partition(".")
                full = aliases.get(first, first) + ("." + rest if rest else "")
                names.append((full, node.lineno))
    return Module(name, path, tree, tuple(imports), tuple(names))


@cache
def modules(package: str = ENGINE) -> tuple[Module, ...]:
    return tuple(parse(path) for path in sorted((ROOT / package).rglob("*.py")))


def uses(module: Module, banned: set[str]) -> Iterator[tuple[str, int]]:
    """Yield imports and attribute chains that are, or lie below, one of the banned dotted names."""
    for name, line in (*module.imports, *module.names):
        if any(name == item or name.startswith(item + ".") for item in banned):
            yield name, line


def findings(searched: tuple[Module, ...], banned: set[str]) -> list[str]:
    found = {f"{module.at(line)}: {name}" for module in searched for name, line in uses(module, banned)}
    return sorted(found)


def own_imports(module: Module, known: set[str]) -> Iterator[tuple[str, int]]:
    """Yield our own modules that a module imports; `from package.module import function` means the module."""
    for name, line in module.imports:
        if name == ENGINE or name.startswith(ENGINE + "."):
            while name not in known and "." in name:
                name = name.rpartition(".")[0]
            yield name, line


def test_the_engine_was_found() -> None:
    assert {module.room for module in modules()} >= {"imaging", "projectors"}


def test_every_folder_is_a_known_room_and_a_package() -> None:
    rooms = {module.room for module in modules() if module.room}
    assert rooms <= set(ALLOWED_ROOMS), f"not in the design: {sorted(rooms - set(ALLOWED_ROOMS))}"
    folders = {module.path.parent for module in modules()}
    assert [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_rooms_import_only_what_the_design_allows() -> None:
    known = {module.name for module in modules()}
    broken = []
    for module in modules():
        allowed = ALLOWED_ROOMS[module.room] | {module.room} if module.room else set()
        for target, line in own_imports(module, known):
            room = target.split(".")[1] if "." in target else ""
            # `solvar_engine` itself holds the version and nothing else: anyone may read it.
            if room and room not in allowed:
                broken.append(f"{module.at(line)}: {module.room or ENGINE} may not import {target}")
    assert broken == []


@pytest.mark.parametrize("room", DESCRIBED_ROOMS)
def test_each_room_says_what_others_may_use(room: str) -> None:
    known = {module.name for module in modules()}
    described = ast.get_docstring(parse(ROOT / ENGINE / room / "__init__.py").tree) or ""
    below = f"{ENGINE}.{room}."
    others = [module for module in (*modules(), *modules(PLUGIN)) if module.room != room or PLUGIN in module.name]
    used = {target for module in others for target, _ in own_imports(module, known) if target.startswith(below)}
    names = {target[len(below) :].partition(".")[0] for target in used}
    assert sorted(name for name in names if f"`{name}`" not in described) == []


def test_rooms_of_the_estimation_are_in_order() -> None:
    known = {module.name for module in modules()}
    inside = f"{ENGINE}.estimation."
    position = {room: number for number, room in enumerate(ESTIMATION_CHAIN)}
    rooms = {module.name[len(inside) :].split(".")[0] for module in modules() if module.name.startswith(inside)}
    assert rooms == set(ESTIMATION_CHAIN)
    broken = []
    for module in modules():
        for target, line in own_imports(module, known) if module.name.startswith(inside) else ():
            if target.startswith(inside):
                own, other = (name[len(inside) :].split(".")[0] for name in (module.name, target))
                if position[other] > position[own]:
                    broken.append(f"{module.at(line)}: {own} may not import {target}")
    assert broken == []


def test_modules_form_no_cycle() -> None:
    known = {module.name for module in modules()}
    graph = {}
    for module in modules():
        graph[module.name] = {target for target, _ in own_imports(module, known)} - {module.name}
    done: set[str] = set()
    while True:
        free = {name for name, targets in graph.items() if name not in done and targets <= done}
        if not free:
            break
        done |= free
    assert sorted(set(graph) - done) == [], "these modules import each other in a circle"


def test_package_import_has_no_effect() -> None:
    tree = ast.parse((ROOT / ENGINE / "__init__.py").read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert [node.lineno for node in imports if getattr(node, "module", "") != "__future__"] == []


def test_engine_knows_nothing_of_scipion() -> None:
    assert findings(modules(), SCIPION | {PLUGIN}) == []


@pytest.mark.parametrize("room", SHARED_ROOMS)
def test_shared_rooms_need_only_the_standard_library_and_what_scipion_has(room: str) -> None:
    allowed = set(sys.stdlib_module_names) | SHARED_ROOMS[room] | {ENGINE}
    foreign = [
        f"{module.at(line)}: {name}"
        for module in modules()
        if module.room == room
        for name, line in module.imports
        if name.split(".")[0] not in allowed
    ]
    assert foreign == []


def test_figures_draw_into_what_they_are_given() -> None:
    drawing = tuple(module for module in modules() if module.room == "figures")
    assert drawing
    assert findings(drawing, {"matplotlib.pyplot", "matplotlib.use", "matplotlib.rcParams", "matplotlib.rc"}) == []


def test_plugin_imports_only_the_shared_rooms_and_no_torch() -> None:
    if not (ROOT / PLUGIN).is_dir():
        return
    for module in modules(PLUGIN):
        # `solvar_engine` itself holds the version and nothing else: anyone may read it.
        ours = {name for name, _ in module.imports if name.split(".")[0] == ENGINE} - {ENGINE, f"{ENGINE}.__version__"}
        assert {name.split(".")[1] for name in ours} <= set(SHARED_ROOMS), module.path
    assert findings(modules(PLUGIN), {"torch"}) == []


@pytest.mark.parametrize("folder", [*(f"{ENGINE}/{room}" for room in SHARED_ROOMS), PLUGIN])
def test_what_scipion_imports_parses_with_python_3_8(folder: str) -> None:
    for path in sorted((ROOT / folder).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path), feature_version=(3, 8))
        # Annotations such as `int | None` are harmless in 3.8 only as long as nobody evaluates them.
        has_annotations = any(isinstance(node, (ast.AnnAssign, ast.arg)) for node in ast.walk(tree))
        future = any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)
        assert future or not has_annotations, f"{path}: from __future__ import annotations is missing"


def test_only_one_module_does_fourier_transforms() -> None:
    others = [module for module in modules() if module.name != f"{ENGINE}.imaging.fourier"]
    transforms = [
        found
        for found in findings(tuple(others), FFT_MODULES)
        # choosing the size of a transform is not doing one
        if not found.endswith("next_fast_len")
    ]
    assert transforms == []


def test_cuda_is_named_only_by_projectors_and_the_command_line() -> None:
    allowed = f"{ENGINE}.jobs.running.devices"
    others = [module for module in modules() if module.room not in ("projectors", "cli") and module.name != allowed]
    assert findings(tuple(others), {"torch.cuda"}) == []


def test_nothing_is_pickled() -> None:
    assert findings(modules(), PICKLES | {"torch.save", "torch.load"}) == []
    allowing = [
        module.at(node.value.lineno)
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle"
        if not (isinstance(node.value, ast.Constant) and node.value.value is False)
    ]
    assert allowing == []


def test_nothing_is_printed() -> None:
    calls = [
        module.at(node.lineno)
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert calls == []


def test_no_global_random_state_or_defaults() -> None:
    banned = {"torch.manual_seed", "torch.set_default_dtype", "torch.set_default_device", "numpy.random.seed"}
    assert findings(modules(), banned) == []


def test_no_bare_except() -> None:
    bare = [
        module.at(node.lineno)
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ExceptHandler) and node.type is None
    ]
    assert bare == []


# The tools above must see what they look for: small sources with one offence each.


@pytest.mark.parametrize(
    ("source", "banned"),
    [
        ("import torch\n\ndef f(x):\n    return torch.fft.rfft(x)", "torch.fft"),
        ("import numpy as np\nnp.fft.rfft([1])", "numpy.fft"),
        ("from torch import fft", "torch.fft"),
        ("def f():\n    from pickle import loads", "pickle"),
        ("import torch as t\nt.cuda.synchronize()", "torch.cuda"),
    ],
)
def test_the_search_sees_an_offence(
    source: str, banned: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / ENGINE / "estimation" / "offender.py"
    path.parent.mkdir(parents=True)
    path.write_text(source, encoding="utf-8")
    assert findings((parse(path),), {banned}) != []
