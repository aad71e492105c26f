"""Max-min fair rates by linear programs, straight from the definition: raise the lowest, then the next."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

Real = NDArray[np.float64]


def exact_rates(matrix: Real, capacity: Real) -> Real:
    """The rates x >= 0 with matrix @ x <= capacity whose sorted list is the largest, first entry first."""
    flows = matrix.shape[1]
    known: dict[int, float] = {}
    while len(known) < flows:
        free = [f for f in range(flows) if f not in known]
        level = _most(matrix, capacity, known, free, None)
        stuck = [f for f in free if _most(matrix, capacity, known, free, (f, level)) <= level + 1e-9]
        known |= dict.fromkeys(stuck, level)
    return np.array([known[f] for f in range(flows)])


def _most(
    matrix: Real, capacity: Real, known: dict[int, float], free: list[int], one: tuple[int, float] | None
) -> float:
    """The highest common level of the free flows; or that of one of them, the others having that."""
    flows = matrix.shape[1]
    goal = np.zeros(flows + 1)  # the last variable is the level
    goal[flows if one is None else one[0]] = -1.0
    above = np.zeros((len(free), flows + 1))
    above[np.arange(len(free)), free] = -1.0
    above[:, flows] = 1.0
    limits = [(known[f], known[f]) if f in known else (0.0, None) for f in range(flows)]
    limits.append((0.0, None) if one is None else (one[1], one[1]))
    found = linprog(
        goal,
        A_ub=np.vstack([np.c_[matrix, np.zeros(len(matrix))], above]),
        b_ub=np.r_[capacity, np.zeros(len(free))],
        bounds=limits,
    )
    assert found.status == 0, found.message
    return float(-found.fun)
