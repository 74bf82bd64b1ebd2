"""What is installed, bundled and said about it: pyproject.toml, Makefile, README and the Flower bundle agree."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fedoel.protocol.config import RunConfig
from fedoel.protocol.settings import to_table
from fedoel.simulations.reference import generated, renewed

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = ("cli", "client", "codecs", "games", "policies", "protocol", "server", "simulations", "strategies")
MADE_BY_COMMANDS = {"build", "dist", "runs", "__pycache__"}


def texts() -> Iterator[tuple[str, str]]:
    """Every text file of the repository, by its path; what commands made is left out."""
    for folder, folders, files in os.walk(ROOT):
        here = Path(folder)
        folders[:] = [
            name
            for name in folders
            if name not in MADE_BY_COMMANDS and not name.endswith(".egg-info")
            if not name.startswith(".") or name in {".ci", ".github"}
            if not (here / name / "pyvenv.cfg").exists()
        ]
        for name in files:
            try:
                yield str((here / name).relative_to(ROOT)), (here / name).read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue


@pytest.mark.parametrize("name", generated())
def test_generated_blocks_are_current(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert renewed(text, generated()[name]) == text, "run `python -m fedoel.simulations.reference --write`"


def test_flower_knows_every_setting() -> None:
    written = RunConfig.from_nested(PYPROJECT["tool"]["flwr"]["app"]["config"])
    assert written == RunConfig()
    assert PYPROJECT["tool"]["flwr"]["app"]["config"] == to_table(written)


def test_scenarios_are_found_by_import_name() -> None:
    folder = "importlib.resources.files('fedoel.simulations.scenarios')"
    probe = f"import importlib.resources; print(*[path.name for path in {folder}.iterdir()])"
    done = subprocess.run([sys.executable, "-I", "-c", probe], capture_output=True, text=True, check=True)
    assert {"quick.toml", "standard.toml", "full.toml"} <= set(done.stdout.split())


def test_constraints_cover_the_direct_dependencies() -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]
    wanted = [*PYPROJECT["project"]["dependencies"], *(item for extra in extras.values() for item in extra)]
    names = {re.split(r"[\[<>=; ]", item)[0] for item in wanted} - {"fedoel"}
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.partition("==")[0] for line in lines if "==" in line}
    assert names <= pinned


LOCKS = {
    "device": ("flower",), "llama": ("llama",), "server": ("flower", "privacy", "torch"),
    "setup": ("simulation", "express", "dev"),
}  # fmt: skip
PARTS = {"setup": ("setup", "torch")}  # of a lock in several files: torch is there in several builds
INSTALL = re.compile(r"\bpip install ((?:[^`\n&|;#]|\\\n)+)")


def requirement_name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def of_extra(extra: str) -> set[str]:
    """Names of the packages that an extra asks for, those of the extras that it names included."""
    lines = PYPROJECT["project"]["optional-dependencies"][extra]
    named = [match[1].split(",") for line in lines if (match := re.match(r"fedoel\[(.+)\]", line))]
    own = {requirement_name(line) for line in lines if not line.startswith("fedoel[")}
    return own.union(*(of_extra(name) for names in named for name in names))


@pytest.mark.parametrize("role", LOCKS)
def test_a_lock_has_every_requirement_of_its_role_at_the_tested_release_with_hashes(role: str) -> None:
    files = [ROOT / "locks" / f"{part}.txt" for part in PARTS.get(role, (role,))]
    text = "".join(file.read_text(encoding="utf-8") for file in files).replace("\\\n", " ")
    entries = [line.split(" --hash=") for line in text.splitlines()]
    assert all(hashes and all(re.fullmatch(r"sha256:[0-9a-f]{64}\s*", it) for it in hashes) for _, *hashes in entries)
    locked = dict(name.split(";")[0].strip().split("==") for name, *_ in entries)
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    tested = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert {name: tested[name] for name in locked if name in tested} == {
        name: version for name, version in locked.items() if name in tested
    }
    wanted = set[str]().union(*map(of_extra, LOCKS[role]))
    if role != "llama":  # which is in addition to those of a device
        wanted |= {requirement_name(line) for line in PYPROJECT["project"]["dependencies"]} | {"setuptools"}
    assert wanted <= set(locked)


def test_documented_installs_take_packages_by_their_hashes() -> None:
    """But for the project itself, and for torch, of which everybody chooses a build."""
    files = [
        ROOT / "Makefile",
        ROOT / "README.md",
        ROOT / "docs" / "deploy.md",
        *(ROOT / "deploy").glob("Containerfile.*"),
    ]
    found = [install.strip() for file in files for install in INSTALL.findall(file.read_text(encoding="utf-8"))]
    locked = re.compile(r".*--require-hashes --no-deps|\$\(LOCKED\)")
    others = [install for install in found if not locked.match(install)]
    assert len(found) - len(others) >= 7
    project = re.compile(r"(--\S+ )*--no-deps --no-build-isolation (--editable )?(\.|src/)")
    assert [install for install in others if not project.fullmatch(install)] == [
        "--quiet --constraint constraints.txt $(PIP_TORCH)"
    ]
    assert "LOCKED := --quiet --require-hashes --no-deps\n" in (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.slow
def test_every_lock_has_a_list_of_what_is_in_it(tmp_path: Path) -> None:
    pytest.importorskip("cyclonedx_py", reason="pip install cyclonedx-bom")
    venv = Path(sys.prefix)
    made = ["-o", str(venv / ".fedoel-installed")]  # what make would install first
    words = ["make", "sbom", f"VENV={venv}", f"SBOM={tmp_path}", "SBOM_OPTIONS=--no-validate", *made]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {f"{path.stem}.cdx.json" for path in ROOT.glob("locks/*.txt")}
    for path in tmp_path.iterdir():
        listed = json.loads(path.read_text(encoding="utf-8"))
        assert listed["bomFormat"] == "CycloneDX" and listed["metadata"]["component"]["name"] == "fedoel"
        lock = (ROOT / "locks" / f"{path.name.removesuffix('.cdx.json')}.txt").read_text(encoding="utf-8")
        known = {(part["name"], part["version"]) for part in listed["components"]}
        assert known == set(re.findall(r"^([a-z0-9][a-z0-9._-]*)==([^ \\;]+)", lock, flags=re.MULTILINE))
        sums = {each["content"] for part in listed["components"] for each in part["externalReferences"][0]["hashes"]}
        assert sums == set(re.findall(r"sha256:([0-9a-f]{64})", lock))


def test_no_text_names_a_package_registry() -> None:
    # Which index packages come from is for each user to configure. In pieces, so that this file passes its own test.
    hosts = (
        "py" + r"pi\.(org|python)", "python" + r"hosted\.org", "download" + r"\.pytorch\.org", "npm" + r"js\.(org|com)",
        "conda" + r"\.anaconda\.org", "docker" + r"\.io", "ghcr" + r"\.io", "quay" + r"\.io", "crates" + r"\.io",
        "proxy" + r"\.golang\.org",
    )  # fmt: skip
    needle = re.compile("|".join(hosts))
    found = [f"{name}: {match[0]}" for name, text in texts() if (match := needle.search(text))]
    assert not found


def test_readme_commands_exist() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", readme, flags=re.DOTALL))
    named = set(re.findall(r"^[`$ ]*make ([a-z][\w-]*)", code, flags=re.MULTILINE))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][\w-]*):(?!=)", makefile, flags=re.MULTILINE))
    assert named, "README shows no make command"
    assert named <= targets


def copied(folder: Path, rooms: Iterable[str]) -> Path:
    """Copy what a build needs, with these folders only."""
    for name in rooms:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is packaged, so that building leaves the repository as it is."""
    folder = tmp_path_factory.mktemp("build") / "fedoel"
    return copied(folder, (*PACKAGES, "tests"))


