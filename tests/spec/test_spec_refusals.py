"""What a spec may not say, as a table: what is changed in a good document, and the line that refuses it."""

import re
import tomllib
from pathlib import Path

import pytest

from colossi.errors import SpecError
from colossi.spec import Spec, build_spec, read_spec
from colossi.spec.read import apply_override

GOOD = """
name = "good"

[model]
layers = 2
hidden = 64
heads = 4
kv_heads = 2
ffn_hidden = 96
vocabulary = 512
experts = 4
experts_per_token = 2

[[data.sources]]
kind = "files"
path = "books"

[training]
sequence_length = 32
global_batch = 8
steps = 3
"""
KINDS = '"files" or "python-stdlib" or "reasoning" or "huggingface"'
TASK = 'data.sources=[{kind="reasoning", task="gcd"'
NAME = "give text in quotes, matching ^[A-Za-z0-9][A-Za-z0-9._-]*$"

UNKNOWN = {
    "modle.layers=3": "unknown table [modle]: did you mean [model]?",
    "plan=3": "unknown key plan = 3: remove it, or use a key of the spec",
    "model.hiden=64": "unknown key model.hiden = 64: did you mean hidden?",
    "model.presett=grok-1": 'unknown key model.presett = "grok-1": did you mean preset?',
    "model.moe={experts=4}": "unknown table [model.moe]: remove it, or use a key of [model]",
    "model.micro_batch=3": "unknown key model.micro_batch = 3: micro_batch is a key of [layout]",
    "training.optimiser=muon": 'unknown key training.optimiser = "muon": did you mean optimizer?',
    "layout.replicas=2": "unknown key layout.replicas = 2: did you mean replicate?",
    "checkpoint.kep=2": "unknown key checkpoint.kep = 2: did you mean keep?",
    "cluster.worker_per_node=2": "unknown key cluster.worker_per_node = 2: did you mean workers_per_node?",
    "data.source=[]": "unknown key data.source = []: did you mean sources?",
    "data.files=books": 'unknown key data.files = "books": remove it, or use a key of [data]',
    "data.sources.0.colunm=a": 'unknown key data.sources.0.colunm = "a": did you mean column?',
    "data.sources.0.task=a": 'unknown key data.sources.0.task = "a": remove it, or use a key of [data.sources.0]',
    TASK + ", sampels=9}]": "unknown key data.sources.0.sampels = 9: did you mean samples?",
    'data.sources=[{knid="files", path="a"}]': 'unknown key data.sources.0.knid = "files": did you mean kind?',
}

WRONG_TYPES = {
    'model.layers="3"': 'model.layers = "3": give a whole number, at least 1',
    "model.layers=3.0": "model.layers = 3.0: give a whole number, at least 1",
    "model.layers=true": "model.layers = true: give a whole number, at least 1",
    "model.layers=0": "model.layers = 0: give a whole number, at least 1",
    "model.layers=[3]": "model.layers = [3]: give a whole number, at least 1",
    "model.layers=1979-05-27": "model.layers = 1979-05-27: give a whole number, at least 1",
    "model.tied_embeddings=1": "model.tied_embeddings = 1: give true or false",
    'model.tied_embeddings="yes"': 'model.tied_embeddings = "yes": give true or false',
    "model=3": "model = 3: give the table [model]",
    "layout=[]": "layout = []: give the table [layout]",
    "layout.replicate=all": 'layout.replicate = "all": give a whole number, at least 1',
    'training.learning_rate="1e-3"': 'training.learning_rate = "1e-3": give a number, above 0',
    "training.learning_rate=true": "training.learning_rate = true: give a number, above 0",
    "training.learning_rate=nan": "training.learning_rate = nan: give a number, above 0",
    "training.loss_limit=inf": "training.loss_limit = inf: give a number, above 0",
    "training.beta1=1": "training.beta1 = 1: give a number, at least 0 and below 1",
    "training.optimizer=sgd": 'training.optimizer = "sgd": give "adamw" or "muon"',
    "training.optimizer=3": 'training.optimizer = 3: give "adamw" or "muon"',
    "name=3": f"name = 3: {NAME}",
    "name=a b": f'name = "a b": {NAME}',
    "data=3": "data = 3: give the table [data]",
    "data.sources=3": "data.sources = 3: give a list of tables, at least one",
    "data.sources=[]": "data.sources = []: give a list of tables, at least one",
    'data.sources=["books"]': 'data.sources.0 = "books": give a table',
    "data.sources.0.path=": 'data.sources.0.path = "": give text in quotes, not empty',
    "data.sources.0.weight=0": "data.sources.0.weight = 0: give a number, above 0",
    "data.sources.0.kind=file": f'data.sources.0.kind = "file": give {KINDS}',
    "data.tokenizer=chars": 'data.tokenizer = "chars" is no tokenizer: use "words", "subwords", "bytes" or',
    TASK + ", samples=9, options=3}]": "data.sources.0.options = 3: give a table",
    TASK + ", samples=9, options={seed=3}}]": "use the source's own key seed",
}

