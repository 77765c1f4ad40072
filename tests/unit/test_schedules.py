"""Nothing is lost silently, whatever happens: random schedules over the real memory, see tests/unit/model."""

import pytest

from tests.unit.model.mutations import MUTATIONS, ROOT
from tests.unit.model.schedules import run
from tests.unit.model.world import KINDS

SCHEDULES = 40
"""Of each kind; thousands are played with `python -m tests.unit.model.schedules 3000`."""


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_missed_is_told(kind: str) -> None:
    delivered = gaps = 0
    for seed in range(SCHEDULES):
        _, counted = run(seed, kind)
        delivered += counted["due"]
        gaps += counted["gaps"]
    assert delivered > 100 * SCHEDULES, "so little was to be delivered that nothing is shown"
    assert bool(gaps) == (kind not in ("calm", "cuts"))


def test_each_rule_that_is_broken_on_purpose_is_still_in_the_code() -> None:
    texts = {each.file: (ROOT / "gateway" / each.file).read_text() for each in MUTATIONS}
    assert [each.rule for each in MUTATIONS if each.old not in texts[each.file]] == []
