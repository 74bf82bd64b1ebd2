"""Container files name what is in the repository; where there is a builder, they are built and run."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from fedoel.cli.main import make_parser

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "deploy").glob("Containerfile.*"))
INSTRUCTIONS = {"FROM", "RUN", "WORKDIR", "COPY", "USER", "VOLUME", "EXPOSE", "ARG", "ENV", "ENTRYPOINT", "CMD"}
SHARED = {"protocol", "policies", "games", "codecs", "cli"}
FOLDERS = {".device": SHARED | {"client"}, ".server": SHARED | {"server", "strategies", "client/*.py"}}
BUILDERS = ("podman", "docker", "buildah")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# What a builder takes for the name of an image: name, tag and digest (the grammar of `distribution/reference`).
IMAGE = re.compile(r"[a-z0-9]+(?:[._/-][a-z0-9]+)*(?::[\w][\w.-]{0,127})?(?:@sha256:[0-9a-f]{64})?")
DIGEST = f"sha256:{'0123456789abcdef' * 4}"
# A builder that has pulled what it is asked for, under one digest, or under none.
PULLED = """\
#!/bin/sh
test "$1" = image && echo "example/$5@{digest}" | sed 's/:3[^@]*@/@/'
exit 0
"""


def instructions(path: Path) -> list[tuple[str, str]]:
    """Instructions of a container file, with continued lines joined and comments left out."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE))
    found = [line.partition(" ") for line in text.splitlines() if line.strip()]
    return [(name, rest.strip()) for name, _, rest in found]


def images(path: Path, digest: str) -> list[str]:
    """Images that a container file begins with, where all digests are this one."""
    steps = instructions(path)
    found = [rest.removesuffix(" AS build") for name, rest in steps if name == "FROM"]
    digests = {rest for name, rest in steps[: [name for name, _ in steps].index("FROM")] if name == "ARG"}
    return [re.sub(r"\$\{(\w+)\}", lambda match: digest if match[1] in digests else match[0], image) for image in found]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.suffix)
def test_a_container_begins_with_images_of_known_digests_and_is_not_built_without_them(path: Path) -> None:
    """No default: without a digest, the name of the image is malformed, and a builder refuses it before it pulls."""
    assert all(IMAGE.fullmatch(image) and image.endswith(f"@{DIGEST}") for image in images(path, DIGEST))
    assert not any(IMAGE.fullmatch(image) for wrong in ("", "latest", DIGEST[:-1]) for image in images(path, wrong))


def test_make_images_writes_the_digests_that_a_build_needs(tmp_path: Path) -> None:
    builder, written = tmp_path / "builder", tmp_path / "images"
    words = ["make", "images", f"BUILDER={builder}", f"IMAGES={written}"]
    builder.write_text(PULLED.format(digest=""))
    builder.chmod(0o755)
    refused = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert refused.returncode and "knows no digest of python:3.12" in refused.stderr and not written.exists()
    builder.write_text(PULLED.format(digest=DIGEST))
    assert done(*words)
    given = dict(word.split("=") for word in shlex.split(written.read_text()) if word != "--build-arg")
    wanted = {rest for path in FILES for name, rest in instructions(path) if name == "ARG" and "=" not in rest}
    assert given == dict.fromkeys(wanted, DIGEST)
    builder.write_text(PULLED.format(digest=DIGEST.replace("0", "f")))
    assert done(*words) and DIGEST in written.read_text(), "what a tag means later does not count"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.suffix)
def test_a_container_is_built_from_what_is_there(path: Path) -> None:
    steps = instructions(path)
    assert {name for name, _ in steps} <= INSTRUCTIONS
    copies = [shlex.split(rest) for name, rest in steps if name == "COPY" and not rest.startswith("--from=build ")]
    copied = [source for words in copies for source in words[:-1]]
    assert [source for source in copied if not any(ROOT.glob(source))] == []
    files = {"pyproject.toml", "setup.py", "locks", PROJECT["project"]["readme"]}
    assert {*copied} == files | {*PROJECT["project"]["license-files"]} | FOLDERS[path.suffix]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.suffix)
def test_a_container_installs_locks_that_there_are_and_never_runs_as_root(path: Path) -> None:
    steps = instructions(path)
    commands = " ".join(rest for name, rest in steps if name == "RUN")
    for argument, value in [rest.split("=") for name, rest in steps if name == "ARG" and "=" in rest]:
        assert argument == "LOCKS"
        commands = commands.replace("locks/${lock}.txt", " ".join(f"locks/{it}.txt" for it in value.split()))
    installs = re.findall(r"pip install [^&|;]*", commands)
    assert all("--require-hashes" in it or re.search(r"--no-deps --no-build-isolation \.( |$)", it) for it in installs)
    locks = re.findall(r"-r (\S+)", commands)
    assert path.suffix.removeprefix(".") in {Path(lock).stem for lock in locks}
    assert [lock for lock in locks if not (ROOT / lock).is_file()] == []
    [user] = [rest for name, rest in steps if name == "USER"]
    assert f"useradd --system --create-home --home-dir /var/lib/{user} {user}" in commands
    [version] = {
        image.partition("@")[0].removeprefix("python:").removesuffix("-slim") for image in images(path, DIGEST)
    }
    assert f"Programming Language :: Python :: {version}" in PROJECT["project"]["classifiers"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.suffix)
def test_a_container_runs_a_verb_that_there_is(path: Path) -> None:
    steps = dict(instructions(path))
    words: list[str] = [*json.loads(steps["ENTRYPOINT"]), *json.loads(steps["CMD"])]
    assert words[0] in PROJECT["project"]["scripts"]
    arguments = make_parser().parse_args(words[1:])
    assert arguments.what == "start" and Path("/var/lib/fedoel") in arguments.dir.parents


def done(*words: str) -> bool:
    return subprocess.run(words, cwd=ROOT, capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def builder() -> str:
    """The first builder that works: a client without its daemon builds nothing."""
    found = next((name for name in BUILDERS if shutil.which(name) and done(name, "info")), "")
    if not found:
        pytest.skip(f"no builder of containers works here: none of {', '.join(BUILDERS)}")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.suffix)
def test_a_container_is_built_and_runs_by_the_commands_of_the_page_on_deployment(
    path: Path, builder: str, tmp_path: Path
) -> None:
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    [build] = re.findall(
        rf"^podman build \$\(cat deploy/images\) (-f deploy/{path.name} .*)$", page, flags=re.MULTILINE
    )
    assert not done(builder, "build", *shlex.split(build)), "without digests"
    if not done("make", "images", f"BUILDER={builder}", f"IMAGES={tmp_path / 'images'}"):
        pytest.skip("the images that it begins with cannot be pulled here")
    words = [builder, "build", *shlex.split((tmp_path / "images").read_text()), *shlex.split(build)]
    built = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    if builder != "buildah":  # which only builds
        assert done(builder, "run", "--rm", f"fedoel-{path.suffix[1:]}", "--help")
