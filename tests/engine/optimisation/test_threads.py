"""How many threads steps have: what is faster, where nothing shows of it."""

import pytest
import torch

from skae.engine.optimisation import threads
from skae.engine.optimisation.threads import StepThreads


@pytest.fixture(autouse=True)
def two_threads(set_threads):
    set_threads(2)


class Clock:
    """What the time is: each step on one of the slow numbers of threads takes a second."""

    def __init__(self, slow):
        self.slow, self.now = slow, 0.0

    def perf_counter(self):
        return self.now

    def pass_time(self):
        self.now += 1.0 if torch.get_num_threads() == self.slow else 0.1


class Steps:
    """Steps that move a vector by random numbers, and keep how many threads they had."""

    def __init__(self, clock=None, trace=0.0):
        self.theta = torch.zeros(5)
        self.generator = torch.Generator().manual_seed(0)
        self.clock, self.trace, self.n_threads = clock, trace, []

    def step(self):
        self.n_threads.append(torch.get_num_threads())
        self.theta += torch.rand(5, generator=self.generator)
        self.theta += self.trace * self.n_threads[-1]
        if self.clock is not None:
            self.clock.pass_time()
        return self.theta.sum()

    def run(self, sizes, **options):
        paced = StepThreads([self.theta], self.generator, **{"n_steps": 1000, **options})
        values = [paced.run(self.step, size) for size in sizes]
        return paced, values


@pytest.mark.parametrize(("slow", "chosen"), [(2, 1), (1, 2)])
def test_the_faster_number_is_chosen(slow, chosen, monkeypatch):
    clock = Clock(slow)
    monkeypatch.setattr(threads, "time", clock)
    steps, plain = Steps(clock), Steps()
    paced, values = steps.run([10] * 20)
    assert paced.chosen == chosen
    # Five steps are made twice, on one thread and on both; then the faster number is kept.
    assert steps.n_threads == [1, 2] * 5 + [chosen] * 15
    # The vector, the values and the random numbers are those of steps that are made once.
    assert values == [plain.step() for _ in range(20)]
    assert torch.equal(steps.theta, plain.theta)
    assert torch.get_num_threads() == 2


def test_steps_whose_bits_differ_keep_all_threads(monkeypatch):
    clock = Clock(slow=2)
    monkeypatch.setattr(threads, "time", clock)
    steps = Steps(clock, trace=1e-6)
    # One thread would be faster, but it would show.
    assert steps.run([10] * 8)[0].chosen == 2
    assert steps.n_threads == [1, 2] + [2] * 7


def test_a_batch_of_another_size_is_compared_first(monkeypatch):
    clock = Clock(slow=2)
    monkeypatch.setattr(threads, "time", clock)
    steps = Steps(clock)
    paced, _ = steps.run([10] * 6 + [9] * 2)
    assert paced.chosen == 1
    assert steps.n_threads == [1, 2] * 5 + [1] + [1, 2] + [1]

    steps.trace = 1e-6
    paced.run(steps.step, 8)
    # Where the other size tells the numbers apart, all threads are used from then on.
    assert paced.chosen == 2


def test_nothing_is_made_twice_where_it_is_not_worth_it(set_threads):
    for options in ({"n_steps": 20}, {"n_steps": 0}):
        steps = Steps()
        assert steps.run([10] * 3, **options)[0].chosen == 2
        assert steps.n_threads == [2, 2, 2]
    set_threads(1)
    steps = Steps()
    steps.run([10] * 3)
    # There is nothing to choose.
    assert steps.n_threads == [1, 1, 1]
