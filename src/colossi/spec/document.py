"""
docs/spec.md, made from the models, so that it says what they say.

    python -m colossi.spec.document > docs/spec.md
"""

import inspect
import sys
from collections.abc import Iterator

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from colossi.spec.checkpoint import CheckpointSpec
from colossi.spec.cluster import ClusterSpec
from colossi.spec.construction import ConstructionSpec, Crews, Deliveries, Offer, TaskOverride
from colossi.spec.data import DataSpec, FilesSource, HuggingFaceSource, PythonStdlibSource, ReasoningSource
from colossi.spec.fabric import FabricSpec
from colossi.spec.failures import FailuresSpec
from colossi.spec.kubernetes import KubernetesSpec
from colossi.spec.layout import LayoutSpec
from colossi.spec.model import DERIVED, ModelSpec
from colossi.spec.power import PowerSpec
from colossi.spec.prices import PricesSpec
from colossi.spec.read import preset_names
from colossi.spec.site import (
    CoolingSpec,
    FeedSpec,
    FloorSpec,
    HallSpec,
    ManagementSpec,
    RackSpec,
    SiteSpec,
    StorageSpec,
)
from colossi.spec.spec import Spec
from colossi.spec.training import TrainingSpec
from colossi.spec.words import as_toml, wanted

TITLE = """# The spec

A TOML file that says what you want. This page is made from the models that check it
(`python -m colossi.spec.document > docs/spec.md`); a test fails when the two differ.

Nothing is guessed: an unknown key, a value of another type (`"3"`, `3.0` and `true` are no whole numbers)
and tables that contradict each other are refused before any work, in one line with the file, the key, the
value and what to write instead. `--set table.key=value` overrides a key of any command's spec and may be
repeated; a list is entered by number, `--set data.sources.0.weight=2`, and text needs no quotes there.

A command reads the tables that it needs: `colossi info` wants `[model]`, `colossi train` also `[data]` and
`[training]`. A run keeps its spec complete, as resolved, in `spec.toml` of its folder.
"""
PRESETS = """`preset = "NAME"` fills in a model of the catalogue; keys beside it win, and the run is called
NAME unless the document has a name. The catalogue: {}.
"""
RULES = """## Between the tables

* `layout.replicate * pipeline * shard * context * expert * tensor` is `cluster.nodes * workers_per_node`.
* `layout.tensor` divides `model.heads`, `kv_heads`, `ffn_hidden`, `shared_expert_ffn` and `vocabulary`;
  `layout.expert` divides `model.experts`; to train, `layout.shard * context * expert` divides `model.hidden`.
* `layout.replicate * shard * expert` divides `training.global_batch`, and `layout.micro_batch` what is left.
* `layout.pipeline * interleave` is at most `model.layers`; a pipeline needs at least as many
  micro-batches as it has workers (`zero-bubble-v` one less than twice as many), and interleaved or with
  `zero-bubble` a multiple of that.
* `training.sequence_length` is at most `model.max_positions`, and a multiple of `2 * layout.context`.
"""

TABLES: dict[str, type[BaseModel]] = {
    "[model]": ModelSpec,
    "[data]": DataSpec,
    "[[data.sources]] of kind files": FilesSource,
    "[[data.sources]] of kind python-stdlib": PythonStdlibSource,
    "[[data.sources]] of kind reasoning": ReasoningSource,
    "[[data.sources]] of kind huggingface": HuggingFaceSource,
    "[training]": TrainingSpec,
    "[layout]": LayoutSpec,
    "[checkpoint]": CheckpointSpec,
    "[failures]": FailuresSpec,
    "[cluster]": ClusterSpec,
    "[fabric]": FabricSpec,
    "[kubernetes]": KubernetesSpec,
    "[prices]": PricesSpec,
    "[power]": PowerSpec,
    "[site]": SiteSpec,
    "[[site.halls]]": HallSpec,
    "[[site.feeds]]": FeedSpec,
    "[site.cooling]": CoolingSpec,
    "[site.rack]": RackSpec,
    "[site.floor]": FloorSpec,
    "[site.storage]": StorageSpec,
    "[site.management]": ManagementSpec,
    "[construction]": ConstructionSpec,
    "[construction.deliveries]": Deliveries,
    "[construction.crews]": Crews,
    "[construction.offers.NAME]": Offer,
    "[construction.tasks.KIND]": TaskOverride,
}

