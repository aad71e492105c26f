# ruff: noqa: E501 (a row of a table is a line)
"""A small site's construction: the plan obeys all rules, power is chosen and priced as by hand, files are read back."""

import csv
import io
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import icalendar
import pytest

from colossi.errors import BadInput
from colossi.site.bridging import POWER, carried, firm_feeds, supply
from colossi.site.cluster import design as design_of
from colossi.site.construction import construction, kilowatts, workdays
from colossi.site.design import Feed
from colossi.site.limits import hours_by_reason
from colossi.site.milestones import FIRST_RACK, FIRST_TRAINING
from colossi.site.options import choices, chosen
from colossi.site.project import Project
from colossi.site.scheduling import Plan, plan
from colossi.spec import Spec, read_spec
from colossi.terminal import plan_files
from colossi.terminal.gantt import page
from colossi.terminal.schedule import as_json

EXAMPLES = Path(__file__).parents[2] / "examples"
SITE = EXAMPLES / "site.toml"

# The second feed comes after a year, and either is too small; what can be had meanwhile.
LATE = [
    "site.redundancy=N",
    'site.feeds=[{name="a", megawatts=0.4}, {name="b", megawatts=0.6, day=1000.0}]',
    'construction.tasks.placing={after=["delivery", "busways", "mains"], source="a test"}',
    'construction.tasks.switchgear={hours=[0, 0, 0], source="a test"}',
    'construction.tasks.UPS={hours=[0, 0, 0], source="a test"}',
    'construction.offers.turbine={kind="turbines", megawatts=0.5, lead_days=100, dollars_a_day=1000,'
    ' fuel=50.0, source="a test"}',
    'construction.offers.battery={kind="batteries", megawatts=0.1, lead_days=80, dollars=50000,'
    ' source="a test"}',
]


def spec_with(*overrides: str) -> Spec:
    return read_spec(SITE, list(overrides), needs=("site", "construction"))


@pytest.fixture(scope="module")
def planned() -> Plan:
    return plan(spec_with(*LATE), seconds=2.0)


def check(project: Project, starts: dict[str, int]) -> None:
    """Every rule of a project, hour by hour, without a line of the solver's."""
    tasks = {task.name: task for task in project.tasks}
    for task in project.tasks:
        assert starts[task.name] >= task.earliest
        for name, lag in task.after:
            assert starts[task.name] >= starts[name] + tasks[name].duration + lag, (task.name, name)
    end = max(starts[name] + task.duration for name, task in tasks.items())
    for resource in project.resources:
        there = [0] * (end + 1)
        for hour, amount in resource.steps:
            for at in range(hour, end + 1):
                there[at] = amount
        for task in project.tasks:
            begin, done = starts[task.name], starts[task.name] + task.duration
            for at in range(begin, done):
                there[at] -= task.uses.get(resource.name, 0)
            if task.holds.get(resource.name):
                for at in range(begin, end + 1):
                    there[at] -= task.holds[resource.name]
            if task.gives.get(resource.name):
                for at in range(done, end + 1):
                    there[at] += task.gives[resource.name]
        assert min(there) >= 0, resource.name


def test_every_rack_goes_through_all_steps_and_all_power_is_held(planned: Plan) -> None:
    project, racks = planned.project, planned.design.racks
    for kind in ("placing", "piping", "cabling", "power-on"):
        assert sum(task.kind == kind for task in project.tasks) == len(racks)
    held = sum(task.holds.get(POWER, 0) for task in project.tasks)
    assert held == kilowatts(planned.design, 1.1).sum()
    assert held >= racks.watts.sum() * 1.1 / 1e3
    assert planned.calendar.moment(0).isoformat() == "2026-01-05T07:00:00"


def test_the_plan_obeys_every_rule(planned: Plan) -> None:
    check(planned.project, planned.schedule.starts)
    assert planned.schedule.bound <= planned.schedule.makespan


def test_every_choice_obeys_every_rule(planned: Plan) -> None:
    for choice in planned.choices:
        check(choice.project, choice.starts)


def test_a_rack_has_power_only_after_its_water_and_cables(planned: Plan) -> None:
    starts = planned.schedule.starts
    ends = {task.name: starts[task.name] + task.duration for task in planned.project.tasks}
    for task in planned.project.tasks:
        if task.kind == "power-on":
            rack = task.name.removeprefix("power-on ")
            assert starts[task.name] >= max(
                ends[f"{kind} {rack}"] for kind in ("piping", "cabling", "placing")
            )


