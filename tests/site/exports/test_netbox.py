"""NetBox's files beside its own import forms, and each file beside those that are loaded before it."""

from collections import Counter, defaultdict

import yaml

from colossi.site.exports.netbox import netbox_files

from .small import names, rows, small

# What the forms of NetBox v4.6.8 take (netbox/dcim/forms/bulk_import.py, object_import.py), and must have.
FORMS = {
    "01-sites.csv": ("name slug status region group tenant facility description", "name slug status"),
    "02-locations.csv": ("site parent name slug status tenant facility description", "site name slug status"),
    "03-racks.csv": (
        "site location group name facility_id tenant status role rack_type form_factor serial asset_tag "
        "width u_height desc_units outer_width outer_height outer_depth outer_unit mounting_depth airflow "
        "weight max_weight weight_unit description",
        "site name status width u_height",
    ),
    "04-manufacturers.csv": ("name slug description", "name slug"),
    "05-device-roles.csv": ("name slug parent color vm_role config_template description", "name slug color"),
    "07-devices.csv": (
        "name role tenant manufacturer device_type platform serial asset_tag status site location rack "
        "position face latitude longitude parent device_bay airflow cluster description",
        "role manufacturer device_type status site",
    ),
    "08-cables.csv": (
        "side_a_site side_a_device side_a_power_panel side_a_type side_a_name side_b_site side_b_device "
        "side_b_power_panel side_b_type side_b_name type status profile tenant bundle label color length "
        "length_unit description",
        "side_a_type side_a_name side_b_type side_b_name",
    ),
    "interfaces.csv": (
        "device name label parent bridge lag type speed duplex enabled mgmt_only",
        "device name type",
    ),
}
CABLE_TYPES = {"dac-passive", "aoc", "smf", "cat6"}  # of NetBox's CableTypeChoices
INTERFACE_TYPES = {"infiniband-ndr", "1000base-t"}  # of InterfaceTypeChoices, for the QM9700 and the SN2201


def test_columns_are_those_of_the_forms() -> None:
    files = netbox_files(small(), names())
    assert set(files) == {*FORMS, "06-device-types.yaml"}
    for name, (allowed, required) in FORMS.items():
        header = files[name].split("\n", 1)[0].split(",")
        assert set(header) <= set(allowed.split()), name
        assert set(header) >= set(required.split()), name


def test_each_file_refers_to_what_was_loaded_before() -> None:
    files = netbox_files(small(), names())
    table = {name: rows(text) for name, text in files.items() if name.endswith(".csv")}
    types = {each["model"]: each for each in yaml.safe_load_all(files["06-device-types.yaml"])}
    sites = {row["name"] for row in table["01-sites.csv"]}
    halls = {(row["site"], row["name"]) for row in table["02-locations.csv"]}
    racks = {(row["site"], row["location"], row["name"]) for row in table["03-racks.csv"]}
    makers = {row["name"] for row in table["04-manufacturers.csv"]}
    roles = {row["name"] for row in table["05-device-roles.csv"]}
    devices = table["07-devices.csv"]
    assert {row["site"] for row in table["02-locations.csv"]} <= sites
    assert {(site, hall) for site, hall, _ in racks} <= halls
    assert {each["manufacturer"] for each in types.values()} <= makers
    assert len(devices) == len(small().devices) == len({row["name"] for row in devices})
    taken: dict[tuple[str, int], str] = {}
    heights = {row["name"]: int(row["u_height"]) for row in table["03-racks.csv"]}
    for row in devices:
        assert row["role"] in roles and row["manufacturer"] in makers
        assert (row["site"], row["location"], row["rack"]) in racks
        kind = types[row["device_type"]]
        if row["position"]:
            for unit in range(int(row["position"]), int(row["position"]) + kind["u_height"]):
                assert unit <= heights[row["rack"]]
                assert taken.setdefault((row["rack"], unit), row["name"]) == row["name"]


def test_a_cable_ends_in_interfaces_that_its_devices_come_with() -> None:
    files = netbox_files(small(), names())
    types = {each["model"]: each for each in yaml.safe_load_all(files["06-device-types.yaml"])}
    of_type = {name: {each["name"] for each in kind["interfaces"]} for name, kind in types.items()}
    model = {row["name"]: row["device_type"] for row in rows(files["07-devices.csv"])}
    ends: Counter[tuple[str, str]] = Counter()
    labels = set()
    lengths = defaultdict(set)
    for row in rows(files["08-cables.csv"]):
        for side in ("a", "b"):
            device, port = row[f"side_{side}_device"], row[f"side_{side}_name"]
            assert port in of_type[model[device]], (device, port)
            assert row[f"side_{side}_type"] == "dcim.interface"
            ends[device, port] += 1
        labels.add(row["label"])
        lengths[row["type"]].add(float(row["length"]))
    assert max(ends.values()) == 1  # NetBox refuses a second cable on an interface
    assert len(labels) == len(small().cables)
    assert set(lengths) <= CABLE_TYPES and "cat6" in lengths
    listed = [(row["device"], row["name"]) for row in rows(files["interfaces.csv"])]
    assert sorted(listed) == sorted(ends)
    # By hand: a DGX H100 has eight ports for compute, one for storage, one for management.
    dgx = [(each["name"], each["type"]) for each in types["DGX-H100"]["interfaces"]]
    assert dgx[:8] == [(f"nic{port}", "infiniband-ndr") for port in range(8)]
    assert [name for name, _ in dgx[8:]] == ["storage0", "mgmt0"]
    assert types["QM9700 leaf"]["interfaces"][63]["name"] == "p64"
