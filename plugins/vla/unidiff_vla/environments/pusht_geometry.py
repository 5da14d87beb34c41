"""The T as a polygon, and ways around it. Plain numpy; lengths in pixels of the 512 px table."""

import heapq
import math

import numpy as np

# Corners of the T in its own frame, in an order that keeps the inside on the left.
_OUTLINE = np.array(
    [(-60, 0), (60, 0), (60, 30), (15, 30), (15, 120), (-15, 120), (-15, 30), (-60, 30)],
    dtype=np.float64,
)
_SPACING = 12.0  # of the grid that ways are searched on
_FIRST, _NUM_NODES = 16.0, 41  # of one side: 16 to 496 px
# Factor on the length of a step that ends this near the T; the disc itself has a radius of 15.
_CLOSE_COSTS = ((16.0, 1000.0), (24.0, 30.0), (34.0, 3.0))
_NEAR_T = 44.0  # every node of the way is visited inside, every second one outside


def outline_at(x: float, y: float, angle: float) -> np.ndarray:
    """(8, 2) corners of a T at a position, turned by an angle in radians."""
    return _OUTLINE @ _turn(angle) + (x, y)


def in_frame_of(point: np.ndarray, x: float, y: float, angle: float) -> np.ndarray:
    """(2,) a point (2,) of the table in the frame of a T at a position, turned by an angle."""
    return (point - (x, y)) @ _turn(angle).T


def _turn(angle: float) -> np.ndarray:
    """(2, 2) that turns rows of points by an angle in radians."""
    cosine, sine = math.cos(angle), math.sin(angle)
    return np.array([[cosine, sine], [-sine, cosine]])


def normals_of(outline: np.ndarray) -> np.ndarray:
    """(8, 2) outward unit normals of the edges from each corner to the next."""
    edges = np.roll(outline, -1, axis=0) - outline
    outward = np.stack([edges[:, 1], -edges[:, 0]], axis=1)
    return outward / np.linalg.norm(outward, axis=1, keepdims=True)


def distances_to(outline: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(n,) distances of (n, 2) points to the nearest edge; at most 15 px inside the T."""
    edges = np.roll(outline, -1, axis=0) - outline
    offsets = points[:, None] - outline
    share = (offsets * edges).sum(2) / (edges**2).sum(1)
    nearest = np.clip(share, 0.0, 1.0)[..., None] * edges
    return np.linalg.norm(offsets - nearest, axis=2).min(1)


def way_around(outline: np.ndarray, start: np.ndarray, end: np.ndarray) -> list[np.ndarray]:
    """Points to walk through from one place to another without moving the T.

    Args:
        outline: (8, 2) of the T.
        start: (2,) where the disc is.
        end: (2,) where it shall be; the last point returned.
    """
    side = _FIRST + _SPACING * np.arange(_NUM_NODES)
    nodes = np.stack(np.meshgrid(side, side, indexing="ij"), axis=2)
    distances = distances_to(outline, nodes.reshape(-1, 2)).reshape(_NUM_NODES, _NUM_NODES)
    costs = np.ones_like(distances)
    for limit, factor in reversed(_CLOSE_COSTS):
        costs[distances < limit] = factor
    path = _cheapest_path(costs, _node_at(start), _node_at(end))
    points, was_skipped = [], False
    for node in path[1:]:
        was_skipped = distances[node] >= _NEAR_T and not was_skipped
        if not was_skipped:
            points.append(nodes[node])
    return [*points, end]


def _node_at(point: np.ndarray) -> tuple[int, int]:
    row, column = np.clip(np.rint((point - _FIRST) / _SPACING), 0, _NUM_NODES - 1).astype(int)
    return int(row), int(column)


def _cheapest_path(
    costs: np.ndarray, start: tuple[int, int], end: tuple[int, int]
) -> list[tuple[int, int]]:
    """A* over the eight neighbours of each node; the straight line is the lower bound."""
    moves = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]
    best, came_from = {start: 0.0}, {start: start}
    queue = [(math.dist(start, end), start)]
    while queue:
        _, node = heapq.heappop(queue)
        if node == end:
            break
        for row, column in moves:
            other = (node[0] + row, node[1] + column)
            if not (0 <= other[0] < _NUM_NODES and 0 <= other[1] < _NUM_NODES):
                continue
            cost = best[node] + math.hypot(row, column) * costs[other]
            if cost < best.get(other, math.inf):
                best[other], came_from[other] = cost, node
                heapq.heappush(queue, (cost + math.dist(other, end), other))
    path = [end]
    while path[-1] != start:
        path.append(came_from[path[-1]])
    return path[::-1]