MISSING = {
    'model={a="b"}': 'unknown key model.a = "b": remove it',  # what is wrong before what is not there
    "model={}": "model.layers is missing: give a whole number, at least 1",
    "data={}": "data.sources is missing: give a list of tables, at least one",
    TASK + "}]": "data.sources.0.samples is missing: give a whole number, above 0",
    'data.sources=[{path="a"}]': f"data.sources.0.kind is missing: give {KINDS}",
    "training={global_batch=8}": "training.sequence_length is missing: give a whole number, at least 2",
    "training={sequence_length=32, global_batch=8}": "training.steps is missing, and so is tokens: add one of them",
}

# The overrides of a row stand in one text, with a blank between them.
IMPOSSIBLE = {
    "model.heads=3": "model.heads = 3 does not divide hidden = 64: use 2 or 4, or give head_dim",
    "model.head_dim=65": "model.head_dim = 65: RoPE turns pairs of dimensions: give an even number",
    "model.kv_heads=3": "model.kv_heads = 3 does not divide heads = 4: use 2 or 4",
    "model.experts_per_token=5": "model.experts_per_token = 5 is more than experts = 4: use at most 4",
    "training.tokens=99": "training.steps = 3 and tokens = 99 are both given: remove one of them",
    "training.sequence_length=9000": "training.sequence_length = 9000 is above model.max_positions = 8192",
    "layout.tensor=2": "layout.tensor = 2 does not divide cluster.nodes * workers_per_node = 1: "
    "use 2 workers, or a smaller layout",
    "layout.replicate=2": "layout.replicate = 2 is not cluster.nodes * "
    "workers_per_node = 1: leave out replicate",
    "layout.tensor=4 cluster.nodes=4": "model.kv_heads = 2 does not divide by layout.tensor = 4: use 2 there, "
    "or kv_heads = 4",
    "layout.tensor=3 cluster.nodes=3": "model.heads = 4 does not divide by layout.tensor = 3: use 2 or 4 there, "
    "or heads = 3 or 6",
    "layout.tensor=2 cluster.nodes=2 model.ffn_hidden=97": "model.ffn_hidden = 97 does not divide by "
    "layout.tensor = 2: use 1 or 97 there, or ffn_hidden = 96 or 98",
    "layout.tensor=2 cluster.nodes=2 model.shared_expert_ffn=33": "model.shared_expert_ffn = 33 does not divide",
    "layout.tensor=2 cluster.nodes=2 model.vocabulary=511": "model.vocabulary = 511 does not divide by "
    "layout.tensor = 2: use 1 or 7 there, or vocabulary = 510 or 512",
    "layout.expert=3 cluster.nodes=3": "model.experts = 4 does not divide by layout.expert = 3: use 2 or 4 there",
    "cluster.nodes=3": "training.global_batch = 8 cannot be dealt out to layout.replicate * shard * expert = 3 "
    "workers: use 6 or 9",
    "cluster.nodes=9": "training.global_batch = 8 cannot be dealt out to layout.replicate * shard * expert = 9 "
    "workers: use 9",
    "layout.micro_batch=3": "layout.micro_batch = 3 does not divide a worker's share of 8 sequences: use 2 or 4",
    "layout.pipeline=2 layout.expert=2 cluster.nodes=2": "layout.pipeline * expert = 4 does not divide "
    "cluster.nodes * workers_per_node = 2: use 4 workers, or a smaller layout",
    "layout.pipeline=8 cluster.nodes=8": "layout.pipeline * interleave = 8 stages for model.layers = 2 blocks: "
    "use at most 2",
    "layout.interleave=2": "layout.interleave = 2 is for a pipeline: give pipeline = 2 or more",
    "layout.schedule=zero-bubble": "layout.schedule = 'zero-bubble' is for a pipeline: give pipeline = 2 or more",
    "layout.schedule=zero-bubble-v layout.pipeline=2 cluster.nodes=2": "layout.interleave = 1 with schedule = "
    "'zero-bubble-v', which puts two stages on each worker: use interleave = 2",
    "layout.pipeline=2 cluster.nodes=2": "layout.micro_batch = 8 makes 1 micro-batches of a worker's share of 8 "
    "sequences, and the pipeline's schedule needs at least 2: lower micro_batch",
    "layout.pipeline=2 cluster.nodes=2 layout.schedule=zero-bubble layout.micro_batch=4 training.compile=true": ""
    "layout.schedule = 'zero-bubble' divides the backward pass, which torch.compile cannot",
    "layout.context=2 cluster.nodes=2 training.sequence_length=18": "training.sequence_length = 18 cannot be cut "
    "into 2 * layout.context = 4 chunks: use 16 or 20",
    "layout.micro_batch=16": "layout.micro_batch = 16 does not divide a worker's share of 8 sequences: use 8",
}

