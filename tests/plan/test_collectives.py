"""Collectives against the closed forms of rings, and against what NCCL does on one node."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colossi.plan.collectives import all_to_all, gather, inside, reduce, send
from colossi.plan.efficiency import Efficiency

from .cases import H100

E = replace(Efficiency(), link_delay=0.0, hop_delay=0.0, link_share=1.0, nic_share=1.0)


def test_one_rank_has_nothing_to_say() -> None:
    for collective in (gather, reduce, all_to_all):
        assert collective(1e9, 1.0, 1.0, H100, E) == 0


def test_a_ring_in_one_domain() -> None:
    # (n - 1) / n of the bytes leave each GPU over NVLink: 7/8 GB at 450 GB/s; an all-reduce is two of them.
    assert gather(1e9, 8, 1, H100, E) == pytest.approx(7 / 8 / 450)
    assert reduce(1e9, 8, 1, H100, E) == pytest.approx(2 * 7 / 8 / 450)


def test_a_ring_over_nodes_uses_the_cards_of_all_its_members() -> None:
    # 16 neighbours on two nodes: 8 cards of 50 GB/s each, so 400 GB/s, less than NVLink's 450.
    assert gather(1e9, 16, 1, H100, E) == pytest.approx(15 / 16 / 400)
    # 16 ranks, one of each node: one card each.
    assert gather(1e9, 16, 8, H100, E) == pytest.approx(15 / 16 / 50)
    # 16 ranks, every second GPU: four to a node.
    assert gather(1e9, 16, 2, H100, E) == pytest.approx(15 / 16 / 200)


def test_all_to_all_sends_most_beyond_the_node() -> None:
    # 64 ranks on 8 nodes: 56 of 64 parts through one's own card.
    assert all_to_all(1e9, 64, 1, H100, E) == pytest.approx(56 / 64 / 50)
    assert all_to_all(1e9, 8, 1, H100, E) == pytest.approx(7 / 8 / 450)


def test_a_message_to_the_next_stage() -> None:
    assert send(1e9, 4, H100, E) == pytest.approx(1 / 450)
    assert send(1e9, 8, H100, E) == pytest.approx(1 / 50)


@given(
    bytes_=st.floats(1, 1e10),
    ranks=st.sampled_from([2, 4, 8, 16, 64, 1024]),
    stride=st.sampled_from([1, 2, 8, 64]),
)
def test_more_bytes_take_longer_and_nothing_beats_the_links(bytes_: float, ranks: int, stride: int) -> None:
    for collective in (gather, reduce, all_to_all):
        seconds = collective(bytes_, ranks, stride, H100, Efficiency())
        assert 0 < seconds <= collective(2 * bytes_, ranks, stride, H100, Efficiency())
        assert seconds >= bytes_ * (ranks - 1) / ranks / (H100.link * 1.0) * 0.999
    assert 1 <= inside(ranks, stride, H100) <= 8
