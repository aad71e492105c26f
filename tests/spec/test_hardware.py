"""The hardware catalogue: every entry is read, hangs together, and an unknown name offers the nearest."""

import pytest

from colossi.errors import SpecError
from colossi.spec.hardware import gpu, gpu_names, node, node_names
from colossi.spec.units import UNITS, quantity


@pytest.mark.parametrize(
    ("text", "base", "value"),
    [
        ("989 TFLOP/s", "FLOP/s", 989e12),
        ("3.35 TB/s", "B/s", 3.35e12),
        ("400 Gb/s", "B/s", 50e9),  # eight bits to a byte
        ("80 GB", "B", 80e9),
        ("80 GiB", "B", 85899345920),
        ("700 W", "W", 700),
        ("150 MW", "W", 150e6),
        ("1830 MHz", "Hz", 1.83e9),
        ("27.5 us", "s", 27.5e-6),
        ("2 USD/h", "USD/s", 2 / 3600),
    ],
)
def test_a_quantity_is_read_into_its_base_unit(text: str, base: str, value: float) -> None:
    assert quantity(text, base) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    "text",
    [
        "400",
        "400Gb/s",
        "Gb/s",
        "-400 Gb/s",
        "400  Gb/s",
        "400 gb/s",
        "400 Gbps",
        "400 GB",
        "1e3 Gb/s",
        "",
        400,
        None,
    ],
)
def test_anything_else_is_refused_in_one_line(text: object) -> None:
    with pytest.raises(ValueError, match=r'"400 Gb/s"$') as refused:
        quantity(text, "B/s")
    assert "\n" not in str(refused.value)


def test_every_base_unit_is_one_of_itself() -> None:
    assert [base for base in UNITS if quantity(f"1 {base}", base) != 1] == []


@pytest.mark.parametrize("name", gpu_names())
def test_a_gpu_hangs_together(name: str) -> None:
    card = gpu(name)
    assert card.name == name
    assert card.peak.fp32 < card.peak.tf32 < card.peak.bf16 == card.peak.fp16 <= card.peak_of("fp8")
    assert card.peak.tf32 == pytest.approx(card.peak.bf16 / 2, rel=1e-3)
    per_clock = (
        card.peak.bf16 / card.compute_units / card.clock
    )  # FLOP of one unit in one clock: a power of two
    powers = {"A100": 2048, "H100": 4096, "H200": 4096, "H800": 4096, "MI300X": 2048}
    assert per_clock == pytest.approx(
        next((v for k, v in powers.items() if name.startswith(k)), 8192), rel=0.06
    )
    assert card.memory_bandwidth > card.link_bandwidth
    for points in (card.measured.all_reduce, card.measured.all_gather, card.measured.all_to_all):
        assert all(
            point.bus_bandwidth < 1.05 * card.link_bandwidth for point in points
        )  # 1.05: added in the switch
        sizes = [point.size for point in points]
        assert sizes == sorted(sizes)


@pytest.mark.parametrize("name", node_names())
def test_a_node_hangs_together(name: str) -> None:
    server = node(name)
    assert server.domain % server.gpus == 0
    assert server.power > server.gpus * server.gpu.power
    assert server.network_bandwidth < server.gpu.link_bandwidth
    years = server.cost / server.gpus / server.gpu.price / (365 * 86400)
    assert 0.5 < years < 4, "rent pays for a server in a few years, or one of the two prices is wrong"


def test_figures_that_others_build_on() -> None:
    assert gpu("H100-SXM").peak_of("bf16") == 989.4e12
    assert gpu("A100-SXM-80GB").peak_of("fp8") == 312e12
    assert node("DGX-H100").network_bandwidth == 50e9
    assert node("GB200-NVL72").domain == 72
    assert node("colossus").gpu is gpu("H100-SXM")


@pytest.mark.parametrize(
    ("name", "offers"),
    [("h100", "H100-PCIe or H100-SXM"), ("A100-80GB", "A100-SXM-80GB"), ("H100SXM", "H100-SXM"), ("TPU", "")],
)
def test_an_unknown_gpu_offers_the_nearest(name: str, offers: str) -> None:
    with pytest.raises(SpecError) as refused:
        gpu(name)
    assert refused.value.message.startswith(f'GPU "{name}" is not in the catalogue: use ')
    assert offers in refused.value.message and "MI300X" in refused.value.hint


def test_an_unknown_node_offers_the_nearest() -> None:
    with pytest.raises(SpecError, match="DGX-H100"):
        node("DGX-100")
