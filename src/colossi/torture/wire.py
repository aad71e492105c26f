"""
The connection of an agent to the controller: in order in each direction, late, and at some moment broken.

As TCP: while packets are held up nothing is lost, it all comes later; what was under way when a connection
breaks is lost, and each side finds out at its own time. The controller's end is a `Line`: engines/line.py.
"""

import json
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from colossi.channel import LENGTH, Message
from colossi.engines.command import BEAT, Command
from colossi.engines.line import Line

if TYPE_CHECKING:
    from colossi.torture.machine import Machine

GOING = {"do": "beat"}


class Wire(Line):
    """Of one machine, as it is now, to one command."""

    def __init__(self, machine: "Machine", command: Command, number: int) -> None:
        self.node, self.rack = machine.name, machine.rack
        self.store, self.data, self.pid = f"{machine.name}:0", machine.address, 0
        self.machine, self.command, self.number = machine, command, number
        self.cut = False  # nothing goes through any more
        self.closed = False  # by the controller, or it knows that the other end is gone
        self.asked: deque[float] = deque()  # [s] when beats were sent that have no answer yet
        self._up: deque[Message | None] = deque()
        self._down: deque[Message | None] = deque()
        self._last_up = self._last_down = 0.0  # [s] when the newest message arrives

    # --- the controller's end -----------------------------------------------------------------------------

    def send(self, framed: bytes) -> None:
        """To the agent."""
        if self.cut or self.closed:
            return
        if framed is BEAT:
            if not self._down and self.machine.down_held <= self.machine.clock.now():
                self.machine.heard = self.asked.popleft()
            else:
                self._send_down(GOING)
            return
        self._send_down(json.loads(framed[LENGTH.size :]))

    def close(self) -> None:
        """What was sent still goes; nothing more is heard."""
        if not self.closed:
            self.closed = True
            self._send_down(None)
            self.machine.clock.later(0.0, self.command.gone, self)

    # --- the agent's end ----------------------------------------------------------------------------------

    def beat(self) -> None:
        """A beat, and its answer, are on their way at once where nothing else is."""
        self.asked.append(self.machine.clock.now())
        if self._up or self.machine.up_held > self.machine.clock.now() or self.cut or self.closed:
            self.tell({"say": "beat"})
        else:
            self.command.heard(self, {"say": "beat"})

    def tell(self, message: Message | None) -> None:
        """To the controller; None is the end."""
        if not self.cut:
            self._up.append(message)
            self._last_up = self._schedule(self._last_up, self.machine.up_held, self._arrive_up)

    # --- on the way ---------------------------------------------------------------------------------------

    def reset(self, agent_knows: float, controller_knows: float) -> None:
        """It breaks; each end finds out after so many seconds."""
        self.cut = True
        self._up.clear()
        self._down.clear()
        self.machine.later(agent_knows, self.machine.from_controller, self, None)
        self.machine.clock.later(controller_knows, self._gone)

    def _gone(self) -> None:
        if not self.closed and self.machine.site.command is self.command:
            self.closed = True
            self.command.gone(self)

    def _send_down(self, message: Message | None) -> None:
        if not self.cut:
            self._down.append(message)
            self._last_down = self._schedule(self._last_down, self.machine.down_held, self._arrive_down)

    def _schedule(self, last: float, held: float, arrive: Callable[[], None]) -> float:
        site = self.machine.site
        now = site.clock.now()
        at = max(last, max(now, held) + site.latency())
        site.clock.later(at - now, arrive)
        return at

    def _arrive_up(self) -> None:
        machine, site = self.machine, self.machine.site
        now = site.clock.now()
        if self.cut or self.closed or site.command is not self.command:
            return
        if (held := max(machine.up_held, site.frozen)) > now:
            site.clock.later(held - now, self._arrive_up)
            return
        message = self._up.popleft()
        if message is None:
            self._gone()
        elif "say" in message:
            self.command.heard(self, message)
        else:
            machine.orphaned = False
            self.command.joined(self, message)

    def _arrive_down(self) -> None:
        machine = self.machine
        if self.cut:
            return
        if (held := machine.down_held) > machine.clock.now():
            machine.clock.later(held - machine.clock.now(), self._arrive_down)
            return
        machine.later(0.0, machine.from_controller, self, self._down.popleft())
