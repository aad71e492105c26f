"""
`colossi dashboard`: the server of the page, with NiceGUI, and what the page asks it for.

The page is one frame with a map, a timeline and charts; what is in them comes from `api/runs/N/...`, and only
what is new. Nothing here writes to a run.
"""

import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.staticfiles import StaticFiles
from nicegui import ui
from prometheus_client.exposition import choose_encoder

from colossi.web.expected import power_curve
from colossi.web.metrics import registry_of
from colossi.web.watched import Watched

STATIC = Path(__file__).parent / "static"
AXIS = {"axisLabel": {"color": "#8a93a5"}, "splitLine": {"lineStyle": {"color": "#232937"}}}
NAMES = {"color": "#8a93a5", "rotate": 38, "interval": 0}
LINE = {"type": "line", "showSymbol": False, "animation": False, "lineStyle": {"width": 1.6}}
FORECAST = {"lineStyle": {"width": 1.2, "type": "dashed"}, "color": "#ffd166", "name": "forecast"}
# name -> what stands above it, format of the numbers, whether a forecast is drawn beside it
CHARTS = {
    "loss": ("loss [nat per token]", "", False),
    "speed": ("tokens per second", "", True),
    "mfu": ("MFU", "%", True),
    "step": ("seconds of a step", "", True),
    "over": ("goodput until then", "%", True),
    "power": ("power of the site [MW]", "", False),
}

HEAD = """<div id="head" class="card"><h1>colossi</h1><div id="runs"></div><span id="link"></span></div>"""
REPLAY = """<div class="card"><div id="replay">
<button id="play">▶ play</button><button id="live" aria-pressed="true">live</button>
<label>speed <select id="speed" aria-label="speed"></select></label>
<span id="phase"></span><span id="clock"></span></div>
<div id="track"><canvas id="timeline"></canvas><div id="cursor"></div>
<input id="time" type="range" min="0" max="1" step="any" value="0" aria-label="time"></div></div>"""
MIDDLE = """<div id="middle"><div class="card"><h2>the fleet: <span id="arranged"></span>
<button id="whole">whole</button></h2>
<div id="board"><canvas id="fleet"></canvas><canvas id="over"></canvas></div><div id="legend"></div></div>
<div class="card"><h2>a node: click on one</h2><div id="history"></div></div></div>
<div id="tip" hidden></div>"""
LIVES = """<div class="card"><h2>incarnations, the newest first</h2><table><thead><tr>
<th>no</th><th>began</th>
<th>workers</th><th>restored from</th><th>steps</th><th>why the one before ended</th></tr></thead>
<tbody id="lives"></tbody></table></div>"""


