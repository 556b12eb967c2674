"""Schedules and runs: which steps are taken, which states are kept."""

import pytest
import torch

from skae.engine.boltzmann.samplers import Schedule, run_chains

SCHEDULES = [
    Schedule(n_samples, burn_in, thinning)
    for n_samples in (1, 2, 5)
    for burn_in in (0, 1, 7)
    for thinning in (1, 2, 3)
]


def count(state):
    """A step by which chain i advances by i."""
    (position,) = state
    return (position + torch.arange(len(position)).unsqueeze(1),)


def start(n_chains=3):
    return (torch.zeros(n_chains, 1, dtype=torch.int64),)


def position(state):
    return state[0]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedule_keeps_every_so_many_after_the_burn_in(schedule):
    kept = [n for n in range(schedule.n_steps + 1) if schedule.keeps(n)]
    # From the burn-in on, one state in ``thinning``; the run ends with the last of them.
    assert kept == [schedule.burn_in + i * schedule.thinning for i in range(schedule.n_samples)]
    assert kept[-1] == schedule.n_steps


def test_the_start_is_a_sample_without_burn_in():
    # After no step at all the start itself is there to keep ...
    assert Schedule(burn_in=0).keeps(0)
    # ... unless at least one step must come before.
    assert not Schedule(burn_in=1).keeps(0)
    # The default is one sample, of the start.
    assert Schedule() == (1, 0, 1)
    assert Schedule().n_steps == 0


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_run_keeps_the_states_of_its_schedule(schedule):
    run = run_chains(count, start(), schedule, keep=position)
    steps = schedule.burn_in + schedule.thinning * torch.arange(schedule.n_samples)
    expected = steps.view(-1, 1, 1) * torch.arange(3).view(1, 3, 1)
    # After n steps chain i is at n * i; samples lie along the first axis, chains along the second.
    assert torch.equal(run.samples, expected)
    # The last state is there to continue from, and is that of the last sample.
    assert torch.equal(run.state[0], expected[-1])


def test_two_runs_are_one():
    whole = run_chains(count, start(), Schedule(n_samples=7), keep=position)
    first = run_chains(count, start(), Schedule(n_samples=4), keep=position)
    second = run_chains(count, first.state, Schedule(3, burn_in=1), keep=position)
    # A chain has no memory beyond its state.
    assert torch.equal(torch.cat([first.samples, second.samples]), whole.samples)


def test_what_is_kept_is_chosen():
    def step(state):
        x, y = state
        return x + 1, y * 2

    state = (torch.zeros(4, 2), torch.ones(4))
    run = run_chains(step, state, Schedule(2, 3, 2), keep=lambda state: state[1])
    # y doubles: after 3 and after 5 steps it is 8 and 32.
    assert run.samples.tolist() == [[8.0] * 4, [32.0] * 4]
    # The whole state goes on, whatever is kept of it.
    assert run.state[0].tolist() == [[5.0, 5.0]] * 4


def test_moved_tells_which_chains_were_ever_elsewhere():
    run = run_chains(count, start(), Schedule(burn_in=2), keep=position)
    # Chain 0 advances by 0.
    assert run.moved.tolist() == [False, True, True]

    def oscillate(state):
        return ((state[0] + torch.tensor([[0], [1], [1]])) % 2,)

    run = run_chains(oscillate, start(), Schedule(burn_in=4), keep=position)
    # Chains 1 and 2 are back where they began, but they were elsewhere in between.
    assert run.state[0].sum() == 0
    assert run.moved.tolist() == [False, True, True]


def test_a_chain_that_starts_late_has_moved():
    def wait(state):
        (clock,) = state
        return (clock + 1,)

    def clock_from_three(state):
        return (state[0] - 3).clamp(min=0)

    def moved(burn_in):
        return run_chains(
            wait, start(), Schedule(burn_in=burn_in), keep=position, watch=clock_from_three
        ).moved.tolist()

    # It is watched until it has moved: for 3 steps nothing is seen of it, with the fourth it is.
    assert moved(3) == [False] * 3
    assert moved(4) == [True] * 3


def test_without_steps_nothing_has_moved():
    # A chain that took no step is where it began.
    assert not run_chains(count, start(), Schedule(), keep=position).moved.any()


def test_one_entry_is_enough_to_have_moved():
    def step(state):
        return (state[0].index_put((torch.tensor(1), torch.tensor(0), torch.tensor(2)), one),)

    one = torch.tensor(1.0)
    run = run_chains(step, (torch.zeros(2, 2, 3),), Schedule(burn_in=1), keep=position)
    # A state is a tensor of any shape per chain; it differs if any entry does.
    assert run.moved.tolist() == [False, True]


def test_another_tensor_may_be_watched():
    def step(state):
        x, y = state
        return x + 1, y

    state = (torch.zeros(3), torch.zeros(3))
    run = run_chains(step, state, Schedule(burn_in=2), keep=lambda s: s[0], watch=lambda s: s[1])
    # What is kept moves, what is watched does not: Gaussian units always do, hidden ones need not.
    assert run.samples.tolist() == [[2.0] * 3]
    assert not run.moved.any()


def test_listener_hears_of_each_step():
    heard = []
    run_chains(
        count,
        start(),
        Schedule(2, 3, 2),
        keep=position,
        listener=lambda *numbers: heard.append(numbers),
    )
    # Steps done and steps in all: 3 of burn-in, 2 to the second sample.
    assert heard == [(n, 5) for n in range(1, 6)]


def test_an_interruption_passes():
    def listener(n_done, n_steps):
        raise KeyboardInterrupt

    # Half a sample is none: Ctrl-C ends the call.
    with pytest.raises(KeyboardInterrupt):
        run_chains(count, start(), Schedule(burn_in=2), keep=position, listener=listener)