PRESETS = {
    "model.preset=grok1": 'model.preset = "grok1" is not in the catalogue: use grok-1 or grok-2',
    "model.preset=laptopp": 'model.preset = "laptopp" is not in the catalogue: use laptop',
    "model.preset=gpt": 'model.preset = "gpt" is not in the catalogue: use grok-1 or grok-2 or laptop',
    "model.preset=3": "model.preset = 3 is not in the catalogue: use grok-1 or grok-2 or laptop",
}

# These never reach the document: the line begins with the override itself.
OVERRIDES = {
    "steps": "not of the form table.key=value",
    "=3": "not of the form table.key=value",
    "training..steps=3": "not of the form table.key=value",
    "name.first=a": 'name = "good" is a value, not a table',
    "data.sources.1.path=a": "'1' is no place in a list of 1",
    "data.sources.-1.path=a": "'-1' is no place in a list of 1",
    "data.sources.first=a": "'first' is no place in a list of 1",
}

REFUSED = UNKNOWN | WRONG_TYPES | MISSING | IMPOSSIBLE | PRESETS
JARGON = ("input", "valid ", "pydantic", "tuple", "union", "tag", "str ", "NoneType", "ctx", "loc")


def build(*overrides: str) -> Spec:
    document = tomllib.loads(GOOD)
    for override in overrides:
        apply_override(document, override)
    return build_spec(document, "good.toml")


def split(row: str) -> list[str]:
    return row.split(" ") if row in IMPOSSIBLE else [row]


def test_the_document_is_good() -> None:
    spec = build()
    assert (spec.layout.replicate, spec.layout.micro_batch, spec.model.head_dim) == (1, 8, 16)


@pytest.mark.parametrize(("change", "line"), REFUSED.items(), ids=REFUSED.keys())
def test_refused(change: str, line: str) -> None:
    with pytest.raises(SpecError) as refusal:
        build(*split(change))
    message = refusal.value.message
    assert message.startswith("good.toml: ") and line in message
    assert "\n" not in message and len(message) < 240
    assert not [word for word in JARGON if re.search(rf"\b{re.escape(word)}\b", message)]


@pytest.mark.parametrize(("override", "line"), OVERRIDES.items(), ids=OVERRIDES.keys())
def test_refused_override(override: str, line: str) -> None:
    with pytest.raises(SpecError) as refusal:
        build(override)
    assert refusal.value.message == f"--set {override}: {line}"
    assert refusal.value.hint


def test_the_hint_says_what_the_key_is() -> None:
    with pytest.raises(SpecError) as refusal:
        build("model.hiden=64")
    assert refusal.value.hint == "hidden: width of the residual stream"
    with pytest.raises(SpecError) as refusal:
        build("data.files=books")
    assert refusal.value.hint == "the keys of [data] are sources, tokenizer, held_out, loss_on"


def test_a_table_that_is_missing(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text('name = "x"', encoding="utf-8")
    with pytest.raises(SpecError, match=r"x\.toml: table \[model\] is missing"):
        read_spec(file)
    with pytest.raises(SpecError, match=r"x\.toml: name is missing: give text in quotes"):
        build_spec({"model": tomllib.loads(GOOD)["model"]}, "x.toml")


FILES: dict[str, tuple[bytes | None, str]] = {
    "absent": (None, "no such file"),
    "not TOML": (b"name = \n", "not valid TOML: Invalid value (at line 1"),
    "not UTF-8": (b'name = "\xff"\n', "cannot be read as text"),
    "a key twice": (b"name = 'a'\nname = 'b'\n", "not valid TOML: Cannot overwrite a value (at line 2"),
}


@pytest.mark.parametrize(("content", "line"), FILES.values(), ids=FILES.keys())
def test_a_file_that_is_no_document(tmp_path: Path, content: bytes | None, line: str) -> None:
    path = tmp_path / "x.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SpecError) as refusal:
        read_spec(path)
    assert refusal.value.message.startswith(f"{path}: {line}") and refusal.value.hint


def test_a_folder_is_no_document(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="is a folder"):
        read_spec(tmp_path)


def test_an_absent_file_shows_what_is_beside_it(tmp_path: Path) -> None:
    (tmp_path / "laptop.toml").write_text(GOOD)
    with pytest.raises(SpecError) as refusal:
        read_spec(tmp_path / "labtop.toml")
    assert refusal.value.hint == "in that folder: laptop.toml"


def test_an_error_says_what_was_overridden(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text(GOOD)
    with pytest.raises(SpecError) as refusal:
        read_spec(path, ["training.steps=few"])
    assert refusal.value.message == (
        f'{path}, with --set training.steps=few: training.steps = "few": give a whole number, at least 1'
    )
