"""Every example of the pages is run as it stands there, and must say what the page shows."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .pages import PAGES, ROOT, Example, examples, files

TRAINING = PAGES[0]
SECONDS = 120  # for one command, on a machine that does other things as well


class Workshop:
    """A folder to try things in, with the files of the training page and its run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "examples").symlink_to(ROOT / "examples")
        for page in PAGES:
            for name, content in files(page.read_text(encoding="utf-8")).items():
                (folder / name).write_text(content, encoding="utf-8")
        self._trained = examples(TRAINING.read_text(encoding="utf-8"))[0]
        self._training = self._run(self._trained)  # once, whichever page is asked for

    def outcome(self, example: Example) -> tuple[int, str]:
        """The exit code, and what a terminal would show."""
        return self._training if example == self._trained else self._run(example)

    def _run(self, example: Example) -> tuple[int, str]:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        done = subprocess.run(
            ["bash", "-c", example.command],
            cwd=self.folder,
            env=os.environ | {"PATH": path, "COLUMNS": "80"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
        )
        return done.returncode, done.stdout


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_say_what_the_page_shows(page: Path, workshop: Workshop) -> None:
    for example in examples(page.read_text(encoding="utf-8")):
        if example.command.startswith("make"):
            continue  # the demo and these tests themselves
        code, said = workshop.outcome(example)
        assert code == example.exit_code, f"$ {example.command}\n{said}"
        if example.shown:
            assert matches(example.shown, said), (
                f"$ {example.command}\nshown:\n{example.shown}\nsaid:\n{said}"
            )


def matches(shown: str, said: str) -> bool:
    """Whether `...` may stand for what differs; spaces and line ends count as one space."""
    said = " ".join(said.split())
    first, *others = (" ".join(part.split()) for part in shown.split("..."))
    if not others:
        return said == first
    if not said.startswith(first):
        return False
    at = len(first)
    for part in others:
        found = said.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return said.endswith(others[-1])


def test_what_matches() -> None:
    assert matches("loss ... best ...\n", "loss  1.5\n best 1.2 \n")
    assert matches("a ... b", "a b") and matches("a", "a\n")
    assert not matches("a ... b", "a b c") and not matches("a ... c ... b", "a b c")
    assert not matches("a", "a b") and not matches("b ...", "a b")
