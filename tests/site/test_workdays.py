"""Hours of work and their dates, against a count hour by hour."""

import datetime

import pytest

from colossi.site.workdays import Workdays

MONDAY = datetime.date(2026, 1, 5)
CASES = [
    Workdays(MONDAY, 24, 7),
    Workdays(MONDAY, 10, 5),
    Workdays(datetime.date(2026, 1, 8), 10, 5),  # a Thursday
    Workdays(datetime.date(2026, 1, 10), 10, 5),  # a Saturday: work begins on Monday
    Workdays(datetime.date(2024, 5, 3), 20, 6),
    Workdays(datetime.date(2024, 5, 5), 8, 7),
]


def counted(days: Workdays, number: int) -> list[datetime.datetime]:
    """The begins of the first hours of work, by going through all hours of the clock."""
    moment, found = datetime.datetime.combine(days.start, datetime.time()), []
    while len(found) < number:
        if moment.weekday() < days.days_a_week and 0 <= moment.hour - days.first_hour < days.hours_a_day:
            found.append(moment)
        moment += datetime.timedelta(hours=1)
    return found


@pytest.mark.parametrize("days", CASES, ids=str)
def test_every_hour_has_its_date(days: Workdays) -> None:
    expected = counted(days, 400)
    assert [days.moment(hour) for hour in range(400)] == expected
    assert [days.end(hour) for hour in range(1, 400)] == [
        moment + datetime.timedelta(hours=1) for moment in expected[:-1]
    ]


@pytest.mark.parametrize("days", CASES, ids=str)
def test_a_day_has_its_first_hour(days: Workdays) -> None:
    begins, midnight = counted(days, 600), datetime.datetime.combine(days.start, datetime.time())
    for tenth in range(0, 200, 7):
        wanted = midnight + datetime.timedelta(days=tenth / 10)
        assert days.hour_at(tenth / 10) == next(h for h, moment in enumerate(begins) if moment >= wanted)


@pytest.mark.parametrize("days", CASES, ids=str)
@pytest.mark.parametrize("hours", [1, 24, 48, 72, 168, 200, 1000])
def test_time_of_the_clock_is_never_planned_too_short(days: Workdays, hours: int) -> None:
    """From any hour of work on, so many hours of the clock have passed when these hours of work have."""
    most = days.most_within(hours)
    passed = [days.moment(hour + most) - days.moment(hour) for hour in range(200)]
    assert min(passed) >= datetime.timedelta(hours=hours)
    shorter = [days.end(hour + most - 1) - days.moment(hour) for hour in range(200)] if most > 1 else []
    assert not shorter or min(shorter) < datetime.timedelta(hours=hours)
