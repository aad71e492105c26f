"""
Hours that are worked, and the dates that they fall on.

A project counts hours of work, from 0; a calendar says which hour of the year each is. Time that passes by
itself (a delivery, a burn-in) is told in hours of the clock, and counted here as the most hours of work that
can fall into it: planned so, it is never too short, and exact where every day is worked alike.
"""

import datetime
import math
from dataclasses import dataclass

MORNING = 7  # when work begins where it is not by shifts round the clock
WEEK = 168


@dataclass(frozen=True, slots=True)
class Workdays:
    """So many hours a day, so many days a week from Monday on."""

    start: datetime.date
    hours_a_day: int
    days_a_week: int

    @property
    def first_hour(self) -> int:
        """Of a working day."""
        return min(MORNING, 24 - self.hours_a_day)

    @property
    def hours_a_week(self) -> int:
        return self.hours_a_day * self.days_a_week

    def moment(self, hour: int) -> datetime.datetime:
        """When an hour of work begins."""
        day, rest = divmod(hour, self.hours_a_day)
        weeks, weekday = divmod(self._skipped + day, self.days_a_week)
        return self._monday + datetime.timedelta(weeks=weeks, days=weekday, hours=self.first_hour + rest)

    def end(self, hour: int) -> datetime.datetime:
        """When the hours of work before this one are over: the evening, not the next morning."""
        return self.moment(hour - 1) + datetime.timedelta(hours=1) if hour > 0 else self.moment(0)

    def day(self, hour: int) -> float:
        """Days from the midnight of `start` to the end of the hours before this one."""
        begin = datetime.datetime.combine(self.start, datetime.time())
        return (self.end(hour) - begin) / datetime.timedelta(days=1)

    def hour_at(self, day: float) -> int:
        """The first hour of work that begins not before this day after the midnight of `start`."""
        begin = datetime.datetime.combine(self.start, datetime.time())
        hours = (begin - self._monday) / datetime.timedelta(hours=1) + 24 * day
        return max(self._before(hours) - self._skipped * self.hours_a_day, 0)

    def most_within(self, hours: float) -> int:
        """The most hours of work that `hours` of the clock hold, begun at any hour of work; rounded up."""
        weeks, rest = divmod(hours, WEEK)
        if self.hours_a_week == WEEK:
            return math.ceil(hours)
        begins = [h for h in range(WEEK) if self._works(h)]
        return int(weeks) * self.hours_a_week + max(
            sum(self._works(h % WEEK) for h in range(begin, begin + math.ceil(rest))) for begin in begins
        )

    @property
    def _skipped(self) -> int:
        """Working days of the first week before `start`; a start on a free day is the next Monday."""
        weekday = self.start.weekday()
        return weekday if weekday < self.days_a_week else 0

    @property
    def _monday(self) -> datetime.datetime:
        """Of the first week."""
        weekday = self.start.weekday()
        back = weekday if weekday < self.days_a_week else weekday - 7
        return datetime.datetime.combine(self.start - datetime.timedelta(days=back), datetime.time())

    def _works(self, hour: int) -> bool:
        """Whether this hour of the week, from Monday's midnight on, is worked."""
        day, of_day = divmod(hour, 24)
        return day < self.days_a_week and 0 <= of_day - self.first_hour < self.hours_a_day

    def _before(self, hours: float) -> int:
        """Hours of work that begin before this hour of the clock after the first Monday's midnight."""
        weeks, rest = divmod(hours, WEEK)
        return int(weeks) * self.hours_a_week + sum(self._works(h) for h in range(math.ceil(rest - 1e-9)))
