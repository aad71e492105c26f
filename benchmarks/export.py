"""
How long the hand-over of a design takes, how large its page is, and how soon a browser can search it.

    python benchmarks/export.py            100,000 and 200,000 GPUs; needs chromium for the page

Each line is one run; the page is opened three times, of which the median counts.
"""

import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

from colossi.site.cluster import design
from colossi.site.exports.folder import write_all
from colossi.spec import read_spec

SPEC = Path(__file__).parents[1] / "examples" / "colossus.toml"
CHROMIUM = "/usr/bin/chromium"
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
OPENED = 3


def measured(gpus: int, folder: Path) -> str:
    """A line of figures."""
    found = design(read_spec(SPEC, [f"cluster.gpus={gpus}"], needs=("site",)))
    began = time.perf_counter()
    written = write_all(found, folder, 0, lambda label, done, total: None)
    seconds = time.perf_counter() - began
    size = sum(path.stat().st_size for path in written) / 1e6
    page = (folder / "index.html").stat().st_size / 1e6
    ready, answer, heap = opened(folder / "index.html", found.nodes - 1)
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return (
        f"{gpus:,} GPUs, {len(found.cables):,} cables: "
        f"{len(written)} files of {size:.0f} MB in {seconds:.1f} s, {gigabytes:.2f} GB; "
        f"page {page:.2f} MB, searchable after {ready:.2f} s, a device's cables in "
        f"{answer:.0f} ms, heap {heap:.0f} MB"
    )


def opened(page: Path, node: int) -> tuple[float, float, float]:
    """Seconds until the search may be used; milliseconds of a search for a node; JavaScript's heap [MB]."""
    ready, answers, heap = [], [], 0.0
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        for _ in range(OPENED):
            window = chromium.new_page()
            began = time.perf_counter()
            window.goto(f"file://{page}")
            window.wait_for_selector("#search:enabled", timeout=60_000)
            ready.append(time.perf_counter() - began)
            ask = f"const t = performance.now(); go('node-{node}'); return performance.now() - t"
            answers.append(window.evaluate(f"() => {{ {ask} }}"))
            heap = window.evaluate("performance.memory.usedJSHeapSize") / 1e6
            window.close()
        chromium.close()
    return statistics.median(ready), statistics.median(answers), heap


if __name__ == "__main__":
    for many in (100_000, 200_000):
        with tempfile.TemporaryDirectory() as name:
            sys.stdout.write(measured(many, Path(name)) + "\n")