def test_the_critical_chain_accounts_for_every_hour(planned: Plan) -> None:
    for each in planned.milestones:
        hours = hours_by_reason(planned.links[each.name], 0)
        end = each.hour if not each.begins else each.hour + 1  # its placing takes an hour
        assert sum(hours.values()) == end


def test_turbines_carry_what_their_steps_and_batteries_allow() -> None:
    spec = spec_with(*LATE).construction
    assert spec is not None
    turbine, battery = spec.offers["turbine"], spec.offers["battery"]
    # a quarter of 500 kW at once, of a load that swings by 37.5%: 333 kW; with 100 kW of batteries min(500, 600)
    assert carried([turbine], spec) == pytest.approx(500e3 * 0.25 / 0.375)
    assert carried([turbine, battery], spec) == 500e3
    assert carried([battery], spec) == 0


def test_power_comes_step_by_step() -> None:
    spec = spec_with(*LATE).construction
    assert spec is not None
    calendar = workdays(spec)
    given = supply([Feed("a", 4e5, 0.0), Feed("b", 6e5, 1000.0)], spec, ("turbine", "battery"), calendar)
    assert given.steps == ((0, 400), (calendar.hour_at(1000), 1000))
    brings = {
        task.name: task.gives.get(POWER, 0) for task in given.tasks if task.name.startswith("energising")
    }
    assert brings == {
        "energising battery": 0,
        "energising turbine": 500,
    }  # the battery comes first, for nothing yet


def test_pairs_of_feeds_count_once() -> None:
    feeds = [Feed("a", 2e6, 0.0), Feed("b", 1e6, 60.0), Feed("c", 1e6, 30.0), Feed("d", 1e6, 30.0)]
    assert [(f.watts, f.day) for f in firm_feeds(feeds, "2N")] == [(1e6, 0.0), (1e6, 30.0)]
    assert [f.name for f in firm_feeds(feeds, "N+1")] == ["b", "c", "d"]
    assert firm_feeds(feeds, "N") == feeds


def test_offers_are_priced_and_chosen_as_by_hand(planned: Plan) -> None:
    by = {choice.offers: choice for choice in planned.choices}
    need = planned.kilowatts
    assert (
        need == int(kilowatts(planned.design, 1.1).sum()) and 733 < need < 900
    )  # kW: one turbine alone is too little
    waiting, alone, both = by[()], by["turbine",], by["turbine", "battery"]
    assert waiting.days > 1000 and alone.days > 1000 and both.days < 500
    assert by["battery",].days == waiting.days and by["battery",].dollars == 50_000
    # rented from day 100 until the second feed comes on day 1000 (its first hour of work), and no watt before
    spec = planned.construction
    rent = 1000 * (
        planned.calendar.day(planned.calendar.hour_at(1000))
        - planned.calendar.day(planned.calendar.most_within(2400))
    )
    load = sorted(
        (both.starts[task.name], task.holds[POWER]) for task in both.project.tasks if task.holds.get(POWER)
    )
    megawatt_hours, held, calendar = 0.0, 0, planned.calendar
    until = calendar.day(calendar.hour_at(1000))
    for at, (hour, more) in enumerate(load):
        held += more
        after = calendar.day(load[at + 1][0]) if at + 1 < len(load) else until
        megawatt_hours += 24 * (after - calendar.day(hour)) * max(held - 400, 0) / 1e3
    assert both.dollars == pytest.approx(50_000 + rent + 50 * megawatt_hours)
    assert spec.target is None
    best, why = chosen(planned.choices)
    assert best is max(planned.choices, key=lambda each: each.gain - each.dollars)
    assert best.offers == ("turbine", "battery") and why == "worth most after its cost"


def test_what_earlier_gpus_are_worth_is_their_rent(planned: Plan) -> None:
    both, waiting = (next(c for c in planned.choices if c.offers == o) for o in (("turbine", "battery"), ()))
    days = 0.0
    for choice, sign in ((waiting, 1), (both, -1)):
        ends = {
            t.group: choice.starts[t.name] + t.duration
            for t in choice.project.tasks
            if t.kind == "acceptance"
        }
        for pod in range(planned.design.pods):
            days += sign * 64 * 8 / planned.design.pods * planned.calendar.day(ends[f"pod-{pod:03d}"])
    price = planned.design.node.gpu.price * 86400
    assert both.gain == pytest.approx(days * price, rel=0.2)  # pods are not all of one size


