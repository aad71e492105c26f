"""
A construction plan in the formats of those who build: MS Project XML, iCalendar, CSV, and the chart.

MS Project's XML is that of Project 2003 and later (namespace schemas.microsoft.com/project): tasks under a
summary for each group, pinned to their planned dates, with links, crews and the working calendar. iCalendar
is RFC 5545, in local time: milestones, and everything that is not done rack by rack.
"""

import csv
import io
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from colossi.files import write_whole
from colossi.site.critical import critical
from colossi.site.project import Task
from colossi.site.scheduling import Plan
from colossi.terminal.gantt import write_page

SPACE = "http://schemas.microsoft.com/project"
FINISH_TO_START, NO_EARLIER = "1", "4"
LONGEST = 73  # octets of a line of iCalendar, before its end


def write_files(plan: Plan, folder: Path) -> None:
    """plan.xml, plan.ics, plan.csv and plan.html."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "plan.xml", project_xml(plan))
    write_whole(folder / "plan.ics", calendar_of(plan))
    write_whole(folder / "plan.csv", table_of(plan))
    write_page(plan, folder / "plan.html")


def moments(plan: Plan, task: Task) -> tuple[datetime, datetime]:
    """Begin and end on the calendar; a task that takes no time is over when it begins."""
    start = plan.schedule.starts[task.name]
    if not task.duration:
        return plan.calendar.end(start), plan.calendar.end(start)
    return plan.calendar.moment(start), plan.calendar.end(start + task.duration)


def table_of(plan: Plan) -> str:
    """A row for each task, in order of time; the floats are hours that it may slip (site/critical.py)."""
    slips = critical(plan.project, plan.schedule)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    what, when, needs = ("task", "kind", "group"), ("start", "end", "hours"), ("crews", "kilowatts", "after")
    rows.writerow((*what, *when, *needs, "path_float", "float"))
    starts = plan.schedule.starts
    for task in sorted(plan.project.tasks, key=lambda task: (starts[task.name], task.name)):
        begin, end = moments(plan, task)
        crews = " ".join(f"{number} {trade}" for trade, number in task.uses.items())
        after = "; ".join(name for name, _ in task.after)
        takes = sum(task.holds.values())
        lasts = (begin.isoformat(), end.isoformat(), task.duration)
        slip = (slips.path_float[task.name], slips.resource_float[task.name])
        rows.writerow((task.name, task.kind, task.group, *lasts, crews, takes, after, *slip))
    return text.getvalue()


def calendar_of(plan: Plan) -> str:
    """Milestones, and tasks of pods, zones, halls and the site, as events."""
    lines = ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//colossi//schedule//EN"]
    for each in plan.milestones:
        moment = (plan.calendar.moment if each.begins else plan.calendar.end)(each.hour)
        lines += _event(plan, f"milestone {each.name}", moment, moment)
    kinds = plan.construction.kinds
    for task in plan.project.tasks:
        if task.duration and (task.kind not in kinds or kinds[task.kind].per != "rack"):
            lines += _event(plan, task.name, *moments(plan, task))
    return "".join(f"{_folded(line)}\r\n" for line in [*lines, "END:VCALENDAR"])


def _event(plan: Plan, name: str, begin: datetime, end: datetime) -> Iterator[str]:
    words = name.replace("\\", "\\\\").replace(";", "\\;").replace(",", "\\,")
    yield "BEGIN:VEVENT"
    yield f"UID:{plan.spec.name}-{name.replace(' ', '-').replace(',', '')}@colossi"
    yield f"DTSTAMP:{plan.construction.start:%Y%m%d}T000000Z"
    yield f"DTSTART:{begin:%Y%m%dT%H%M%S}"
    yield f"DTEND:{end:%Y%m%dT%H%M%S}"
    yield f"SUMMARY:{words}"
    yield "END:VEVENT"


def _folded(line: str) -> str:
    """Long lines go on in the next, after a blank."""
    data, parts = line.encode(), []
    while len(data) > LONGEST:
        cut = LONGEST
        while data[cut] & 0xC0 == 0x80:  # not within a character
            cut -= 1
        parts.append(data[:cut].decode())
        data = data[cut:]
    return "\r\n ".join([*parts, data.decode()])


def project_xml(plan: Plan) -> str:
    """The document for MS Project."""
    tasks, starts = plan.project.tasks, plan.schedule.starts
    hours = plan.construction.hours_a_day
    root = Element("Project", xmlns=SPACE)
    _texts(root, SaveVersion="14", Name=plan.spec.name, ScheduleFromStart="1")
    _texts(root, StartDate=_moment(plan.calendar.moment(0)), CalendarUID="1")
    _texts(root, MinutesPerDay=str(60 * hours), MinutesPerWeek=str(60 * plan.calendar.hours_a_week))
    root.append(_calendars(plan))
    listed = SubElement(root, "Tasks")
    uid: dict[str, int] = {}
    groups: dict[str, list[Task]] = defaultdict(list)
    for task in tasks:
        groups[task.group].append(task)
    order = sorted(groups, key=lambda group: min(starts[task.name] for task in groups[group]))
    number = 0
    for group in order:
        number += 1  # the summary's
        for task in groups[group]:
            number += 1
            uid[task.name] = number
    for outline, group in enumerate(order, 1):
        inner = groups[group]
        begin = min(moments(plan, task)[0] for task in inner)
        end = max(moments(plan, task)[1] for task in inner)
        first = min(uid[task.name] for task in inner) - 1
        length = max(starts[t.name] + t.duration for t in inner) - min(starts[t.name] for t in inner)
        _task(listed, first, group, f"{outline}", 1, begin, end, length, summary=True)
        for at, task in enumerate(inner, 1):
            element = _task(
                listed, uid[task.name], task.name, f"{outline}.{at}", 2, *moments(plan, task), task.duration
            )
            for name, lag in task.after:
                link = SubElement(element, "PredecessorLink")
                _texts(link, PredecessorUID=str(uid[name]), Type=FINISH_TO_START, CrossProject="0")
                _texts(link, LinkLag=str(lag * 600), LagFormat="5")  # tenths of minutes, shown as hours
    _resources(root, plan, uid)
    indent(root, " ")
    return '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n' + tostring(root, "unicode") + "\n"


def _task(
    listed: Element,
    uid: int,
    name: str,
    outline: str,
    level: int,
    begin: datetime,
    end: datetime,
    hours: int,
    summary: bool = False,
) -> Element:
    element = SubElement(listed, "Task")
    _texts(element, UID=str(uid), ID=str(uid), Name=name, Type="1", IsNull="0")
    _texts(element, OutlineNumber=outline, OutlineLevel=str(level))
    _texts(element, Start=_moment(begin), Finish=_moment(end), Duration=f"PT{hours}H0M0S", DurationFormat="5")
    _texts(element, Milestone="0" if hours else "1", Summary="1" if summary else "0")
    if not summary:
        _texts(element, ConstraintType=NO_EARLIER, CalendarUID="-1", ConstraintDate=_moment(begin))
    return element


def _calendars(plan: Plan) -> Element:
    """One: the hours of each day of the week; MS Project counts days from Sunday, 1."""
    calendars = Element("Calendars")
    calendar = SubElement(calendars, "Calendar")
    _texts(calendar, UID="1", Name="work", IsBaseCalendar="1", BaseCalendarUID="-1")
    days = SubElement(calendar, "WeekDays")
    begin = plan.calendar.first_hour
    until = (begin + plan.calendar.hours_a_day) % 24
    for number in range(1, 8):
        works = (number - 2) % 7 < plan.calendar.days_a_week
        day = SubElement(days, "WeekDay")
        _texts(day, DayType=str(number), DayWorking="1" if works else "0")
        if works:
            times = SubElement(SubElement(day, "WorkingTimes"), "WorkingTime")
            _texts(times, FromTime=f"{begin:02d}:00:00", ToTime=f"{until:02d}:00:00")
    return calendars


def _resources(root: Element, plan: Plan, uid: dict[str, int]) -> None:
    """Crews and docks, and who does what; a crew is a unit."""
    resources = SubElement(root, "Resources")
    number: dict[str, int] = {}
    for at, (trade, count) in enumerate(plan.construction.crews.model_dump().items(), 1):
        number[trade] = at
        element = SubElement(resources, "Resource")
        _texts(element, UID=str(at), ID=str(at), Name=trade, Type="1", MaxUnits=f"{count}.00")
    assignments, at = SubElement(root, "Assignments"), 0
    for task in plan.project.tasks:
        for trade, count in task.uses.items():
            at += 1
            begin, end = moments(plan, task)
            element = SubElement(assignments, "Assignment")
            _texts(element, UID=str(at), TaskUID=str(uid[task.name]), ResourceUID=str(number[trade]))
            _texts(element, Finish=_moment(end), Start=_moment(begin), Units=f"{count}.00")
            SubElement(element, "Work").text = f"PT{count * task.duration}H0M0S"


def _moment(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")


def _texts(element: Element, **texts: str) -> None:
    for name, text in texts.items():
        SubElement(element, name).text = text
