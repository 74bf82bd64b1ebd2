"""README and docs/ as snippets: every line of a block of commands, every other block as a whole.

Whoever runs a page gets its snippets here, those that cannot run here left out: they are in `NOT_RUN`, with reasons.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "howto").glob("*.md")])
FENCE = re.compile(r"^ *```([\w{}:-]*)\n(.*?)^ *```$", flags=re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?:\$ )?(?:sudo )?(fedoel|make|cd|export|pip|python3|venv/bin/pip|podman|git|sudo|ray) ")

# What no test of this folder runs, by how it begins (behind its language), and why.
NOT_RUN = (
    (r" +device \(many\)", "a picture"),
    (r"\{toctree\}|\{eval-rst\}", "built by tests/docs/test_site.py"),
    (r"make test", "runs these tests"),
    (
        r"(venv/bin/)?pip (install|wheel)|git clone|export PATH|python3 -m venv|\. \S+/activate",
        "installs: needs a network",
    ),
    (r"sudo (apt|systemctl|useradd|-u)", "changes the system: needs root and systemd"),
    (r"podman (build|run)|make images", "needs a builder: tests/test_container_files.py"),
    (r"server \{\n", "nginx; tests/deployment has a proxy of its own"),
    (r"fedoel simulate --scale private", "a thousand devices; tests/simulations/test_privacy.py has few"),
    (r"fedoel audit", "minutes: tests/simulations/audit"),
    (r"fedoel export", "needs a language model: tests/server/test_export.py"),
    (r"fedoel experiment (knowledge|loop|federation)", "hours: tests/simulations/test_experiment.py"),
    (r"fedoel dash (?!.*--file)", "serves until Ctrl-C: tests/cli/test_dash.py"),
    (r"fedoel simulate --track", "needs an extra: tests/simulations/test_track.py"),
    (r"ray (start|stop)|RAY_ADDRESS=", "needs several machines: tests/simulations/test_ray_cluster.py"),
    (r"health: of cycle", "what a fleet of several classes of machines shows: tests/server/test_health.py"),
    (r"fedoel approve", "needs a candidate that waits: tests/simulations/test_versions_of_a_run.py"),
)
# Sections about a fleet of processes, by their pages: how their titles begin.
IN_FLEETS = {
    "README.md": ("Deploy",), "deploy.md": ("",), "raspberry-pis.md": ("",),
    "tutorial.md": ("5. Two devices on one machine",),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Snippet:
    """A command, or another block, with the page and the section that it stands in."""

    page: str
    section: str
    language: str
    text: str

    @property
    def why_not(self) -> str:
        """Why no test of this folder runs it; empty for what is run."""
        return next((why for pattern, why in NOT_RUN if re.match(pattern, self.language + self.text)), "")

    @property
    def in_fleet(self) -> bool:
        """Whether it is about a fleet of processes, which test_fleet_pages.py runs."""
        return self.section.startswith(IN_FLEETS.get(self.page, ()))

    @property
    def command(self) -> list[str] | None:
        """The words of a fedoel command; None if it is something else."""
        return shlex.split(self.text)[1:] if self.text.startswith("fedoel ") else None


def snippets(page: Path) -> Iterator[Snippet]:
    """Snippets of a page, in order."""
    text = page.read_text(encoding="utf-8")
    for block in FENCE.finditer(text):
        titles = re.findall(r"^##+ (.+)$", text[: block.start()], flags=re.MULTILINE)
        section, language = titles[-1] if titles else "", block[1]
        if language or not COMMAND.match(block[2]):
            yield Snippet(page.name, section, language, block[2])
            continue
        for line in re.sub(r"\\\n\s*", "", block[2]).splitlines():
            bare = re.sub(r"\s+#\s.*$", "", line.strip()).removeprefix("$ ")
            for part in filter(None, bare.split(" && ")):
                yield Snippet(
                    page.name, section, language, re.sub(r"^sudo (fedoel|\$\(command -v fedoel\))", "fedoel", part)
                )


def commands_in_prose(page: Path) -> list[str]:
    """Commands between backquotes in the text of a page, without `fedoel`; many leave out what is clear."""
    return re.findall(r"`fedoel ([^`]+)`", FENCE.sub("", page.read_text(encoding="utf-8")))
