"""One fit made by two processes beside one process, and a model of how the time grows.

What is measured. An ``AutoEncoder`` on rows of MNIST, one thread for each process, ``--batch`` rows
a step in all: (1) one process with all rows; (2) two processes that know nothing of each other,
each with half of the rows and of the batch, at the same time, the bound of what two can do on this
machine; (3) two processes that make one fit, ``distributed=True``. All three take turns in the same
two processes. An epoch is the difference between two lengths of a fit, so that what is read and
described before the first step does not count. Seconds are of the wall and of the processors; on a
machine that others use the least of several repeats says most.

What is modelled. A step of a process is

    products / rate + numbers of the batch / elementwise + parameters / update + calls
    + latency + bytes of the gradient / network,

whose constants are measured one by one, on no fit of this size: products, elementwise functions and
updates of a rule by themselves, calls by the fit of a tiny model, the network by sums of two sizes;
in one process while the other waits, and in both at once, since they share a core's units and
memory. What it says of the fits is set beside their times. With constants of other machines, which
are assumed and named, the same function says what a large fit would take.

    python examples/benchmarks/processes.py [--rows 10000] [--units 1000] [--batch 1000]
        [--repeats 3] [--quick]
"""

import argparse
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import sklearn
import torch
import torch.distributed as dist
from measuring import load_mnist_in_unit, print_machine, print_table

import skae
from skae import AutoEncoder
from skae.engine.optimisation.optimizers import OPTIMIZERS, initial_state


@dataclass
class Machine:
    """What one process of several can do.

    - ``rate``: operations of matrix products a second; ``elementwise``: numbers a second that pass
      through the functions of a step, ``update``: parameters a second that a step changes;
    - ``calls``: seconds that a step takes, however small;
    - ``latency``, ``network``: seconds of the smallest sum over all processes, and bytes a second
      that a process sends and receives.
    """

    rate: float
    elementwise: float
    update: float
    calls: float
    latency: float = 0.0
    network: float = float("inf")


def parts_of_step(machine, columns, units, batch, processes=1, *, itemsize=4, every=1):
    """Seconds of a step of a tied auto-encoder of one layer, by what they are spent on.

    ``batch`` is that of all processes. A sum over p processes sends 2 (p - 1) / p of its bytes from
    each, in a ring, in as many messages one after the other. Where weights are averaged ``every``
    so many steps, that is the part of a step.
    """
    rows, parameters = batch / processes, columns * units
    messages = 2 * (processes - 1)
    sent = messages / processes * parameters * itemsize
    return {
        "products": 5 * 2 * rows * columns * units / machine.rate,
        "elementwise": rows * (columns + units) / machine.elementwise,
        "update": parameters / machine.update,
        "calls": machine.calls,
        "network": (messages * machine.latency + sent / machine.network) / every,
    }


def seconds_of_epoch(machine, rows, columns, units, batch, processes=1, **options):
    """Seconds of an epoch."""
    step = sum(parts_of_step(machine, columns, units, batch, processes, **options).values())
    return rows / batch * step


# What is measured


CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


def least(function, clock, n_repeats=7, n_calls=1):
    """The least seconds of a call, of several rounds of so many."""
    found = []
    for _ in range(n_repeats):
        start = clock()
        for _ in range(n_calls):
            function()
        found.append((clock() - start) / n_calls)
    return min(found)


def product_rate(rows, columns, units, clock):
    """Operations a second of the five products of a step, in memory that is there."""
    x, h, w = torch.rand(rows, columns), torch.rand(rows, units), torch.rand(units, columns)
    out = torch.empty(rows, units), torch.empty(rows, columns), torch.empty(units, columns)

    def products():
        torch.mm(x, w.t(), out=out[0])
        torch.mm(h, w, out=out[1])
        torch.mm(x, w.t(), out=out[0])
        torch.mm(h.t(), x, out=out[2])
        out[2].addmm_(h.t(), x)

    return 5 * 2 * rows * columns * units / least(products, clock)


def elementwise_rate(rows, columns, units, clock):
    """Numbers a second: a sigmoid, its slope and a loss of the reconstruction; rows picked out."""
    from skae.engine.networks.units import UNITS

    table, x, bernoulli = torch.rand(4 * rows, columns), torch.rand(rows, columns), None
    bernoulli = UNITS["bernoulli"]()
    order, output, hidden = torch.randperm(4 * rows)[:rows], x.clone(), torch.rand(rows, units)

    def pass_through():
        torch.index_select(table, 0, order, out=x)
        bernoulli.value_and_residual_(output.normal_(), x, None, 1.0)
        code = torch.sigmoid(hidden)
        torch.addcmul(code, code, code, value=-1).mul_(hidden)

    drawing = least(lambda: output.normal_(), clock)
    return rows * (columns + units) / (least(pass_through, clock) - drawing)


