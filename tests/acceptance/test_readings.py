"""What is read from the kernel, from NVML and from clocks, each with a fake behind its door."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from colossi.acceptance import clock, disk, gpus, memory, nics, xids
from colossi.acceptance.result import Result, verdict


def found(results: list[Result], check: str, what: str = "") -> Result:
    (one,) = [each for each in results if each.check == check and what in each.what]
    return one


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


# --- network ports ----------------------------------------------------------------------------------------

UP = {"flags": "0x1003", "operstate": "up", "device/vendor": "", "duplex": "full"}


def test_ports_are_read_from_sysfs(tmp_path: Path) -> None:
    ports = {
        "eth0": UP | {"speed": "100000", "carrier_down_count": "3", "statistics/rx_crc_errors": "7"},
        "eth1": UP | {"operstate": "down"},
        "eth2": UP | {"flags": "0x1002", "operstate": "down"},
        "br0": {"flags": "0x1003", "operstate": "up"},
        "eth3": UP | {"duplex": "half", "operstate": "unknown"},
        "lo": UP,
    }
    for name, files in ports.items():
        write(tmp_path / "net" / name, files)
    results = nics.nics(tmp_path / "net", tmp_path / "none")
    assert found(results, "nic.speed", "eth0").value == 100e9 / 8
    assert found(results, "nic.downs", "eth0").value == 3 and found(results, "nic.errors", "eth0").value == 7
    assert (
        found(results, "nic.link", "eth1").status == "fail"
        and "is down" in found(results, "nic.link", "eth1").why
    )
    assert found(results, "nic.link", "eth2").status == found(results, "nic.link", "br0").status == "skipped"
    assert found(results, "nic.duplex", "eth3").status == "fail"
    assert found(results, "nic.link", "eth3").status == "pass"  # its driver does not say
    assert not [each for each in results if each.what == "lo"]
    assert found(results, "infiniband.link").status == "skipped"


def test_infiniband_ports_too(tmp_path: Path) -> None:
    good = {
        "state": "4: ACTIVE",
        "phys_state": "5: LinkUp",
        "rate": "400 Gb/sec (4X NDR)",
        "counters/link_downed": "2",
    }
    write(tmp_path / "mlx5_0/ports/1", good | {"counters/symbol_error": "5", "counters/port_rcv_errors": "1"})
    write(tmp_path / "mlx5_1/ports/1", good | {"state": "1: DOWN", "phys_state": "2: Polling"})
    results = nics.nics(tmp_path / "none", tmp_path)
    assert found(results, "infiniband.speed", "mlx5_0:1").value == 50e9
    assert found(results, "infiniband.downs", "mlx5_0:1").value == 2
    assert found(results, "infiniband.errors", "mlx5_0:1").value == 6
    assert found(results, "infiniband.link", "mlx5_1:1").why == "is 1: DOWN, 2: Polling"


# --- GPUs -------------------------------------------------------------------------------------------------


class NVMLError(Exception):
    pass


class NotSupported(NVMLError):
    pass


class InvalidArgument(NVMLError):
    pass


def nvml(**changed: Any) -> Any:
    """An NVML with one GPU that is well, but for what is changed: name of a function -> its answer."""
    answers: dict[str, Any] = {
        "nvmlDeviceGetCount": 1,
        "nvmlDeviceGetTotalEccErrors": 0,
        "nvmlDeviceGetRemappedRows": (0, 0, 0, 0),
        "nvmlDeviceGetTemperature": 40,
        "nvmlDeviceGetTemperatureThreshold": 90,
        "nvmlDeviceGetPowerUsage": 120_000,
        "nvmlDeviceGetPowerManagementDefaultLimit": 700_000,
        "nvmlDeviceGetEnforcedPowerLimit": 700_000,
        "nvmlDeviceGetMaxClockInfo": 1980,
        "nvmlDeviceGetCurrentClocksEventReasons": 1,  # idle
        "nvmlDeviceGetNvLinkErrorCounter": 0,
    } | changed

    def function(answer: Any) -> Any:
        def ask(*arguments: Any) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer

        return ask

    def link(handle: Any, number: int) -> int:
        states = changed.get("links", [1] * 18)
        if number >= len(states):
            raise InvalidArgument
        return int(states[number])

    return SimpleNamespace(
        NVMLError=NVMLError,
        NVMLError_NotSupported=NotSupported,
        NVMLError_FunctionNotFound=NotSupported,
        NVMLError_InvalidArgument=InvalidArgument,
        NVML_MEMORY_ERROR_TYPE_UNCORRECTED=1,
        NVML_MEMORY_ERROR_TYPE_CORRECTED=0,
        NVML_VOLATILE_ECC=0,
        NVML_TEMPERATURE_GPU=0,
        NVML_TEMPERATURE_THRESHOLD_SLOWDOWN=1,
        NVML_CLOCK_SM=1,
        NVML_NVLINK_MAX_LINKS=36,
        nvmlDeviceGetHandleByIndex=function(changed.get("handle", "handle")),
        nvmlDeviceGetNvLinkState=link,
        **{name: function(answer) for name, answer in answers.items() if name.startswith("nvml")},
    )


def test_a_gpu_that_is_well_passes() -> None:
    results = gpus.read(nvml())
    assert verdict(results) == "pass"
    assert found(results, "gpu.nvlinks").value == 18 and found(results, "gpu.clock_most").value == 1.98e9
    assert found(results, "gpu.power").value == 120.0


@pytest.mark.parametrize(
    ("changed", "check", "status", "why"),
    [
        ({"nvmlDeviceGetRemappedRows": (0, 1, 1, 0)}, "gpu.remapping", "fail", "waits for a reset"),
        ({"nvmlDeviceGetRemappedRows": (0, 9, 0, 1)}, "gpu.remapping", "fail", "could not be replaced"),
        ({"nvmlDeviceGetTemperature": 91}, "gpu.temperature", "fail", "91 °C"),
        ({"nvmlDeviceGetEnforcedPowerLimit": 500_000}, "gpu.power_limit", "warn", "500 W of 700"),
        (
            {"nvmlDeviceGetCurrentClocksEventReasons": 0x48},
            "gpu.throttled",
            "warn",
            "hardware slowdown, hardware thermal",
        ),
        ({"links": [1] * 17 + [0]}, "gpu.nvlinks", "fail", "links 17 are down"),
        ({"handle": NVMLError("GPU is lost")}, "gpu.answers", "fail", "GPU is lost"),
    ],
)
def test_a_gpu_that_is_not_says_why(changed: dict[str, Any], check: str, status: str, why: str) -> None:
    result = found(gpus.read(nvml(**changed)), check)
    assert result.status == status and why in result.why


def test_what_a_gpu_does_not_support_is_left_out() -> None:
    results = gpus.read(
        nvml(nvmlDeviceGetRemappedRows=NotSupported(), nvmlDeviceGetTotalEccErrors=NotSupported())
    )
    assert not [each for each in results if "ecc" in each.check or "remap" in each.check]
    assert verdict(results) == "pass"


# --- Xid --------------------------------------------------------------------------------------------------

LOG = """\
[  100.000001] NVRM: Xid (PCI:0000:cb:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.
[ 9000.500000] NVRM: Xid (PCI:0000:10:00): 13, pid=77, name=python, Graphics SM Warp Exception
[ 9001.000000] NVRM: Xid (PCI:0000:10:00): 13, pid=77, name=python, Graphics Exception
[ 9002.000000] NVRM: Xid (PCI:0000:3b:00): 63, pid=1896, Row Remapper: New row marked for remapping
[ 9003.000000] NVRM: Xid (PCI:0000:3c:00): 43, pid=1, name=python, Ch 00000008
[ 9003.000000] NVRM: Xid (PCI:0000:3d:00): 999, pid=1
[ 9004.000000] usb 1-1: new device
"""


def test_xids_of_the_last_two_hours_count_and_older_ones_do_not() -> None:
    seen = xids.parse(LOG.splitlines())
    assert [each.code for each in seen] == [79, 13, 13, 63, 43, 999] and seen[0].device == "PCI:0000:cb:00"
    results = {each.what: each for each in xids.judge(seen, now=9010.0)}
    assert {what: each.status for what, each in results.items()} == {
        "PCI:0000:10:00 Xid 13": "warn",
        "PCI:0000:3b:00 Xid 63": "fail",  # Azure's list
        "PCI:0000:3c:00 Xid 43": "pass",
        "PCI:0000:3d:00 Xid 999": "warn",
    }
    assert results["PCI:0000:10:00 Xid 13"].value == 2
    (at_once,) = xids.judge(seen[:1], now=101.0)
    assert at_once.status == "fail" and at_once.why == "GPU has fallen off the bus: reboot"
    assert verdict(xids.judge([], now=1.0)) == "pass"


def test_each_of_azures_codes_fails_a_node_and_has_an_action() -> None:
    assert {code for code in xids.AZURE if code in xids.XIDS} == xids.AZURE
    assert {code for code, xid in xids.XIDS.items() if xid.fails} >= xids.AZURE | {95, 46, 109}
    assert not xids.XIDS[13].fails and not xids.XIDS[94].fails


# --- memory, disk, clock ----------------------------------------------------------------------------------


def test_copy_and_triad_are_counted_as_stream_does() -> None:
    copy, triad = memory.bandwidths(1 << 16, 0.0)
    assert 1e8 < copy < 1e13 and 1e8 < triad < 1e13


def test_a_disk_is_written_read_and_left_as_it_was(tmp_path: Path) -> None:
    write_rate, read_rate = disk.rates(tmp_path, 8 << 20)
    assert write_rate.value and read_rate.value and read_rate.status == "pass"
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_became_read_only_is_named() -> None:
    mounts = (
        "/dev/sda1 / ext4 rw,relatime 0 0\n/dev/sdb1 /data xfs ro,relatime 0 0\n"
        "/dev/loop0 /snap squashfs ro 0 0\noverlay /x overlay ro 0 0\ntmpfs /y tmpfs ro 0 0\n"
    )
    assert disk.read_only(mounts) == ["/data"]


def test_the_offset_of_a_clock_is_that_of_the_shortest_exchange() -> None:
    # It is 2.0 ahead: sent at 10.0, there at 10.1 (its 12.1), back at 10.2; the other took longer on one way.
    assert clock.offset([(10.0, 12.1, 10.2), (20.0, 22.9, 21.0)]) == pytest.approx((2.0, 0.1))


def test_a_clock_that_goes_back_or_jumps_is_found() -> None:
    steady = iter([0.0, 0.2, 0.1, 0.3])
    assert clock.even(lambda: 0.0, lambda: next(steady), 0.25).status == "fail"
    steady, wall = iter([0.0, 0.2, 0.3]), iter([100.0, 105.3])
    jumped = clock.even(lambda: next(wall), lambda: next(steady), 0.25)
    assert jumped.value == pytest.approx(5.0)


@pytest.mark.parametrize(("state", "status"), [(0, "pass"), (1, "pass"), (5, "warn"), (None, "skipped")])
def test_the_kernel_knows_whether_its_clock_is_kept(state: int | None, status: str) -> None:
    assert clock.synchronised(state).status == status


def test_a_clock_source_that_the_kernel_fell_back_to_is_a_warning(tmp_path: Path) -> None:
    write(tmp_path, {"good": "tsc\n", "bad": "hpet\n"})
    assert clock.source(tmp_path / "good").status == "pass"
    assert clock.source(tmp_path / "bad").status == "warn"
    assert clock.source(tmp_path / "none").status == "skipped"
