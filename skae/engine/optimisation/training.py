"""The training loop of one model.

What the loop asks, whether there is progress and which weights were best, answers
`skae.engine.optimisation.watching`. Several models in one loop are `skae.engine.joint`.
"""

import time
from functools import partial

import torch

from skae.engine.optimisation.devices import suitable_threads
from skae.engine.optimisation.optimizers import initial_state
from skae.engine.optimisation.replay import Replayed
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
    n_batches, max_iter = run.n_batches, run.max_iter
    watch = Watch(run)

    def gradient_at(batch):
        x, weight = data.batch(batch)
        return objective.gradient(theta, x, run.generator, gradient, weight)

    if run.is_replayed:
        gradient_at = Replayed(gradient_at, [run.generator])

    def step(batch, progress):
        value = gradient_at(batch)
        rate = settings.learning_rate * SCHEDULES[settings.schedule](progress)
        optimizer.update_(theta.flat, gradient.flat, run.state, rate)
        if run.project is not None:
            run.project(theta)
        return value

    def run_epoch(number):
        total = torch.zeros((), dtype=theta.flat.dtype, device=theta.flat.device)
        for k, batch in enumerate(run.batches(run.generator)):
            progress = (number + k / n_batches) / max_iter
            value = threads.run(partial(step, batch, progress), batch.shape[0])
            if objective.reports_loss:
                total += value
        return (
            (total / n_batches).item() if objective.reports_loss else watch.criterion(watch.probe)
        )

    def run_epochs():
        started = time.perf_counter()
        watch.begin()
        for number in range(max_iter):
            watch.before_epoch()
            loss = run_epoch(number)
            reason = watch.after_epoch(loss) or watch.told(number, time.perf_counter() - started)
            if reason is not None:
                return reason
        return "max_iter"

    with torch.no_grad(), suitable_threads(theta.flat.device, run.largest_product):
        threads = StepThreads(
            [theta.flat, *run.state.values()],
            run.generator,
            n_steps=n_batches * max_iter if objective.is_repeatable else 0,
        )
        try:
            outcome = run_epochs()
        except KeyboardInterrupt:
            outcome = "interrupted"
        return watch.training(outcome)