# Together, in this order, they are one good document.
EXAMPLES = {
    "the document itself": 'name = "small"',
    "[model]": '[model]\npreset = "laptop"\nlayers = 6',
    "[data]": '[data]\ntokenizer = "words"\nheld_out = 100',
    "[[data.sources]] of kind files": '[[data.sources]]\nkind = "files"\npath = "books/*.txt"\nweight = 2.0',
    "[[data.sources]] of kind python-stdlib": '[[data.sources]]\nkind = "python-stdlib"',
    "[[data.sources]] of kind reasoning": '[[data.sources]]\nkind = "reasoning"\ntask = "chain_sum"\n'
    "samples = 20000\noptions = { max_terms = 3 }",
    "[[data.sources]] of kind huggingface": '[[data.sources]]\nkind = "huggingface"\n'
    'name = "roneneldan/TinyStories"\ndocuments = 100000',
    "[training]": '[training]\nsequence_length = 128\nglobal_batch = 64\nsteps = 400\noptimizer = "muon"\n'
    'schedule = "wsd"\nwarmup_steps = 20',
    "[layout]": "[layout]\nexpert = 2\nmicro_batch = 16",
    "[checkpoint]": "[checkpoint]\nevery = 50\nkeep = 3",
    "[failures]": '[failures]\nrates = "rsc-1"\nrestart_seconds = 60.0',
    "[cluster]": "[cluster]\nworkers_per_node = 2",
    "[prices]": "[prices]\ngpu_hour = 2.5",
    "[fabric]": "[fabric]\nradix = 128\ngigabits = 400.0",
    "[power]": "[power]\nramp = 10.0\nbattery_mw = 150.0\nbattery_mwh = 300.0",
    "[site]": '[site]\nredundancy = "2N"\nracks_per_pod = 8',
    "[[site.halls]]": '[[site.halls]]\nname = "h1"\nlength = 60.0\nwidth = 40.0',
    "[[site.feeds]]": '[[site.feeds]]\nname = "a"\nmegawatts = 20.0\n\n'
    '[[site.feeds]]\nname = "b"\nmegawatts = 20.0\nday = 90.0',
    "[site.cooling]": "[site.cooling]\nliquid_mw = 12.0\nair_mw = 5.0",
    "[site.rack]": "[site.rack]\nnodes = 4\nkilowatts = 45.0",
    "[site.floor]": "[site.floor]\ncold_aisle = 1.8\nhot_aisle = 1.2",
    "[site.storage]": "[site.storage]\nservers = 8",
    "[site.management]": "[site.management]\nservers = 3",
    "[construction]": "[construction]\nstart = 2024-05-03\ntarget = 2024-10-01\nhours_a_day = 10",
    "[construction.deliveries]": "[construction.deliveries]\nfirst_day = 60.0\nracks_a_week = 180.0",
    "[construction.crews]": "[construction.crews]\nelectricians = 8\ncablers = 16",
    "[construction.offers.NAME]": '[construction.offers.turbines]\nkind = "turbines"\nmegawatts = 2.5\n'
    'count = 14\nlead_days = 45\ndollars_a_day = 2500.0\nfuel = 40.0\nsource = "an offer of May"',
    "[construction.tasks.KIND]": '[construction.tasks.piping]\nhours = [1, 1.5, 3]\nsource = "our last site"',
    "[kubernetes]": '[kubernetes]\nimage = "registry.example/colossi:0.1"\nclaim = "runs"\n'
    'queue = "training"\ntopology = "cloud.provider.com/topology-rack"',
}


def markdown() -> str:
    """The whole page."""
    parts = [TITLE, *_section("the document itself", Spec)]
    for title, table in TABLES.items():
        parts += _section(title, table)
    return "\n".join([*parts, RULES])


def _section(title: str, table: type[BaseModel]) -> Iterator[str]:
    """A table: purpose, keys, example."""
    yield f"## {_heading(title)}\n"
    yield f"{inspect.getdoc(table)}\n"
    if table is ModelSpec:
        yield PRESETS.format(", ".join(f"`{name}`" for name in preset_names()))
    yield "| key | takes | default | |\n|---|---|---|---|"
    for key, field in table.model_fields.items():
        about = field.description or "below"
        yield f"| `{key}` | {_cell(wanted(field))} | {_default(key, field)} | {_cell(about)} |"
    yield f"\n```toml\n{EXAMPLES[title]}\n```\n"


def _heading(title: str) -> str:
    """The name of a table as code, with what follows it."""
    table, blank, rest = title.partition(" ")
    return f"`{table}`{blank}{rest}" if table.startswith("[") else title.capitalize()


def _default(key: str, field: FieldInfo) -> str:
    if field.is_required():
        return "derived" if key in DERIVED else "**required**"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "all defaults"
    return "left out" if value is None else f"`{as_toml(value)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    sys.stdout.write(markdown())