def test_flower_bundle_carries_the_system_only(copy: Path) -> None:
    flwr = Path(sys.executable).with_name("flwr")
    quiet = {"FLWR_HOME": str(copy.parent / "flwr"), "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    done = subprocess.run([flwr, "build"], cwd=copy, env=os.environ | quiet, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    [bundle] = copy.glob("*.fab")
    with zipfile.ZipFile(bundle) as archive:
        names = set(archive.namelist())
    scenarios = {f"simulations/scenarios/{scale}.toml" for scale in ("quick", "standard", "full")}
    assert {"pyproject.toml", "LICENSE", "client/app.py", "server/app.py"} | scenarios <= names
    assert {name.partition("/")[0] for name in names} == {*PACKAGES, "pyproject.toml", "LICENSE", "README.md", ".info"}


BUILD = """\
import sys
from setuptools import build_meta
out = sys.argv[1]  # which the builds change
build_meta.build_sdist(out), build_meta.build_wheel(out)
"""


@pytest.fixture(scope="module")
def built(copy: Path) -> Path:
    """A folder with the wheel and the source distribution, built without network."""
    out = copy.parent / "dist"
    done = subprocess.run([sys.executable, "-c", BUILD, out], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if name.startswith("fedoel/")}


def test_wheel_holds_every_module_scenario_and_text(copy: Path, built: Path) -> None:
    """Every file of the packages that is tracked, and no other: what commands make is neither."""
    [wheel] = built.glob("*.whl")
    sources = [
        path
        for name in PACKAGES
        for path in (copy / name).rglob("*")
        if path.is_file() and path.suffix not in {".pyc", ".so"}
    ]
    assert names_in(wheel) == {f"fedoel/{path.relative_to(copy).as_posix()}" for path in sources}
    assert {f"fedoel/{name}/py.typed" for name in PACKAGES} <= names_in(wheel)


def test_a_wheel_of_the_source_distribution_holds_the_same(built: Path, tmp_path: Path) -> None:
    [archive], [wheel] = built.glob("*.tar.gz"), built.glob("*.whl")
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    [source] = tmp_path.iterdir()
    done = subprocess.run([sys.executable, "-c", BUILD, tmp_path / "out"], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    [again] = (tmp_path / "out").glob("*.whl")
    assert names_in(again) == names_in(wheel)


@pytest.mark.slow
def test_an_installed_wheel_runs_a_simulation_without_the_repository(built: Path, tmp_path: Path) -> None:
    """What a run reads is in the wheel: scenario, prompt pack, template of the report."""
    [wheel] = built.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*pip, "--target", tmp_path / "installed", wheel], check=True, capture_output=True)
    # Without the site's .pth files, so that an editable installation cannot lend what is missing.
    path = os.pathsep.join([str(tmp_path / "installed"), sysconfig.get_path("purelib")])
    environment = {**os.environ, "PYTHONPATH": path, "FEDOEL_CACHE": str(tmp_path / "cache")}

    def fedoel(*words: str) -> str:
        call = [sys.executable, "-S", str(tmp_path / "installed" / "bin" / "fedoel"), *words]
        done = subprocess.run(call, env=environment, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert fedoel("--version") == f"fedoel {PYPROJECT['project']['version']}\n"
    small = ("policy.backend=tactics", "games.held-out=4", "games.per-client=2", "games.families=frozen-lake turns=6")
    settings = [word for setting in small for word in ("--set", setting)]
    fedoel("simulate", "--clients", "6", "--cycles", "1", "--out", "run", *settings)
    assert (tmp_path / "run" / "report.html").exists()
    assert "everything that was checked holds" in fedoel("verify", "run")


@pytest.mark.slow
@pytest.mark.parametrize("left_out", [{"simulations"}, {"simulations", "server", "strategies"}])
def test_a_device_is_installed_without_simulations(left_out: set[str], tmp_path: Path) -> None:
    source = copied(tmp_path / "source", sorted({*PACKAGES} - left_out))
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--no-build-isolation", "--quiet"]
    installed = tmp_path / "installed"
    subprocess.run([*pip, "--target", installed, source], check=True, capture_output=True)
    # Without the site's .pth files, so that an editable installation cannot lend what is missing.
    path = os.pathsep.join([str(installed), sysconfig.get_path("purelib")])

    def fedoel(*words: str) -> subprocess.CompletedProcess[str]:
        call = [sys.executable, "-S", str(installed / "bin" / "fedoel"), *words]
        return subprocess.run(
            call, env={**os.environ, "PYTHONPATH": path}, cwd=tmp_path, capture_output=True, text=True
        )

    assert "check-plugin" in fedoel("--help").stdout
    assert "doctor" in fedoel("device", "--help").stdout
    joined = fedoel("device", "join", "kitchen", "--name", "kitchen")
    assert joined.returncode == 0 and (tmp_path / "kitchen" / "kitchen.pub").exists(), joined.stderr
    for words, problem in (
        (("play", "--device", "kitchen"), "let this device join again"),
        (
            ("check-plugin", "mean"),
            "`fedoel check-plugin` needs fedoel.simulations, which is not part",
        ),
    ):
        done = fedoel(*words)
        assert done.returncode == 2 and problem in done.stderr and done.stderr.count("\n") == 1, done.stderr