def update_rate(columns, units, clock):
    """Parameters a second of a step of Adam."""
    flat, gradient = torch.rand(columns * units), torch.rand(columns * units)
    rule = OPTIMIZERS["adam"](0.9)
    state = initial_state(rule, flat)
    return columns * units / least(lambda: rule.update_(flat, gradient, state, 1e-3), clock)


def seconds_of_calls(clock):
    """Of a step of a tiny model: all that it takes but arithmetic."""
    X = np.random.default_rng(0).random((2000, 4)).astype(np.float32)
    return epoch_of(lambda n: tiny(n).fit(X), 20, clock) / (2000 / 10)


def tiny(n_epochs):
    """A model of next to no arithmetic."""
    own = {"batch_size": 10, "n_iter_no_change": None, "random_state": 0, "device": "cpu"}
    return AutoEncoder(2, loss="bernoulli", max_iter=n_epochs, **own)


def epoch_of(fit, n_epochs, clock):
    """Seconds of an epoch: the difference of two lengths."""
    seconds = []
    for n in (1, 1 + n_epochs):
        start = clock()
        fit(n)
        seconds.append(clock() - start)
    return (seconds[1] - seconds[0]) / n_epochs


def network_of(clock):
    """Seconds of the smallest sum, and bytes a second of large ones, over all processes."""
    small, large = torch.zeros(1), torch.zeros(2**21)
    latency, whole = (
        least(lambda t=t: dist.all_reduce(t), clock, n_calls=n)
        for t, n in ((small, 50), (large, 2))
    )
    size = dist.get_world_size()
    messages = 2 * (size - 1)
    sent = messages / size * large.numel() * 4
    return latency / messages, sent / max(whole - latency, 1e-9)


def machines_of(args, rows, is_shared):
    """The constants of this process, as things are now, by each of the clocks."""
    found = {}
    for name, clock in CLOCKS.items():
        latency, network = network_of(clock) if is_shared else (0.0, float("inf"))
        found[name] = Machine(
            rate=product_rate(rows, 784, args.units, clock),
            elementwise=elementwise_rate(rows, 784, args.units, clock),
            update=update_rate(784, args.units, clock),
            calls=seconds_of_calls(clock),
            latency=latency,
            network=network,
        )
    return found


def model_of(args, batch, **options):
    """The model that is fitted; all its time goes into steps."""
    own = {"n_iter_no_change": None, "random_state": 0, "device": "cpu", "loss": "bernoulli"}
    return lambda n: AutoEncoder(args.units, batch_size=batch, max_iter=n, **own, **options)