def test_a_target_takes_the_cheapest_that_meets_it() -> None:
    spec = spec_with(*LATE, "construction.target=2029-12-31")
    design = design_of(spec)
    found = choices(design, spec.construction, 1.1, 2.0)  # type: ignore[arg-type]
    best, why = chosen(found)
    assert best.offers == () and best.dollars == 0 and why == "the cheapest that meets the target"


def test_more_deliveries_do_not_make_it_longer() -> None:
    slow, fast = (
        chosen_days(spec_with(*LATE, f"construction.deliveries.racks_a_week={rate}")) for rate in (2.0, 20.0)
    )
    assert fast < slow


def chosen_days(spec: Spec) -> float:
    return chosen(choices(design_of(spec), spec.construction, 1.1, 2.0))[0].days  # type: ignore[arg-type]


def test_bundles_of_racks_are_fewer_tasks() -> None:
    spec = spec_with(*LATE, "construction.racks_per_task=4")
    assert spec.construction is not None
    design = design_of(spec)
    project = construction(
        design,
        spec.construction,
        1.1,
        supply(design.feeds, spec.construction, (), workdays(spec.construction)),
    )
    placing = [task for task in project.tasks if task.kind == "placing"]
    assert len(placing) < len(design.racks) / 2
    assert sum(task.duration for task in placing) == len(design.racks)  # an hour each, one after another


REFUSED = {
    "construction.tasks.pipping={hours=[1,2,3], source='x'}": "tasks.pipping is no kind of task: did you mean 'piping'",
    "construction.tasks.piping={after=['placeing'], source='x'}": "tasks.piping.after has 'placeing', which is no kind of task: did you mean 'placing'",
    "construction.tasks.placing={after=['cabling'], source='x'}": "wait in a circle: 'placing' waits for 'cabling' waits for 'placing'",
    "construction.tasks.piping={hours=[3,2,4], source='x'}": "tasks.piping.hours = [3, 2, 4] contradict each other: give low, likely and high, in this order",
    "construction.target=2025-01-01": "construction.target = 2025-01-01 is not after start = 2026-01-05",
    "construction.crews.riggers=0": "construction.crews.riggers = 0: give a whole number, at least 1",
    "construction.crews.rigers=2": "did you mean riggers?",
    "construction.start=tomorrow": 'construction.start = "tomorrow": give a date, as 2024-05-03',
    "construction.offers.t={kind='turbines', megawatts=1.0, source='x'}": "construction.offers.t.lead_days is missing: give the days until it is on the site",
    "construction.offers.t={kind='turbine', megawatts=1.0, source='x'}": 'construction.offers.t.kind = "turbine": give "turbines" or "batteries" or "grid"',
}


@pytest.mark.parametrize("override", REFUSED)
def test_what_cannot_be_is_refused_in_a_line(override: str) -> None:
    with pytest.raises(BadInput) as refused:
        spec_with(override)
    assert REFUSED[override] in refused.value.message and "\n" not in refused.value.message


def test_power_that_never_suffices_says_by_how_much() -> None:
    overrides = [*LATE[:1], 'site.feeds=[{name="a", megawatts=0.9}]']
    spec = spec_with(*overrides)
    design = design_of(spec)
    need = kilowatts(design, 1.1).sum() / 1e3
    smaller = design.__class__(**{**vars(design), "feeds": (Feed("a", 0.5e6, 0.0),)})
    with pytest.raises(
        BadInput, match=f"power never reaches .* {need:.1f} MW, .* 0.5 MW: {need - 0.5:.1f} MW too few"
    ):
        choices(smaller, spec.construction, 1.1, 2.0)  # type: ignore[arg-type]


def test_the_table_has_every_task_with_its_dates(planned: Plan) -> None:
    rows = list(csv.DictReader(io.StringIO(plan_files.table_of(planned))))
    assert {row["task"] for row in rows} == {task.name for task in planned.project.tasks}
    for row in rows:
        assert row["start"] <= row["end"]
        assert int(row["start"][11:13]) >= 7 and int(row["end"][11:13]) <= 17
        assert 0 <= int(row["float"]) <= int(row["path_float"])
    ends = max(rows, key=lambda row: row["end"])
    assert ends["float"] == ends["path_float"] == "0"


