"""Two transcripts are compared to the last key: what is missing is not what is null or empty."""

from __future__ import annotations

from typing import Any

import pytest

from nvcore.testing.transcript import Recorder, differences


def recorder(*lines: dict[str, Any]) -> Recorder:
    made = Recorder()
    made.lines.extend(lines)
    return made


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"cause": None}, {}),
        ({"answer": {}}, {}),
        ({"answer": {}}, {"answer": None}),
        ({"answer": []}, {}),
        ({"answer": [1]}, {"answer": [1, None]}),
        ({"answer": {"a": 1}}, {"answer": {"a": 2}}),
    ],
)
def test_every_difference_is_found_from_both_sides_and_can_be_allowed(one: dict[str, Any], two: dict[str, Any]) -> None:
    a, b = recorder({"call": "x"}, one), recorder({"call": "x"}, two)
    assert differences(a, a) == [] == differences(b, b)
    for left, right in ((a, b), (b, a)):
        assert differences(left, right)
        assert differences(left, right, ["$[1]"]) == [] == differences(left, right, ["$[*].answer", "$[*].cause"])
        assert differences(left, right, ["$[0]", "$[1].call"])
