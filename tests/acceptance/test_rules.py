"""Who is taken out and who comes back: the rules, for whatever fleet one can think of."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colossi.acceptance.checks import GROUPS
from colossi.acceptance.rules import (
    FLAP_SECONDS,
    FLAPS,
    LONGEST,
    OURS,
    STALE_SECONDS,
    Bound,
    Drain,
    groups_needed,
    is_flapping,
    is_stale,
    may_return,
    reason,
    take_out,
)

names = st.sampled_from([f"n{number}" for number in range(30)])
drains = st.builds(Drain, why=st.sampled_from(["fan", "colossi: memory.copy", ""]), who=st.just("ann"))
bounds = st.one_of(st.builds(Bound, share=st.floats(0, 1)), st.builds(Bound, count=st.integers(0, 40)))
times = st.floats(0, 1e9)


@given(
    failed=st.dictionaries(names, st.text(min_size=1, max_size=400)),
    already=st.dictionaries(names, drains),
    bound=bounds,
    more=st.integers(0, 100),
)
def test_taking_out_keeps_the_bound_and_everybody_elses_drain(
    failed: dict[str, str], already: dict[str, Drain], bound: Bound, more: int
) -> None:
    fleet = len({*failed, *already}) + more
    taken = take_out(failed, fleet, already, bound)
    assert {*taken.out, *taken.left} == {*failed}  # each is answered for, once
    assert not {*taken.out} & {*taken.left}
    assert not {*taken.out} & {*already}  # who is out stays as it is
    if taken.out:
        assert len(taken.out) + len(already) <= bound.of_fleet(fleet)
        assert {*taken.out} == {*failed} - {*already}  # all or none
    elif new := {*failed} - {*already}:
        assert len(new) + len(already) > bound.of_fleet(fleet)
        assert all("may be out at once" in taken.left[node] for node in new)
    for why in taken.out.values():
        assert Drain(why).ours and len(why) <= LONGEST and "\n" not in why


@pytest.mark.parametrize(
    ("text", "nodes", "most"),
    [
        ("10%", 4, 1),
        ("10%", 100, 10),
        ("10%", 25_000, 2_500),
        ("0%", 100, 0),
        ("3", 4, 3),
        ("0", 9, 0),
        ("7.5%", 1000, 75),
    ],
)
def test_a_bound_is_a_share_or_a_number(text: str, nodes: int, most: int) -> None:
    assert Bound.of(text).of_fleet(nodes) == most


@pytest.mark.parametrize("text", ["", "x", "-1", "101%", "1.5", "10 %%"])
def test_any_other_bound_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="give a share"):
        Bound.of(text)


@given(found=times, later=st.floats(0, 1e6), changed=st.one_of(st.none(), times))
def test_a_finding_is_stale_when_it_is_old_or_the_node_another(
    found: float, later: float, changed: float | None
) -> None:
    stale = is_stale(found, found + later, changed)
    assert (
        bool(stale) == (later > STALE_SECONDS + 1e-6 or (changed is not None and changed > found))
        or abs(later - STALE_SECONDS) < 1e-3
    )


@given(outs=st.lists(times), now=times)
def test_a_node_flaps_by_how_often_it_was_out_within_the_window(outs: list[float], now: float) -> None:
    within = [time for time in outs if now - FLAP_SECONDS <= time <= now]
    assert bool(is_flapping(outs, now)) == (len(within) >= FLAPS)


@given(
    passed=st.one_of(st.none(), times),
    outs=st.lists(times, max_size=5),
    now=times,
    drain=st.one_of(st.none(), drains),
)
def test_nobody_comes_back_untested_or_against_somebodys_will(
    passed: float | None, outs: list[float], now: float, drain: Drain | None
) -> None:
    may, why = may_return(passed, outs, now, drain)
    assert why
    if may:
        assert passed is not None and now - passed <= STALE_SECONDS
        assert all(passed >= out for out in outs)
        assert drain is None or drain.why.startswith(OURS)
        assert not is_flapping(outs, now)


def test_a_node_that_was_mended_comes_back() -> None:
    assert may_return(1000.0, [10.0, 500.0], 1001.0, Drain("colossi: memory.copy: slow")) == (
        True,
        "it has passed its test",
    )
    may, why = may_return(1000.0, [10.0, 500.0, 900.0], 1001.0)
    assert not may and "3 times in 7 days" in why


def test_a_reason_says_whose_it_is_and_who_asked() -> None:
    assert reason("disk.write: slow\nvery", "ann@login1") == "colossi: disk.write: slow very (by ann@login1)"
    long = reason("x" * 1000, "ann@login1")
    assert len(long) == LONGEST and long.endswith("… (by ann@login1)")


@pytest.mark.parametrize(
    ("why", "groups"),
    [
        ("colossi: pairs.rate: 0.3 times the median of 4 nodes (by root@vm)", {"pairs"}),
        ("colossi: memory.copy: slow; gpu-log.ends: did not end in 15 s", {"memory", "gpu"}),
        ("colossi: infiniband.link mlx5_0:1: is DOWN", {"nic"}),
        ("it failed 3 times in a day, now: killed by SIGKILL", set(GROUPS)),
        ("colossi: agent.answers: its agent has ended", set(GROUPS)),
    ],
)
def test_a_node_is_tested_for_what_it_was_taken_out_for(why: str, groups: set[str]) -> None:
    assert groups_needed(why, GROUPS) == groups
