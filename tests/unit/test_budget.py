"""How many new streams are taken in a second."""

from gateway.fanout.budget import Budget


class Clock:
    """Seconds, as a test wants them."""

    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


def full(budget: Budget) -> bool:
    return budget.full


def taken(budget: Budget, tries: int) -> int:
    return sum(budget.take() for _ in range(tries))


def test_a_seconds_worth_at_once_and_then_as_they_come() -> None:
    clock = Clock()
    budget = Budget(4.0, clock)
    assert full(budget)
    assert taken(budget, 10) == 4
    assert not full(budget)
    clock.now += 0.25
    assert taken(budget, 10) == 1
    clock.now += 0.5
    assert not full(budget)
    assert taken(budget, 1) == 1
    clock.now += 0.75
    assert full(budget), "one was left"
    clock.now += 100
    assert taken(budget, 10) == 4, "what nobody took is not saved up"


def test_less_than_one_a_second() -> None:
    clock = Clock()
    budget = Budget(0.5, clock)
    assert taken(budget, 5) == 1
    clock.now += 1.0
    assert taken(budget, 5) == 0
    clock.now += 1.0
    assert full(budget)
    assert taken(budget, 5) == 1


def test_without_a_limit() -> None:
    budget = Budget(0.0, Clock())
    assert taken(budget, 1000) == 1000
    assert full(budget)
