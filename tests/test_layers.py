"""Who may import whom, read from the source of every module; and how long files and functions may get."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "protocol": {"protocol"},
    "policies": {"protocol", "policies"},
    "games": {"protocol", "policies", "games"},
    "codecs": {"protocol", "policies", "codecs"},
    "strategies": {"protocol", "strategies"},
    "client": {"protocol", "policies", "games", "codecs", "client"},
    "server": {"protocol", "policies", "games", "codecs", "strategies", "server"},
}
MAY_IMPORT |= {top: {*MAY_IMPORT, "simulations", "cli"} for top in ("simulations", "cli")}
HEAVY = {"llama_cpp", "peft", "py4j", "textworld", "textworld_express", "torch", "transformers"}
# Started for every message, every command, or on devices that have no torch.
LIGHT = ("fedoel.protocol", "fedoel.client.app", "fedoel.cli.main")
# The only modules of the server that know games; a server that has prompts only loads none of them.
WITH_GAMES = {
    f"fedoel.server.public.{name}" for name in ("game_plan", "games", "gate", "held_out", "rollouts", "world_of_games")
}
LONGEST_FILE = 500
LONGEST_FUNCTION = 60


@dataclass(frozen=True, slots=True)
class Import:
    """One imported name. `at_load` is false inside functions and under TYPE_CHECKING."""

    target: str
    at_load: bool


@cache
def modules() -> dict[str, Path]:
    """Every module of the packages, by import name."""
    found = {}
    for package in MAY_IMPORT:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(("fedoel", *parts)).removesuffix(".__init__")] = path
    return found


@cache
def imports(module: str) -> tuple[Import, ...]:
    """What a module imports; ``from x import y`` is x.y where that is a module, and x otherwise."""
    path = modules()[module]
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    return tuple(_imports(ast.parse(path.read_text(encoding="utf-8")).body, package, at_load=True))


def _imports(body: list[ast.stmt], package: list[str], at_load: bool) -> Iterator[Import]:
    for node in body:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, at_load) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join(base + ([node.module] if node.module else []))
            for alias in node.names:
                full = f"{source}.{alias.name}"
                yield Import(full if full in modules() else source, at_load)
        else:
            later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or _only_for_types(node)
            for field in ("body", "orelse", "finalbody", "handlers", "cases"):
                nested: list[ast.stmt] = []
                for child in getattr(node, field, []):
                    nested += [child] if isinstance(child, ast.stmt) else child.body
                yield from _imports(nested, package, at_load and not later)


def _only_for_types(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def loaded_by(module: str) -> set[str]:
    """Every module of ours that importing `module` runs, parent packages included."""
    reached: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in modules() and name not in reached:
            reached.add(name)
            waiting.append(name.rpartition(".")[0])
            waiting += [item.target for item in imports(name) if item.at_load]
    return reached


def external(module: str) -> set[str]:
    """The third-party packages that loading a module imports."""
    tops = {item.target.partition(".")[0] for item in imports(module) if item.at_load}
    return tops - set(sys.stdlib_module_names) - {"fedoel"}


def test_layers_point_one_way() -> None:
    wrong = [
        f"{module} imports {item.target}"
        for module in modules()
        for item in imports(module)
        if item.target.startswith("fedoel.")
        if item.target.split(".")[1] not in MAY_IMPORT[module.split(".")[1]]
    ]
    assert not wrong


def test_our_own_packages_are_imported_relatively() -> None:
    wrong = []
    for module, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and not node.level and f"{node.module}.".startswith("fedoel."):
                wrong.append(f"{module}:{node.lineno}")
    assert not wrong


def test_a_server_knows_games_only_where_it_has_some() -> None:
    server = [module for module in modules() if module.startswith("fedoel.server")]
    uses_games = {module for module in server if any(_is_of_games(item.target) for item in imports(module))}
    assert uses_games <= WITH_GAMES
    uses_them = {module for module in server if any(item.target in WITH_GAMES for item in imports(module))}
    assert uses_them - WITH_GAMES == {"fedoel.server.app"}
    at_load = {item.target for item in imports("fedoel.server.app") if item.at_load}
    assert not at_load & WITH_GAMES


def _is_of_games(name: str) -> bool:
    return f"{name}.".startswith("fedoel.games.")


def test_no_cycles() -> None:
    """Imports inside of functions and under TYPE_CHECKING count: what needs each other is one thing."""
    graph = {
        module: {item.target for item in imports(module) if item.target in modules()} - {module} for module in modules()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other: {' -> '.join(error.args[1])}")


def test_protocol_needs_numpy_and_cryptography_only() -> None:
    # Flower's records are met where typed messages and a round's state are read and written; shares are a library's,
    # and another checks signatures of identities, in half of the time and with their order.
    # A SuperExec is a process of Flower's, which nothing imports.
    records = ("messages", "signing", "secagg.messages")
    flower = tuple(f"fedoel.protocol.{name}" for name in (*records, "host.superexec"))
    more = {name: {"flwr"} for name in flower}
    more |= {"fedoel.protocol.secagg.shares": {"shamirs"}}
    more |= {f"fedoel.protocol.{name}": {"nacl"} for name in ("secagg.keys", "fleet.enrolment")}
    wrong = {
        module: extra
        for module in modules()
        if module.startswith("fedoel.protocol")
        if (extra := external(module) - {"numpy", "cryptography"} - more.get(module, set()))
    }
    assert not wrong


def test_strategies_are_federated_logic_only() -> None:
    wrong = {
        module: extra
        for module in modules()
        if module.startswith("fedoel.strategies")
        if (extra := external(module) - {"numpy", "flwr"})
    }
    assert not wrong


@pytest.mark.parametrize("root", LIGHT)
def test_light_modules_load_nothing_heavy(root: str) -> None:
    assert root in modules()
    wrong = {module: heavy for module in loaded_by(root) if (heavy := external(module) & HEAVY)}
    assert not wrong


def test_importing_the_protocol_is_light() -> None:
    probe = "import sys, fedoel.protocol; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-I", "-c", probe], capture_output=True, text=True, check=True)
    assert not (HEAVY | {"flwr", "ray"}) & set(done.stdout.split())


def test_packages_themselves_import_nothing() -> None:
    """Flower imports a simulation's two apps in two threads.

    One thread that holds the lock of a package waits for a module of it, while the other holds the module's lock and
    waits for the package: Python then hands out a module that is half imported.
    """
    packages = [module for module, path in modules().items() if path.name == "__init__.py"]
    assert packages
    assert not [package for package in packages if imports(package)]


def test_no_process_with_threads_is_forked() -> None:
    """A child is a new interpreter, or a fork of a fork server's.

    Another fork would take over locks that threads hold, such as those of torch.
    """
    forks = re.compile(r"\bos\.fork\b|\bProcessPoolExecutor\b|^ *(from|import) multiprocessing\b", re.MULTILINE)
    sources = {module: path.read_text(encoding="utf-8") for module, path in modules().items()}
    assert forks.search("import multiprocessing")
    server = "fedoel.protocol.host.forked"
    assert forks.search(sources[server]) and 'get_context("forkserver")' in sources.pop(server)
    assert not [name for name, text in sources.items() if forks.search(text) and 'get_context("spawn")' not in text]


def sources() -> list[Path]:
    """Every Python file that people maintain here."""
    folders = [*MAY_IMPORT, "tests", "examples", "benchmarks"]
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def test_files_are_short() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in sources()}
    assert not {name: length for name, length in lengths.items() if length > LONGEST_FILE}


def test_functions_are_short() -> None:
    wrong = {}
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = 1 + (node.end_lineno or node.lineno) - node.lineno - _docstring_length(node)
                if length > LONGEST_FUNCTION:
                    wrong[f"{path.relative_to(ROOT)}:{node.name}"] = length
    assert not wrong


def _docstring_length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = node.body[0]
    return 1 + (first.end_lineno or first.lineno) - first.lineno if ast.get_docstring(node) is not None else 0
