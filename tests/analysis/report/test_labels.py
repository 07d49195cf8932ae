"""Labels of points overlap neither each other nor points, on narrow and wide screens."""

import itertools

import numpy as np
import pytest

from analysis.report.labels import AWAY, HEIGHT, LETTER, WIDTHS, place_labels

NAMES = ("kd", "ce", "pesf_kd", "logit_standardisation+adapter", "1: w2-T4.0, adapter lr 7.9e-05", "dist", "at", "ttm")


def spread(seed: int, wide: float, high: float) -> list[tuple[float, float, str]]:
    generator = np.random.default_rng(seed)
    places = generator.uniform(size=(len(NAMES) + 12, 2)) * (wide, high)
    return [(*place, name) for place, name in zip(places.tolist(), [*NAMES, *[""] * 12], strict=True)]


@pytest.mark.parametrize(("wide", "high"), [(1.0, 1.0), (0.05, 0.02), (0.0, 0.0), (1.0, 0.0)])
@pytest.mark.parametrize("seed", range(5))
def test_no_two_names_overlap_on_any_screen_and_none_lies_on_a_point(seed: int, wide: float, high: float) -> None:
    points = spread(seed, wide, high)
    labels = place_labels(points)
    assert [" ".join(label.lines) for label in labels] == list(NAMES)
    for width in WIDTHS:
        boxes = []
        for (across, up, _), label in zip(points, labels, strict=False):
            size = LETTER[0] * max(map(len, label.lines))
            left = across * width - AWAY - size if label.to_left else across * width + AWAY
            assert label.up >= min(up, label.height / 2)
            middle, half = label.up * HEIGHT, LETTER[1] * len(label.lines) / 2
            boxes.append((left, left + size - AWAY, middle - half, middle + half))
        for one, other in itertools.combinations(boxes, 2):
            assert one[1] <= other[0] or other[1] <= one[0] or one[3] <= other[2] + 0.1 or other[3] <= one[2] + 0.1
        for box, (across, up, _) in itertools.product(boxes, points):
            assert not (box[0] < across * width < box[1] and box[2] < up * HEIGHT < box[3])


def test_a_name_with_room_stands_beside_its_point_and_in_the_panel() -> None:
    left, right = place_labels([(0.1, 0.5, "kd"), (0.9, 0.5, "ce")])
    assert (left.up, right.up) == (0.5, 0.5)
    assert (left.to_left, right.to_left) == (False, True)
    assert place_labels([]) == []


def test_a_name_gives_way_up_or_down_whichever_is_nearer() -> None:
    (below,) = place_labels([(0.1, 0.50, "kd"), (0.15, 0.51, "")])
    (above,) = place_labels([(0.1, 0.50, "kd"), (0.15, 0.49, "")])
    assert below.up < 0.5 < above.up
    (at_the_edge,) = place_labels([(0.1, 0.01, "kd"), (0.15, 0.02, "")])
    assert at_the_edge.up > 0.02