def app_of(runs: Sequence[Watched]) -> FastAPI:
    """The application; it closes the ledgers when it ends."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        for watched in runs:
            watched.close()

    app = FastAPI(lifespan=lifespan, openapi_url=None)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")

    def run(number: int) -> Watched:
        if not 0 <= number < len(runs):
            raise HTTPException(404, f"there is no run {number}")
        return runs[number]

    answers: dict[tuple[str, int], tuple[int, Response]] = {}

    def kept(what: str, number: int, version: int, make: Callable[[], dict[str, Any] | None]) -> Response:
        """The answer of the last time, if it is of the same version: of a run that is over, always."""
        if (old := answers.get((what, number))) and old[0] == version:
            return old[1]
        answers[what, number] = version, _json(make())
        return answers[what, number][1]

    @app.get("/api/runs")
    def names() -> list[dict[str, Any]]:
        return [headline(watched) for watched in runs]

    def everything(number: int) -> Response:
        return kept("since", number, runs[number].read(), lambda: runs[number].since(0))

    def places(number: int) -> Response:
        return kept("layout", number, len(runs[number].fleet.names), runs[number].layout)

    for number in range(len(runs)):  # what the first view needs is ready before anybody asks
        everything(number), places(number)

    @app.get("/api/runs/{number}/since/{after}")
    def since(number: int, after: int) -> Response:
        watched = run(number)
        return _json(watched.since(after)) if after else everything(number)

    @app.get("/api/runs/{number}/layout")
    def layout(number: int) -> Response:
        run(number)
        return places(number)

    @app.get("/api/runs/{number}/power")
    def power(number: int) -> Response:
        watched = run(number)
        curve = partial(power_curve, watched.expected, watched.spent.account())
        return kept("power", number, watched.read(), curve)

    @app.get("/api/runs/{number}/nodes/{node}")
    def node(number: int, node: str) -> dict[str, Any]:
        watched = run(number)
        return {"events": watched.history(node), "rack": watched.fleet.racks.get(node, "")}

    registry = registry_of(runs)

    @app.get("/metrics")
    def metrics(request: Request) -> Response:
        generate, kind = choose_encoder(request.headers.get("accept", ""))
        return Response(generate(registry), media_type=kind)

    ui.run_with(app, root=page, title="colossi", dark=True, show_welcome_message=False, tailwind=False)
    return app


def headline(watched: Watched) -> dict[str, Any]:
    """A run among others."""
    now = watched.now()
    point = now["point"] or {}
    found = {"name": watched.name, "simulated": watched.expected.simulated, "goodput": now["goodput"]}
    return found | {"step": point.get("step")}


def _json(value: dict[str, Any] | None) -> Response:
    """As FastAPI would, without its walk through every value."""
    return Response(json.dumps(value, separators=(",", ":")), media_type="application/json")


def page() -> None:
    """The frame; dashboard.js fills it. All but the charts is there before NiceGUI has come."""
    ui.add_head_html(
        '<link rel="stylesheet" href="static/dashboard.css"><script src="static/fleet.js"></script>'
        '<script src="static/dashboard.js"></script>'
    )
    ids = {}
    with ui.element("div").props("id=charts"):
        for name, (title, form, forecast) in CHARTS.items():
            ids[name] = _chart(title, _lines(form, forecast))
        ids["goodput"] = _chart("where the time of all workers went", _waterfall())
    frame = f'<main>{HEAD}<div id="tiles"></div>{REPLAY}{MIDDLE}</main><footer>{LIVES}</footer>'
    ui.add_body_html(f"{frame}<script>begin({json.dumps(ids)})</script>")


def _chart(title: str, options: dict[str, Any]) -> int:
    with ui.element("div").classes("card"):
        ui.html(f"<h2>{title}</h2>", sanitize=False)
        return ui.echart(options).classes("chart").id


def _lines(form: str, forecast: bool) -> dict[str, Any]:
    """Lines over time; the page gives the data."""
    label = {"axisLabel": {"color": "#8a93a5", ":formatter": "(v) => Math.round(v * 1000) / 10 + '%'"}}
    return {
        "grid": {"left": 62, "right": 34, "top": 10, "bottom": 26},
        "tooltip": {"trigger": "axis"},
        "xAxis": {"type": "value", "min": 0, **AXIS},
        "yAxis": {"type": "value", "scale": True, **AXIS, **(label if form else {})},
        "series": [
            LINE | {"data": [], "color": "#34b270", "name": "actual"},
            *([LINE | FORECAST | {"data": []}] if forecast else []),
        ],
    }


def _waterfall() -> dict[str, Any]:
    bars = {"type": "bar", "stack": "all", "animation": False, "barCategoryGap": "25%", "data": []}
    clear = {"itemStyle": {"color": "transparent"}, "silent": True}
    label = {"show": True, "position": "top", "color": "#c9cfdb", "fontSize": 10}
    share = {":formatter": "(p) => p.value < 0.0005 ? '' : (100 * p.value).toFixed(1) + '%'"}
    return {
        "grid": {"left": 44, "right": 8, "top": 18, "bottom": 58},
        "xAxis": {
            "type": "category",
            "data": [],
            "axisLabel": {"color": "#8a93a5", "rotate": 38, "interval": 0},
        },
        "yAxis": {"type": "value", "max": 1, **AXIS},
        "series": [
            bars | clear,
            bars | {"label": label | share},
            {"type": "scatter", "data": [], "symbol": "rect", "symbolSize": [22, 2], "color": "#ffd166"},
        ],
    }
