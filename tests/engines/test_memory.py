"""What an agent says of its memory: every snapshot that it could give, by blocks of ranks."""

from colossi.engines.memory import Copy, Memory

MANIFEST = {"parts": [["weights", 0, 8]], "unique": 8, "total": 8}


def write(memory: Memory, rank: int, step: int, origin: tuple[int, int]) -> None:
    slot = memory.region(rank, MANIFEST).to_overwrite()
    memory.writing(rank, slot)
    memory.written(rank, slot, step, (1, 1), origin)


def test_neighbours_of_the_same_step_are_one_block_and_copies_are_another() -> None:
    memory = Memory()
    for rank in (4, 5, 6, 7):
        write(memory, rank, 8, (2, 12))
        write(memory, rank, 9, (3, 12))
        memory.keep(rank + 4, 9, Copy(MANIFEST, (1, 1), (3, 12), bytes(8)))
    memory.writing(5, memory.region(5, MANIFEST).find(8) or 0)  # and was never written
    memory.discard(10, 9)  # it was damaged
    assert memory.held() == [
        (2, 12, 4, 8, 1),
        (2, 12, 6, 8, 2),
        (3, 12, 4, 9, 4),
        (3, 12, 8, 9, 2),
        (3, 12, 11, 9, 1),
    ]


def test_every_snapshot_is_told_once() -> None:
    memory = Memory()
    write(memory, 0, 5, (1, 2))
    memory.keep(0, 5, Copy(MANIFEST, (1, 1), (1, 2), bytes(8)))
    assert memory.held() == [(1, 2, 0, 5, 1)]
