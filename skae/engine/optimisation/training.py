"""The training loop of one model.

What the loop asks, whether there is progress and which weights were best, answers
`skae.engine.optimisation.watching`. Several models in one loop are `skae.engine.joint`.
"""

import time
from dataclasses import replace
from functools import partial
from itertools import islice

import torch

from skae.engine.optimisation import processes
from skae.engine.optimisation.devices import suitable_threads
from skae.engine.optimisation.optimizers import initial_state
from skae.engine.optimisation.replay import Replayed
from skae.engine.optimisation.resuming import Position, kept, restore_
from skae.engine.optimisation.runs import Run, Training
from skae.engine.optimisation.schedules import SCHEDULES
from skae.engine.optimisation.threads import StepThreads
from skae.engine.optimisation.watching import Watch


def train(run: Run) -> Training:
    """Minimise an objective over rows by minibatch gradient steps, in place.

    Within an epoch nothing waits for the device: losses are summed there and read once.
    """
    theta, objective, data, settings = run.theta, run.objective, run.data, run.settings
    optimizer, gradient = settings.optimizer, theta.empty_like()
    if run.state is None:
        run.state = initial_state(optimizer, theta.flat)
    lockstep, n_batches, max_iter = run.lockstep, run.n_batches, run.max_iter
    watch, at, started = Watch(run), Position(), time.perf_counter()
    keeper = run.keeper
    if keeper is not None and keeper.held is not None:
        at = restore_(run, watch, keeper.held)
    seconds_before = at.seconds
    # Rows that are read ahead are drawn between the draws of the steps: no epoch begins amid them.
    whole_epochs = keeper is not None and processes.current().any(run.reads_ahead)

    def seconds():
        return seconds_before + time.perf_counter() - started

    def gradient_at(batch):
        x, weight = data.batch(batch)
        return objective.gradient(theta, x, run.generator, gradient, weight)

    if run.is_replayed:
        gradient_at = Replayed(gradient_at, [run.generator])
    gradient_at = lockstep.gradient_at(gradient_at, gradient.flat)

    def step(batch, progress):
        value = gradient_at(batch)
        rate = settings.learning_rate * SCHEDULES[settings.schedule](progress)
        optimizer.update_(theta.flat, gradient.flat, run.state, rate)
        lockstep.weights_(theta.flat)
        if run.project is not None:
            run.project(theta)
        return value

    def run_epoch(at):
        number, generator, total = at.epoch, run.generator, at.total
        if at.order is not None:
            generator.set_state(at.order)
        elif keeper is not None:
            at.order = generator.get_state()
        if total is None:
            total = torch.zeros((), dtype=theta.flat.dtype, device=theta.flat.device)
        for k, batch in enumerate(islice(run.batches(generator), at.step, None), at.step):
            if k == at.step and at.now is not None:
                generator.set_state(at.now)
            if keeper is not None and not (whole_epochs and k) and keeper.is_due(number, k):
                now = replace(at, step=k, total=total, seconds=seconds())
                keeper.keep(kept(run, watch, now))
            progress = (number + k / n_batches) / max_iter
            value = threads.run(partial(step, batch, progress), batch.shape[0])
            if objective.reports_loss:
                total += value
        if not objective.reports_loss:
            return watch.criterion(watch.probe)
        return (processes.current().sum_(total) / n_batches).item()

    def run_epochs(at):
        if at.order is None:
            watch.begin()
            watch.before_epoch()
        while True:
            loss = run_epoch(at)
            reason = watch.after_epoch(loss) or watch.told(at.epoch, seconds())
            if reason is not None:
                return reason
            at = Position(at.epoch + 1)
            if at.epoch >= max_iter:
                return "max_iter"
            watch.before_epoch()

    is_repeatable = lockstep.are_repeatable and objective.is_repeatable
    with torch.no_grad(), suitable_threads(theta.flat.device, run.largest_product):
        threads = StepThreads(
            [theta.flat, *run.state.values()],
            run.generator,
            n_steps=n_batches * max_iter if is_repeatable else 0,
        )
        try:
            outcome = run_epochs(at)
        except KeyboardInterrupt:
            if processes.current().is_joined:
                raise  # the others cannot go on without this process's rows
            outcome = "interrupted"
        return watch.training(outcome)