def test_calendars_read_the_events(planned: Plan) -> None:
    events = icalendar.Calendar.from_ical(plan_files.calendar_of(planned)).walk("VEVENT")
    by = {str(event["SUMMARY"]): event for event in events}
    first = next(each for each in planned.milestones if each.name == FIRST_RACK)
    assert by[f"milestone {FIRST_RACK}"]["DTSTART"].dt == planned.calendar.moment(first.hour)
    assert len({str(event["UID"]) for event in events}) == len(events)
    burn = by["burn-in pod-000"]
    assert (burn["DTEND"].dt - burn["DTSTART"].dt).total_seconds() >= 60 * 3600


SPACE = {"p": "http://schemas.microsoft.com/project"}


def test_ms_project_has_tasks_links_and_calendar(planned: Plan) -> None:
    root = ElementTree.fromstring(plan_files.project_xml(planned).encode())
    tasks = root.findall("p:Tasks/p:Task", SPACE)
    uids = [text(task, "UID") for task in tasks]
    assert len(set(uids)) == len(uids) and uids == [str(n) for n in range(1, len(uids) + 1)]
    real = {text(task, "Name"): task for task in tasks if text(task, "Summary") == "0"}
    assert set(real) == {task.name for task in planned.project.tasks}
    names = {text(task, "UID"): text(task, "Name") for task in tasks}
    for task in planned.project.tasks:
        links = real[task.name].findall("p:PredecessorLink", SPACE)
        assert {names[text(link, "PredecessorUID")] for link in links} == {name for name, _ in task.after}
    days = root.findall("p:Calendars/p:Calendar/p:WeekDays/p:WeekDay", SPACE)
    assert [text(day, "DayWorking") for day in days] == ["0", "1", "1", "1", "1", "1", "0"]  # from Sunday


def text(element: ElementTree.Element, name: str) -> str:
    found = element.find(f"p:{name}", SPACE)
    assert found is not None and found.text is not None
    return found.text


READER = """
import org.mpxj.*; import org.mpxj.reader.*;
public class Reader {
  public static void main(String[] a) throws Exception {
    ProjectFile p = new UniversalProjectReader().read(a[0]);
    for (Task t : p.getTasks())
      System.out.println(t.getName()+"|"+t.getStart()+"|"+t.getFinish()+"|"+t.getDuration()+"|"+t.getPredecessors().size());
  }
}
"""


@pytest.mark.skipif(
    not (find_spec("mpxj") and shutil.which("java")), reason="needs the mpxj package and java"
)
def test_mpxj_reads_every_task_with_its_dates_and_links(planned: Plan, tmp_path: Path) -> None:
    spec = find_spec("mpxj")
    assert spec is not None and spec.origin is not None
    (tmp_path / "Reader.java").write_text(READER)
    (tmp_path / "plan.xml").write_text(plan_files.project_xml(planned))
    jars = str(Path(spec.origin).parent / "lib" / "*")
    command = ["java", "-cp", jars, str(tmp_path / "Reader.java"), str(tmp_path / "plan.xml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    read = {line.split("|")[0]: line.split("|")[1:] for line in done.stdout.splitlines()}
    for task in planned.project.tasks:
        begin, end = plan_files.moments(planned, task)
        start, finish, duration, links = read[task.name]
        assert (start, finish) == (begin.isoformat(timespec="minutes"), end.isoformat(timespec="minutes"))
        assert duration == f"{task.duration}.0h" and int(links) == len(task.after)


def test_the_page_has_a_row_for_every_pod_and_all_tasks(planned: Plan) -> None:
    html = page(planned)
    for pod in range(planned.design.pods):
        assert f'data-group="pod-{pod:03d}"' in html
    assert all(f'"{task.name}"' in html for task in planned.project.tasks)


def test_json_says_what_people_read(planned: Plan) -> None:
    facts = as_json(planned)
    assert facts["chosen"] == ["turbine", "battery"] and len(facts["choices"]) == 4
    first, training = (
        next(each["day"] for each in facts["milestones"] if each["name"] == name)
        for name in (FIRST_RACK, FIRST_TRAINING)
    )
    assert facts["days_from_first_rack_to_training"] == pytest.approx(training - first) and training > first
    assert facts["bound_hours"] <= facts["makespan_hours"]
