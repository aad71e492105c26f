"""What `colossi calibrate` has found, a line for each world of workers."""

from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from colossi.plan.profile import Profile


def render(profile: Profile, name: str, path: Path) -> RenderableType:
    """The rates of one worker while the others work too, and where the profile is."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("workers", "products", "memory", "gathers", "a block's calls"):
        table.add_column(title, justify="right")
    for world in profile.worlds:
        alone = world.workers == 1
        table.add_row(
            f"{world.workers}{', sharded' if world.returned else ''}",
            f"{world.peak / 1e9:.0f} GFLOP/s",
            f"{world.memory_rate / 1e9:.1f} GB/s",
            "-" if alone else f"{world.link / 1e9:.2f} GB/s",
            f"{world.efficiency.host_layer * 1e3:.2f} ms",
        )
    return Group(
        Text(profile.device, style="bold"),
        table,
        Text(f'{path}\n[cluster] profile = "{name}" uses it.'),
    )