def work(args):
    """What each of the two processes does."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=600))
    rank, n_epochs = dist.get_rank(), 1 if args.quick else 3
    X = load_mnist_in_unit(args.rows)
    half = np.ascontiguousarray(X[rank::2])
    fits = {
        "one process": (model_of(args, args.batch), X, (0,)),
        "two apart": (model_of(args, args.batch // 2), half, (0, 1)),
        "two together": (model_of(args, args.batch, distributed=True), half, (0, 1)),
    }
    found = {name: [] for name in fits}
    constants = {"alone": [], "both": []}
    for repeat in range(args.repeats):
        for who in ("alone", "both"):
            dist.barrier()
            if who == "both" or rank == 0:
                rows = args.batch if who == "alone" else args.batch // 2
                constants[who].append(machines_of(args, rows, who == "both"))
        names = list(fits)
        for name in names[repeat % 3 :] + names[: repeat % 3]:
            make, rows, ranks = fits[name]
            dist.barrier()
            if rank in ranks:
                wall, cpu = [], []
                for n in (1, 1 + n_epochs):
                    if len(ranks) > 1:
                        dist.barrier()
                    started = time.perf_counter(), time.process_time()
                    make(n).fit(rows)
                    wall.append(time.perf_counter() - started[0])
                    cpu.append(time.process_time() - started[1])
                found[name].append([(b - a) / n_epochs for a, b in (wall, cpu)])
    everything = [None, None]
    dist.all_gather_object(everything, (found, constants))
    if rank == 0:
        report(args, everything)
    dist.destroy_process_group()


def report(args, everything):
    """Print tables of what was measured, and of what the model says."""
    print_machine(skae, sklearn, torch)
    (first, constants), (second, others) = everything
    seconds = {
        name: np.maximum(first[name], second[name]) if second[name] else np.array(first[name])
        for name in first
    }
    rows = []
    for name, of_name in seconds.items():
        wall, cpu = of_name.min(axis=0)
        both = [wall, seconds["one process"][:, 0].min() / wall]
        both += [cpu, seconds["one process"][:, 1].min() / cpu]
        rows.append([name, *(f"{value:.3f}" for value in both)])
    print_table(
        f"An epoch of {args.rows} rows, 784-{args.units}, {args.batch} rows a step in all: least "
        f"of {args.repeats}",
        ["", "seconds", "times as fast", "seconds of a processor", "times as fast"],
        rows,
    )
    for number, clock in enumerate(CLOCKS):
        alone, both = (
            best([machine[clock] for machine in machines])
            for machines in (constants["alone"], constants["both"] + others["both"])
        )
        print_table(
            f"Constants, seconds of the {clock}",
            ["", "GFlop/s", "elementwise M/s", "update M/s", "calls us", "latency us", "MB/s"],
            [
                [name, *(f"{value:.0f}" for value in shown(machine))]
                for name, machine in (("one process", alone), ("each of two", both))
            ],
        )
        shape = args.rows, 784, args.units, args.batch
        told = {
            "one process": seconds_of_epoch(alone, *shape),
            "two together": seconds_of_epoch(both, *shape, 2),
        }
        found = {name: seconds[name][:, number].min() for name in told}
        print_table(
            f"The model beside the measured epochs, seconds of the {clock}",
            ["", "model", "measured", "ratio"],
            [
                [name, f"{told[name]:.3f}", f"{found[name]:.3f}", f"{told[name] / found[name]:.2f}"]
                for name in told
            ],
        )
    print_large_fits()


def best(machines):
    """The best that was seen of each constant: what others of the machine's users left."""
    fields = {name: [vars(machine)[name] for machine in machines] for name in vars(machines[0])}
    least_of = ("calls", "latency")
    return Machine(**{n: min(v) if n in least_of else max(v) for n, v in fields.items()})


def shown(machine):
    """The constants in units that are read easily."""
    return (
        *(machine.rate / 1e9, machine.elementwise / 1e6, machine.update / 1e6),
        *(machine.calls * 1e6, machine.latency * 1e6, machine.network / 1e6),
    )


# What is assumed of a large machine: an H100 in float32 with TensorFloat products off reaches some
# 50 TFlop/s, its memory 3 TB/s, of which a number of the batch takes 40 bytes and a parameter 28 of
# an update; a recorded step's calls 50 us; NCCL over 400 Gbit/s Ethernet or InfiniBand.
GPU = Machine(rate=50e12, elementwise=75e9, update=107e9, calls=50e-6, latency=15e-6, network=40e9)
SLOW = 1.2e9  # bytes a second of Ethernet of 10 Gbit/s


def print_large_fits():
    """Of 1e9 rows x 1,000 columns, on assumed machines."""
    rows, columns, read = 1e9, 1000, 2e9
    found = []
    for processes, batch, every, network in (
        (1, 8192, 1, GPU.network),
        (8, 8192, 1, GPU.network),
        (64, 8192, 1, GPU.network),
        (64, 65536, 1, GPU.network),
        (64, 65536, 1, SLOW),
        (64, 65536, 16, SLOW),
    ):
        machine = Machine(**vars(GPU) | {"network": network})
        parts = parts_of_step(machine, columns, 1000, batch, processes, every=every)
        epoch = rows / batch * sum(parts.values())
        reading = rows * columns * 4 / processes / read
        largest = max(parts, key=parts.get)
        cells = [f"{epoch:.0f}", largest, f"{parts[largest] / sum(parts.values()):.0%}"]
        cells += [f"{reading:.0f}", f"{10 * max(epoch, reading) / 3600:.2f}"]
        found.append([f"{processes} GPUs, {network / 1e9:g} GB/s", batch, every, *cells])
    print_table(
        "Assumed machines: 1e9 rows x 1,000 columns, 1,000 units, float32, 10 epochs",
        ["", "batch", "averaged every", "s an epoch", "most of it", "", "s to read", "hours"],
        found,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--units", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    if "RANK" in os.environ:
        work(args)
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    shared = os.environ | place | {"OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([sys.executable, *sys.argv], env=shared | {"RANK": str(rank)})
        for rank in range(2)
    ]
    sys.exit(max(process.wait() for process in processes))


if __name__ == "__main__":
    main()
