"""
A construction plan as a page: a chart with a row for each pod, hall and order, and curves of what is in use.

Of a pod the chart shows kinds of tasks, from the first to the last rack's; a click on a row lists its tasks.
All is in one file of HTML with nothing from elsewhere. Places are percentages of the time, so that zooming is
a width.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from html import escape
from pathlib import Path

from colossi.files import write_whole
from colossi.site.bridging import POWER
from colossi.site.critical import curve_of
from colossi.site.project import Task
from colossi.site.scheduling import Plan
from colossi.terminal.schedule import choice_name, date_of

# kind -> colour; what is not here is grey
COLOURS = {
    "power": "#b45309",
    "permits": "#64748b",
    "clearing": "#a8a29e",
    "busways": "#f59e0b",
    "mains": "#0ea5e9",
    "plant": "#0284c7",
    "flushing": "#7dd3fc",
    "systems test": "#c084fc",
    "delivery": "#78350f",
    "placing": "#365314",
    "piping": "#0e7490",
    "cabling": "#4d7c0f",
    "power-on": "#dc2626",
    "firmware": "#7c3aed",
    "burn-in": "#fb923c",
    "acceptance": "#16a34a",
    "launch": "#be185d",
    "hand-over": "#15803d",
}
STYLE = """
body{font:13px system-ui,sans-serif;margin:1rem;color:#111;background:#fff}
h1{font-size:1.2rem}h2{font-size:1rem;margin:1.2rem 0 .3rem}
#bar{margin:.5rem 0}#bar i{display:inline-block;width:.8rem;height:.8rem;margin:0 .2rem 0 .8rem}
#chart{overflow:auto;max-height:75vh;border:1px solid #ccc}#wide{position:relative;min-width:100%}
.row{display:flex;height:15px;cursor:pointer}.row:hover{background:#eef}
.row b{position:sticky;left:0;width:11rem;flex:none;background:#fff;font-weight:400;font-size:11px;z-index:2;
overflow:hidden;white-space:nowrap}
.row div,#axis div,.curve div{position:relative;flex:1}
.row i{position:absolute;top:2px;height:11px;min-width:1px}
.row.chain b{color:#b91c1c}
#axis{display:flex;position:sticky;top:0;height:18px;background:#fff;z-index:3;border-bottom:1px solid #ccc}
#axis b{position:sticky;left:0;width:11rem;flex:none;background:#fff;z-index:4}
#axis span{position:absolute;border-left:1px solid #999;padding-left:2px;font-size:11px;white-space:nowrap}
.inner{padding-left:11rem;font-size:11px}.inner td{padding:0 .6rem 0 0}
.curve{display:flex}.curve b{width:11rem;flex:none;font-weight:400}
.curve svg{width:100%;height:48px;display:block}
td,th{text-align:left;padding:.1rem .8rem .1rem 0}
"""
SCRIPT = """
const tasks=JSON.parse(document.getElementById('tasks').textContent);
document.querySelectorAll('.row').forEach(row=>row.onclick=()=>{
 const next=row.nextElementSibling;
 if(next&&next.className==='inner'){next.remove();return}
 const box=document.createElement('div');box.className='inner';const table=document.createElement('table');
 for(const [name,begin,end,who] of tasks[row.dataset.group]){
  const line=table.insertRow();for(const text of [name,begin,end,who])line.insertCell().textContent=text}
 box.append(table);row.after(box)});
document.getElementById('zoom').oninput=e=>{document.getElementById('wide').style.width=e.target.value+'%'};
document.getElementById('find').oninput=e=>{const word=e.target.value.toLowerCase();
 document.querySelectorAll('.row').forEach(row=>{
  row.style.display=row.dataset.group.toLowerCase().includes(word)?'':'none'})};
"""


def write_page(plan: Plan, path: Path) -> None:
    """The page."""
    write_whole(path, page(plan))


def page(plan: Plan) -> str:
    """HTML, complete."""
    axis = _Axis(plan)
    groups: dict[str, list[Task]] = defaultdict(list)
    for task in plan.project.tasks:
        groups[task.group if task.group != "site" else task.name].append(task)
    starts = plan.schedule.starts
    order = sorted(
        groups, key=lambda g: (g.startswith(("pod-", "common-")), min(starts[t.name] for t in groups[g]))
    )
    legend = "".join(f'<i style="background:{colour}"></i>{kind}' for kind, colour in COLOURS.items())
    reached = "".join(
        f"<tr><td>{escape(each.name)}</td><td>{date_of(plan, each)}</td></tr>" for each in plan.milestones
    )
    told = {group: [_told(plan, task) for task in groups[group]] for group in order}
    inner = json.dumps(told).replace("</", "<" + chr(92) + "/")  # which would end the script
    name = escape(plan.spec.name)
    return "".join(
        [
            '<!doctype html><html lang="en"><meta charset="utf-8">',
            f"<title>{name}: construction</title><style>{STYLE}</style>",
            f"<h1>{name}: {plan.gpus:,} GPUs from {plan.construction.start}</h1>",
            f"<p>Power: {escape(choice_name(plan.choice))}, {plan.why}.</p><table>{reached}</table>",
            '<div id="bar"><input id="find" placeholder="find a row, as pod-012"> zoom ',
            f'<input id="zoom" type="range" min="100" max="2000" value="100">{legend}</div>',
            f'<div id="chart"><div id="wide">{axis.html()}',
            *(_row(plan, group, groups[group], axis) for group in order),
            "</div></div><h2>in use (filled), of what there is (line)</h2>",
            *(_curve(plan, resource.name, axis) for resource in plan.project.resources),
            f'<script id="tasks" type="application/json">{inner}</script>',
            f"<script>{SCRIPT}</script></html>\n",
        ]
    )


class _Axis:
    """Time as percentages of the whole."""

    def __init__(self, plan: Plan) -> None:
        self.calendar = plan.calendar
        self.begin = plan.calendar.moment(0)
        self.span = plan.calendar.end(plan.schedule.makespan) - self.begin

    def at(self, moment: datetime) -> float:
        return 100 * ((moment - self.begin) / self.span)

    def of(self, hour: int) -> float:
        return self.at(self.calendar.end(hour))

    def html(self) -> str:
        """A mark for each month, or each week where there are few."""
        day, marks = self.begin.replace(hour=0), ""
        weekly = self.span < timedelta(days=90)
        while day <= self.begin + self.span:
            if day >= self.begin and (day.weekday() == 0 if weekly else day.day == 1):
                marks += f'<span style="left:{self.at(day):.3f}%">{day:%Y-%m-%d}</span>'
            day += timedelta(days=1)
        return f'<div id="axis"><b></b><div>{marks}</div></div>'


def _row(plan: Plan, group: str, tasks: list[Task], axis: _Axis) -> str:
    """A bar for each kind, from the first's begin to the last's end; red if the critical chain is here."""
    spans: dict[str, tuple[int, int]] = {}
    for task in tasks:
        begin, end = plan.schedule.starts[task.name], plan.schedule.starts[task.name] + task.duration
        first, last = spans.get(task.kind, (begin, end))
        spans[task.kind] = min(first, begin), max(last, end)
    chain = " chain" if any(link.task.group == group for link in plan.links[plan.last.name]) else ""
    return "".join(
        [
            f'<div class="row{chain}" data-group="{escape(group)}"><b>{escape(group)}</b><div>',
            *_bars(spans, axis),
            "</div></div>",
        ]
    )


def _bars(spans: dict[str, tuple[int, int]], axis: _Axis) -> Iterator[str]:
    for kind, (begin, end) in spans.items():
        left, right = axis.at(axis.calendar.moment(begin)), axis.of(end)
        title = f"{kind}: {axis.calendar.moment(begin):%d %b %H:%M} to {axis.calendar.end(end):%d %b %H:%M}"
        yield (
            f'<i title="{title}" style="left:{left:.3f}%;width:{max(right - left, 0):.3f}%;'
            f'background:{COLOURS.get(kind, "#888")}"></i>'
        )


def _told(plan: Plan, task: Task) -> tuple[str, str, str, str]:
    """A task in words: name, begin, end, who."""
    start = plan.schedule.starts[task.name]
    begin, end = plan.calendar.moment(start), plan.calendar.end(start + task.duration)
    who = " ".join(f"{number} {trade}" for trade, number in task.uses.items())
    return task.name, f"{begin:%Y-%m-%d %H:%M}", f"{end:%Y-%m-%d %H:%M}", who


def _curve(plan: Plan, resource: str, axis: _Axis) -> str:
    """What is in use of a resource, and what there is of it, over time."""
    curve = curve_of(plan.project, plan.schedule.starts, resource)
    there, taken = curve.supply, curve.use
    most = max(amount for _, amount in taken) or 1
    top = 1.1 * max(most, min(max(amount for _, amount in there), 2 * most))
    label = f"{most / 1e3:,.1f} MW" if resource == POWER else f"{most:,} of {there[-1][1]:,}"
    return (
        f'<div class="curve"><b>{resource}, at most {label}</b><div><svg viewBox="0 0 100 48" '
        f'preserveAspectRatio="none"><path d="{_steps(taken, axis, top)} L100 48 L0 48 Z" fill="#60a5fa"/>'
        f'<path d="{_steps(there, axis, top)}" fill="none" stroke="#b91c1c" '
        'vector-effect="non-scaling-stroke"/>'
        "</svg></div></div>"
    )


def _steps(steps: list[tuple[int, int]], axis: _Axis, top: float) -> str:
    """A path of level pieces, as far as the plan goes."""
    points, height = ["M0 48"], 48.0
    for hour, amount in steps:
        left = min(max(axis.of(hour), 0.0), 100.0)
        points.append(f"L{left:.2f} {height:.1f}")
        height = 48 - 48 * min(amount / top, 1.0)
        points.append(f"L{left:.2f} {height:.1f}")
    return " ".join([*points, f"L100 {height:.1f}"])
