"""Faults that a careless edit could make, and the tests that should notice each."""

from typing import NamedTuple


class Fault(NamedTuple):
    """A change of one place.

    Attributes
    ----------
    place : str
        Below ``skae/``: a file, or the folder of a family.
    what : str
        What is wrong then.
    snippet, replacement : str
        What stands there, exactly once, and what is put in its place.
    tests : tuple of str
        The test files, or tests in them, that should notice.
    """

    place: str
    what: str
    snippet: str
    replacement: str
    tests: tuple


def locate(fault, package):
    """The file in which the fault is to be made.

    Raises
    ------
    ValueError
        If the snippet is not there exactly once.
    """
    place = package / fault.place
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place]
    counts = {file: file.read_text().count(fault.snippet) for file in files}
    if sum(counts.values()) != 1:
        raise ValueError(
            f"{fault.place} has {fault.snippet!r} {sum(counts.values())} times: {fault.what}"
        )
    return max(counts, key=counts.get)


def apply(fault, file):
    """Make the fault in a file."""
    file.write_text(file.read_text().replace(fault.snippet, fault.replacement))


def _in(place, *tests):
    """A function that declares faults of one place, noticed by some tests."""

    def fault(what, snippet, replacement, *others):
        return Fault(place, what, snippet, replacement, others or tests)

    return fault


_ENGINE, _FACE = "tests/engine", "tests/estimators"

_training = _in("engine/optimisation", f"{_ENGINE}/optimisation/test_training.py")
_watching = _in("engine/optimisation", f"{_ENGINE}/optimisation/test_training.py")
_fitting = _in("engine/optimisation", f"{_FACE}/test_composition.py")
_resuming = _in("engine/optimisation/resuming.py", f"{_ENGINE}/optimisation/test_resuming.py")
_sessions = _in("estimators/face/sessions.py", f"{_FACE}/test_checkpoints.py")
_devices = _in("engine/optimisation", f"{_ENGINE}/optimisation/test_devices.py")
_rows = _in("engine/optimisation", f"{_ENGINE}/optimisation/test_rows.py")
_parameters = _in("engine/optimisation", f"{_ENGINE}/optimisation/test_parameters.py")
_optimizers = _in("engine/optimisation", f"{_ENGINE}/optimisation/test_optimizers.py")
_draws = _in("engine/optimisation", f"{_ENGINE}/optimisation/test_draws.py")
_units = _in("engine/networks", f"{_ENGINE}/networks/test_units.py")
_layers = _in("engine/networks", f"{_ENGINE}/networks/test_layers.py")
_corruptions = _in("engine/networks", f"{_ENGINE}/networks/test_corruptions.py")
_penalties = _in(
    "engine/networks",
    f"{_ENGINE}/networks/test_penalties.py",
    f"{_ENGINE}/networks/test_objectives.py",
)
_neighbours = _in(
    "engine/networks/neighborhoods.py",
    f"{_ENGINE}/networks/test_neighborhoods.py",
    f"{_ENGINE}/networks/test_objectives.py",
)
_objectives = _in("engine/networks", f"{_ENGINE}/networks/test_objectives.py")
_maps = _in("engine/networks", f"{_ENGINE}/networks/test_affine_maps.py")
_jacobians = _in("engine/networks", f"{_ENGINE}/networks/test_jacobians.py")
_columns = _in("estimators/face", f"{_FACE}/test_data_forms.py")
_transformer = _in("estimators/face", f"{_FACE}/test_composition.py")
_outcomes = _in("estimators/face", f"{_FACE}/test_bad_input.py")
_validation = _in("_validation.py", f"{_FACE}/test_bad_input.py")
_SHARED = f"{_FACE}/test_processes.py::test_two_processes_learn_what_one_does_of_all_rows"
_processes = _in("engine/optimisation", _SHARED)
_finite = _in("sources/finite.py", f"{_FACE}/test_bad_input.py")
_blocks = _in("engine/optimisation/windows.py", f"{_ENGINE}/optimisation/test_sources.py")
_frames = _in("frames", f"{_FACE}/tables/test_frames.py")
_gaps = _in("engine/networks", f"{_ENGINE}/networks/test_gaps.py")
_features = _in("estimators/tables", f"{_FACE}/tables/test_features.py")
_imputer = _in("estimators/tables", f"{_FACE}/tables/test_imputer.py")
_outliers = _in("estimators/tables", f"{_FACE}/tables/test_outliers.py")
_kernels = _in("engine/stacks", f"{_ENGINE}/stacks/test_kernel_output.py")
_densities = _in("estimators/density/models.py", f"{_FACE}/density")
_outputs = _in("estimators/supervised", f"{_FACE}/supervised/test_kernel_output.py")
_machines = _in(
    "engine/boltzmann",
    f"{_ENGINE}/boltzmann/test_learning.py",
    f"{_FACE}/boltzmann/test_rbm.py",
)
_energies = _in(
    "engine/boltzmann",
    f"{_ENGINE}/boltzmann/test_energies.py",
    f"{_ENGINE}/boltzmann/test_learning.py",
)
_tempering = _in(
    "engine/boltzmann",
    f"{_ENGINE}/boltzmann/test_tempering.py",
    f"{_ENGINE}/boltzmann/test_annealing.py",
)
_pseudo = _in("engine/boltzmann", f"{_ENGINE}/boltzmann/test_pseudo_likelihood.py")
_chains = _in("engine/boltzmann", f"{_ENGINE}/boltzmann/test_chains.py")
_problem = _in("engine/sparse", f"{_ENGINE}/sparse/test_problem.py")
_dictionaries = _in("engine/sparse", f"{_ENGINE}/sparse/test_dictionaries.py")
_stacking = _in(
    "engine/stacks",
    f"{_ENGINE}/stacks/test_stacking.py",
    f"{_ENGINE}/stacks/test_unrolled.py",
)
_supervised = _in("engine/stacks", f"{_ENGINE}/stacks/test_supervised.py")
_tangents = _in("engine/tangents", f"{_ENGINE}/tangents/test_semi_supervised.py")
_distance = _in("engine/tangents", f"{_ENGINE}/tangents/test_distance.py")
_images = _in("engine/images.py", f"{_ENGINE}/test_images.py", f"{_ENGINE}/test_whitening.py")
_targets = _in(
    "estimators/targets.py",
    f"{_FACE}/supervised/test_regressor.py",
    f"{_FACE}/supervised/test_classifier.py",
)
_spectra = _in("diagnostics", "tests/diagnostics/test_spectra.py")
_penalties_named = _in("estimators/penalties.py", f"{_FACE}/test_composition.py")
_auto_encoders = _in("estimators/auto_encoders.py", f"{_FACE}/test_composition.py")

_joint = _in("engine", f"{_ENGINE}/joint/test_joint_training.py")
_searches = _in("estimators/search", f"{_FACE}/search/test_searches.py")

FAULTS = [
    # Several trainings as one
    _joint(
        "models that ended go on with the others",
        "stay = [place for place, member in enumerate(self.members) if member not in ends]",
        "stay = list(range(len(self.members)))",
    ),
    _joint(
        "those that go on have the penalties of the first",
        "some.penalties = [of_some(penalty, places) for penalty in self.penalties]",
        "some.penalties = [of_some(p, list(range(len(places)))) for p in self.penalties]",
    ),
    _joint(
        "a part has the models of another",
        "return [order[start:stop] for start, stop in pairwise(ends)]",
        "return [order[:stop] for start, stop in pairwise(ends)]",
    ),
    _joint(
        "all take their steps at the first one's rate",
        "for _, same in groupby((self.runs[member] for member in members), key=_pace):",
        "for _, same in groupby((self.runs[member] for member in members), key=bool):",
    ),
    _joint(
        "rows that fill up a batch count",
        "* (n / max(1, length))",
        "* 1.0",
    ),
    _joint(
        "batches of any size are drawn at once",
        "and not any((sizes * n_columns % number).any() for number in draws)",
        "",
    ),
    _joint(
        "streams of different noise are taken for one",
        "return run.data.fingerprint, digest(run.generator.get_state()), run.objective.joint.noise",
        "return run.data.fingerprint, digest(run.generator.get_state())",
    ),
    _joint(
        "neighbours are taken to have the units of the first",
        "if found and found[-1][0].likeness == units.likeness:",
        "if found:",
    ),
    _joint(
        "tasks of different seeds are taken for one",
        "return identity, rows, state, arrays",
        "return identity, rows, arrays",
    ),
    _joint(
        "one that fails takes the others with it",
        "results[number] = error if is_alone else _by_itself(tasks[number], states[number])",
        "results[number] = error",
    ),
    _joint(
        "a rendezvous trains before all have come",
        "return self._knows_all and is_full and pending == len(self._members)",
        "return self._knows_all and pending > 0",
    ),
    _in("engine/boltzmann", f"{_ENGINE}/boltzmann/test_joint.py")(
        "machines that go on have the chains of the first",
        'name: value if name == "n_steps" else value[places]',
        'name: value if name == "n_steps" else value[: len(places)]',
    ),
    _in("engine/boltzmann", f"{_ENGINE}/boltzmann/test_joint.py")(
        "rows that fill up a batch count in the offsets",
        "counted.sum(-1, keepdim=True)\n        return self.visible_offset",
        "counted.shape[-1]\n        return self.visible_offset",
    ),
    _in("estimators/face", f"{_FACE}/search/test_searches.py")(
        "what one candidate has described is taken for any loss",
        '"columns", rows, digest(row_weight), loss, names, parameter, gaps, has_grid',
        '"columns", rows, digest(row_weight), names, parameter, gaps, has_grid',
    ),
    _searches(
        "processes go on with a search that was stopped",
        "                os.remove(self._mark)",
        "                pass",
    ),
    _searches(
        "what a process was stopped in counts as finished",
        "self.unfinished |= {first + number for number in unfinished}",
        "pass",
    ),
    _joint(
        "large models leave the cache together",
        "n_parts = len(members) if is_large else max(n_parts, n_threads)",
        "n_parts = max(n_parts, n_threads)",
        f"{_FACE}/search/test_searches.py",
    ),
    _in("engine/optimisation", f"{_ENGINE}/optimisation/test_sharing.py")(
        "arrays that agree in some entries are the same",
        "if np.array_equal(known.array.view(bits.dtype), bits):",
        "if known is not None:",
    ),
    _in("engine/optimisation", f"{_ENGINE}/optimisation/test_sharing.py")(
        "content changes with the array that it was of",
        'self.array = np.array(array, order="C")',
        "self.array = array",
    ),
    _searches(
        "the whole search is fitted as one, the refit too",
        "        stack.close()\n        if interrupt",
        "        if interrupt",
    ),
    _searches(
        "all of a search that was stopped counts as finished",
        "finished[[number // n_splits for number in unfinished]] = False",
        "pass",
    ),
    # Blocks of rows
    _in("engine/optimisation/models.py", f"{_FACE}/test_memory.py")(
        "blocks of rows count columns alone",
        "width = max(width, model.width)",
        "width = 0",
    ),
    # Threads of a training
    _in("engine/optimisation", f"{_ENGINE}/optimisation/test_threads.py")(
        "the number of threads is chosen whatever its bits",
        "if not _same(value, other) or not all(map(_same, self.state, after)):",
        "if False:",
    ),
    _in("engine/optimisation", f"{_ENGINE}/optimisation/test_threads.py")(
        "the second of two measured steps draws other random numbers",
        "self.generator.set_state(draws)",
        "pass",
    ),
    # The loop
    _training(
        "the schedule moves once an epoch, not once a step",
        "(number + k / n_batches) / max_iter",
        "number / settings.max_iter",
    ),
    _training(
        "batches are not shuffled",
        "return index[torch.randperm(len(index), generator=generator, device=index.device)]",
        "return index",
    ),
    _training(
        "the constraint is not applied after a step",
        "if run.project is not None:",
        "if run.project is None:",
    ),
    _training(
        "weights of the first rows count for every batch",
        "self.weight[index]\n        return self.rows.take(index), weight",
        "self.weight[: len(index)]\n        return self.rows.take(index), weight",
    ),
    _training(
        "the loss is a sum over batches",
        "(processes.current().sum_(total) / n_batches).item()",
        "total.item()",
    ),
    _training(
        "gradients add up from step to step",
        "    out.flat.zero_()\n",
        "",
        f"{_ENGINE}/optimisation/test_training.py::test_gradients_by_autograd_are_written_afresh",
    ),
    # What is watched
    _watching(
        "training waits one epoch too long",
        "self.n_stale >= self.patience",
        "self.n_stale > self.patience",
    ),
    _watching(
        "the best weights are those after the epoch, whose loss was of those before it",
        "            self.judged.copy_(self.trained.flat)",
        "            pass",
    ),
    _watching(
        "weights that are not finite pass where the loss is finite",
        "if not (math.isfinite(loss) and self._is_finite):",
        "if not math.isfinite(loss):",
    ),
    _watching(
        "the criterion is judged under other noise at every call",
        "torch.Generator(device).manual_seed(0)",
        "torch.Generator(device).manual_seed(torch.Generator(device).seed())",
    ),
    _watching(
        "weights of held-out rows are not made to mean 1",
        "None if weight is None else weight / mean_weight",
        "weight",
    ),
    _watching(
        "early stopping keeps the last weights",
        'if outcome == "diverged" or is_broken or self.validation_curve:',
        'if outcome == "diverged" or is_broken:',
    ),
    # A fit
    _fitting(
        "the generator starts anew where training resumes",
        "generator = _resumed(generator, start.state)",
        "pass",
        f"{_FACE}/test_composition.py::test_partial_fit_carries_moments_and_noise_over",
    ),
    _fitting(
        "moments start anew where training resumes",
        "moments = _moments(start.state, settings.optimizer, theta)",
        "pass",
        f"{_FACE}/test_composition.py::test_partial_fit_carries_moments_and_noise_over",
    ),
    _fitting(
        "held-out rows are trained on as well",
        "return index[order[n_held_out:]], index[order[:n_held_out]]",
        "return index, index[order[:n_held_out]]",
        f"{_ENGINE}/optimisation/test_fitting.py",
    ),
    _fitting(
        "the check of the last row to train on is gone",
        "if n_held_out >= len(index):",
        "if n_held_out > len(index):",
        f"{_FACE}/test_bad_input.py::test_early_stopping_needs_rows",
    ),
    _fitting(
        "rows of weight 0 are trained on",
        "    if weight is not None:\n        return torch.tensor(np.flatnonzero(weight))",
        "    if weight is not None:\n        return torch.arange(len(weight))",
        f"{_FACE}/test_composition.py::test_rows_of_weight_zero_do_not_count",
    ),
    _fitting(
        "rows of weight 0 are trained on where there are targets",
        "torch.arange(n_rows) if weight is None else torch.tensor(np.flatnonzero(weight))",
        "torch.arange(n_rows)",
        f"{_FACE}/supervised/test_classifier.py::test_rows_of_weight_zero_do_not_matter",
    ),
    _devices(
        "threads are not given back after an error",
        "    try:\n        yield\n    finally:\n        torch.set_num_threads(n_threads)",
        "    yield\n    torch.set_num_threads(n_threads)",
        f"{_FACE}/test_reproducibility.py::test_global_states_are_left_alone_on_errors",
    ),
    _devices(
        "memory is not checked",
        "if available is not None and n_bytes > available:",
        "if available is None:",
        f"{_FACE}/test_bad_input.py::test_too_little_memory",
    ),
    # Rows
    _rows(
        "rows on the device are not centred", "(tensor - shift).div_(scale)", "tensor.div(scale)"
    ),
    _rows(
        "streamed rows are not centred",
        "tensor.sub_(self.shift).div_(self.scale)",
        "tensor.div_(self.scale)",
    ),
    _rows(
        "the spread between blocks counts too much",
        "change**2 * (total * part)",
        "change**2 * block_total",
    ),
    _rows(
        "the mean of a block ignores weights",
        "block_sum = weight @ block\n",
        "block_sum = block.mean(0) * block_total\n",
    ),
    _rows(
        "zeros that a sparse matrix does not store do not vary",
        "        square += (total - column_sums(entry_weight)) * mean**2\n",
        "",
    ),
    _parameters(
        "leaves do not write into the flat gradient",
        "            leaf.grad = gradient[name]\n",
        "",
    ),
    _optimizers(
        "layers of a stack step at one rate", "part, rate * learning_rate)", "part, learning_rate)"
    ),
    _optimizers(
        "Nesterov's momentum is plain momentum",
        '"nesterov": self.nesterov}',
        '"nesterov": False}',
    ),
    _draws(
        "coins are drawn by the global generator",
        "None, generator=generator)\n    threshold",
        "None)\n    threshold",
    ),
    # Units, layers, corruptions
    _units(
        "the slope of a Bernoulli mean misses a factor",
        "return (r * (1 - r)).unsqueeze(-1) * matrix",
        "return r.unsqueeze(-1) * matrix",
        f"{_ENGINE}/networks/test_units.py",
        f"{_ENGINE}/networks/test_objectives.py",
    ),
    _units(
        "the constant of a Gaussian density counts one column",
        "torch.log(scale) + 0.5 * math.log(2 * math.pi)",
        "torch.log(scale) + 0.5 * math.log(2 * math.pi) / len(scale)",
        f"{_ENGINE}/networks/test_units.py",
        f"{_FACE}/test_composition.py",
    ),
    _units(
        "weighted columns of a multinomial have the plain residual",
        "a.mul_(target.sum(-1, keepdim=True)).sub_(target)",
        "a.sub_(target)",
    ),
    _units(
        "mixed units write the residual of the last part only",
        "            _put_(a, columns, residual)\n            value = value + part",
        "            _put_(a, columns, residual)\n            value = part",
    ),
    _layers(
        "the sigmoid's curvature has the wrong sign", "slope, h, value=-2)", "slope, h, value=2)"
    ),
    _layers(
        "deep nets start with the weights of one layer",
        "nonlinearity.gain if network.depth == 1 else nonlinearity.deep_gain",
        "nonlinearity.gain",
        f"{_FACE}/test_collapse.py::test_deep_defaults_learn_more_than_the_mean",
    ),
    _layers(
        "the output's bias starts at zero", '    theta["visible_bias_0"].copy_(output_bias)\n', ""
    ),
    _corruptions(
        "Gaussian noise comes from the global generator",
        "noise = torch.empty_like(x).normal_(generator=generator)\n        if isinstance",
        "noise = torch.randn_like(x)\n        if isinstance",
    ),
    _corruptions("the level of the noise is squared", "alpha=level)", "alpha=level**2)"),
    # Penalties and criteria
    _penalties(
        "the mean over random directions is their sum",
        "return signs.div_(n_directions**0.5)",
        "return signs",
    ),
    _penalties(
        "a deep contraction does not reach the slopes of the layers",
        "delta.add_(curvature(hidden, slope * change), alpha=n_rows)",
        "pass",
    ),
    _penalties(
        "the deltas of lower layers are left out",
        "if deltas is not None and level <= len(deltas):",
        "if deltas is not None and level == len(deltas):",
    ),
    _penalties(
        "rows do not weigh in the gradient by the Gram matrix",
        "gradient.addmm_(u.t() @ (u * each), weight)",
        "gradient.addmm_(u.t() @ u, weight)",
    ),
    _penalties(
        "weight decay is twice what it should be",
        "add_(g, w, self.weight)",
        "add_(g, w, 2 * self.weight)",
    ),
    _penalties(
        "weighted activities are no fractions",
        "return activity / forward.row_weight.mean(-1, keepdim=True)",
        "return activity",
    ),
    _penalties(
        "the contraction's gradient through the code misses a factor",
        "forward.weighted_(change), (norms * twice).unsqueeze(-2))",
        "forward.weighted_(change), (norms * self.weight).unsqueeze(-2))",
    ),
    _penalties(
        "the neighbour's slope is the row's own",
        "delta = nonlinearity.curvature(code, other * change)",
        "delta = nonlinearity.curvature(code, slope * change)",
    ),
    _penalties(
        "noisy copies are not averaged",
        "return total / self.n_samples\n\n    def add",
        "return total\n\n    def add",
    ),
    _penalties(
        "a penalty for codes of another range is taken",
        "if code_range[0] < needed[0] or code_range[1] > needed[1]:",
        "if code_range[0] < needed[0] and code_range[1] > needed[1]:",
        f"{_FACE}/test_bad_input.py::test_parameters_that_do_not_go_together",
    ),
    _objectives(
        "sample weights are lost where components are emphasised",
        "else column_weight * rows",
        "else column_weight",
    ),
    _objectives(
        "the gradient of untied weights adds up from step to step",
        '        if not self.network.tied:\n            out["weight_0"].zero_()\n',
        "",
    ),
    _objectives(
        "emphasis is the wrong way round",
        "mul_(self.corrupted - self.untouched).add_(self.untouched)",
        "mul_(self.untouched - self.corrupted).add_(self.corrupted)",
    ),
    _objectives(
        "the closed form ignores the code's slope",
        'decoder_weight.t(), out=buffers["delta"]).mul_(slope)',
        'decoder_weight.t(), out=buffers["delta"])',
    ),
    _maps(
        "standardisation is forgotten on the way back",
        "                delta.mul_(step.gain)\n",
        "                pass\n",
    ),
    _maps(
        "inputs that stay are not enlarged",
        "keep.mul_(1 / (1 - step.dropout))",
        "keep",
    ),
    _jacobians(
        "a layer's slope is on the wrong side",
        "        if level > 0:\n            factor = factor @ weights[level]",
        "        if level > 1:\n            factor = factor @ weights[level]",
    ),
    # The face
    _columns(
        "weights do not count in the columns' statistics",
        "summary = _summary(X, row_weight)",
        "summary = _summary(X, None)",
        f"{_FACE}/test_composition.py::test_integer_weights_are_repetitions_in_one_batch",
    ),
    _columns(
        "constant columns are divided by their rounding errors",
        "np.where(constant, 1.0, std)[columns]",
        "np.maximum(std, 1e-300)[columns]",
    ),
    _columns(
        "reconstructions are not shifted back",
        "            values += self.shift.astype(values.dtype)\n",
        "",
        f"{_FACE}/test_composition.py::test_gaussian_score",
    ),
    _columns(
        "two one-hot variables become one",
        "len(merged) if UNITS[name].sums_to_one else None",
        "None",
        f"{_FACE}/test_data_forms.py::test_columns_of_one_kind_are_one_part",
    ),
    _columns(
        "the domain of the units is not checked in fit",
        "    _check_parts(parts, X, summary, feature_names, parameter)\n\n",
        "\n",
        f"{_FACE}/test_bad_input.py::test_likelihoods_are_of_the_domain_of_the_loss",
    ),
    _transformer(
        "partial_fit forgets the curve",
        "self.loss_curve_ = earlier + training.loss_curve",
        "self.loss_curve_ = training.loss_curve",
        f"{_FACE}/test_composition.py::test_partial_fit_returns_self_and_learns",
    ),
    _transformer(
        "fit leaves what partial_fit kept",
        'self.__dict__.pop("_training_state", None)',
        "pass",
        f"{_FACE}/test_composition.py::test_fit_after_partial_fit_forgets",
    ),
    _transformer(
        "layers may change between fit and transform",
        "if {name: array.shape for name, array in weights.items()} != dict(model.shapes):",
        "if len(weights) != len(model.shapes):",
        f"{_FACE}/test_composition.py::test_warm_start_with_other_layers_is_refused",
    ),
    _transformer(
        "scores are not averaged by weights",
        "np.average(scores, weights=weight)",
        "np.average(scores)",
        f"{_FACE}/test_composition.py::test_score_takes_weights",
    ),
    _transformer(
        "rows outside of the domain are scored",
        "        self.columns_.check(X, column_names(self))\n        return X",
        "        return X",
        f"{_FACE}/test_bad_input.py::test_likelihoods_are_of_the_domain_of_the_loss",
    ),
    _outcomes(
        "a fit that fails takes the model with it",
        "        vars(model).update(before)\n",
        "",
        f"{_FACE}/test_bad_input.py::test_failure_inside_training_leaves_a_fitted_model_as_it_was",
    ),
    _outcomes(
        "what reads rows once stands outside of what undoes a fit",
        "        called = fit if batches is None else batches(fit)\n",
        "        called = fit if batches is None else learns(batches=None)(batches(fit))\n",
        "tests/test_architecture.py::test_decorators_stand_in_one_order",
    ),
    _outcomes(
        "a training that learned nothing is passed off as a model",
        'raise ValueError(f"{message}. Nothing was learned.")',
        "pass",
        f"{_FACE}/test_bad_input.py::test_divergence_at_once",
    ),
    _outcomes(
        "collapsed codes are not reported",
        "collapsed = constant.mean() >= _COLLAPSED",
        "collapsed = constant.mean() > 1",
        f"{_FACE}/test_collapse.py",
    ),
    _outcomes(
        "what a user has set is not checked",
        "if value is not legal.get(n, _UNKNOWN)}",
        "if value is legal.get(n, _UNKNOWN)}",
        f"{_FACE}/test_bad_input.py::test_impossible_parameters",
    ),
    _outcomes(
        "a default is illegal",
        "default=0.1,\n        constraints=[Interval(Real, 0, 1,",
        "default=1.5,\n        constraints=[Interval(Real, 0, 1,",
        f"{_FACE}/test_bad_input.py::test_defaults_are_legal",
    ),
    _validation(
        "sums of huge weights overflow",
        "    weight = weight / max(everyone.gather(weight.max()))\n",
        "",
    ),
    _validation(
        "weights are not made to mean 1",
        "return weight * (everyone.total(np.count_nonzero(weight)) / everyone.total(weight.sum()))",
        "return weight",
        f"{_FACE}/test_bad_input.py::test_weights_have_mean_one_and_any_size",
    ),
    _finite(
        "infinite entries that a sparse matrix stores are taken",
        "if not is_right(X.data).all():",
        "if np.isnan(X.data).any():",
    ),
    _finite(
        "rows are counted from the start of their block",
        "_raise_not_finite(block[row, column], start + row, column, feature_names, where)",
        "_raise_not_finite(block[row, column], row, column, feature_names, where)",
    ),
    _blocks(
        "what is left of a window is lost",
        "rest = rest.cpu().numpy()",
        "rest = 0 * rest.cpu().numpy()",
    ),
    _blocks(
        "the blocks of an epoch come in order of the file",
        "        blocks = blocks.cpu().numpy()",
        "        blocks = blocks.sort()[0].numpy()",
    ),
    _blocks(
        "held-out rows are trained on, too",
        "return RowRange(self.n_rows, self.grain, self.most, rest), held_out",
        "return RowRange(self.n_rows, self.grain, self.most), held_out",
    ),
    _blocks(
        "a source that has grown is read as far as it was",
        "        self.source.check_length()\n",
        "",
    ),
    _frames(
        "the extremes of a column are those of some rows",
        "[sample, np.setdiff1d(self.witnesses, sample), [np.nan]]",
        "[sample, [np.nan]]",
        f"{_FACE}/test_rows_from_anywhere.py",
    ),
    _frames(
        "what is fixed comes back as the model sees it",
        "columns[number] = cells.over(columns[number])",
        "pass",
        f"{_FACE}/boltzmann/test_fixed.py",
    ),
    _frames(
        "columns named by numbers may change places",
        "if labels != known and len(labels)",
        "if False and len(labels)",
        f"{_FACE}/tables/test_frames.py",
    ),
    _frames(
        "times are as fine as floats",
        "np.round(x * self.parts) / self.parts if self.is_whole else x",
        "np.round(x) if self.is_whole and self.parts == 1 else x",
        f"{_FACE}/tables/test_rows_come_back.py",
    ),
    _penalties_named(
        "the user's own penalties are left out",
        "return [*penalties, *model.penalties]",
        "return penalties",
        "tests/test_places_to_touch.py",
    ),
    _densities(
        "salt and pepper know nothing of the columns",
        "return corruption.for_columns(*map(place.tensor, ends), columns.variables, fill)",
        "pass",
        f"{_FACE}/test_composition.py::test_salt_and_pepper_are_the_ends_of_the_columns",
    ),
    # Tables
    _frames(
        "numbers are scaled by their tails",
        "width = (high - low) / _QUARTILES or x.std()",
        "width = x.std()",
    ),
    _frames(
        "categories that were never seen are none of the others",
        "out[place < 0] = np.nan",
        "out[place < 0] = 0",
    ),
    _frames(
        "columns of a category are independent",
        'groups.append(("multinomial", np.array(columns)))',
        'parts["bernoulli"] += columns',
    ),
    _frames(
        "rows of weight zero choose the categories",
        "        return weight > 0\n",
        "        pass\n",
    ),
    _frames(
        "rare categories come back by a name that no row had",
        "[*self.categories[:-1], self.pooled[0]] if self.pooled else",
        "",
    ),
    _frames(
        "numbers come back beyond those of the training rows",
        "x = np.clip(x, self.minimum, self.maximum)",
        "x = np.asarray(x)",
    ),
    _transformer(
        "scores are of the clipped numbers",
        "self.encoding_.log_derivative(rows, columns) for",
        "np.zeros(len(rows)) for",
        f"{_FACE}/tables/test_frames.py",
    ),
    _columns(
        "a gap of a category is a bit of each",
        "                fill[columns] = 0\n",
        "                pass\n",
        f"{_FACE}/test_gaps.py",
    ),
    _gaps(
        "the constant of what was not observed counts",
        "return loss - missing_constant(units, mask, a.dtype)",
        "return loss",
    ),
    _corruptions(
        "columns of a one-hot variable are swapped one by one",
        "if variables is not None and len(variables) < len(minimum):",
        "if False:",
    ),
    _corruptions(
        "a row is swapped with itself",
        "source = torch.arange(1, n + 1, device=x.device)",
        "source = torch.arange(n, device=x.device)",
    ),
    _features(
        "blocks have the lengths that they happen to have",
        "scale * (float(np.sqrt(square)) or 1.0)))",
        "scale))",
    ),
    _features(
        "the share of a variable is that of each of its columns",
        "np.trace(np.linalg.inv(of_own)) / variance[own].sum()",
        "1 / np.diag(of_own)",
    ),
    _features("copies of a column count alike", "weight) ** -0.25", "weight) ** 0.0"),
    _neighbours("rows are their own neighbours", ".fill_diagonal_(math.inf)", ""),
    _neighbours(
        "the code's neighbours pull in one direction",
        "        pull.scatter_add_(0, (places * n_rows + rows).view(-1), each)\n",
        "",
    ),
    _neighbours("the entropy is perplexity", "math.log(perplexity)", "perplexity"),
    _features(
        "gaps have no column",
        "parts = [filled, torch.isnan(x[:, gaps]).to(x.dtype)]",
        "parts = [filled, torch.isnan(filled[:, gaps]).to(x.dtype)]",
    ),
    _imputer(
        "draws have no spread",
        "return guess + rng.choice(self.residuals, size=guess.shape)",
        "return guess",
    ),
    _imputer(
        "both guesses count whole",
        "return self._replace(network=network, normal=normal, residuals=residuals)",
        "return self._replace(network=1.0, normal=1.0, residuals=residuals)",
    ),
    _imputer(
        "fills stay standardised",
        "filled[:, self._columns] = rows * self._scale + self._shift",
        "filled[:, self._columns] = rows",
    ),
    _outliers(
        "what is clipped is as usual as what is near",
        "terms[:, self.scaled] += weight * derivatives[:, self.scaled]",
        "pass",
    ),
    _outliers(
        "what was not observed is odd",
        "return terms if mask is None else terms * mask",
        "return terms",
    ),
    _outliers(
        "rows of weight zero place the fence",
        "share = np.cumsum(weight[order])",
        "share = np.cumsum(np.ones(len(order)))",
    ),
    _kernels(
        "a row knows its own target when it is left out",
        "without = torch.where(rest > 0, (total - unit.unsqueeze(1) * targets) / rest, offset)",
        "without = offset.expand_as(targets)",
    ),
    _kernels(
        "weights do not count in the distances",
        "below = weight[order].cumsum(0)[:-1]",
        "below = torch.full_like(x, 1 / len(x)).cumsum(0)[:-1]",
    ),
    _kernels(
        "the slope of the log-odds is a logarithm",
        "return Calibration(math.exp(found[0]),",
        "return Calibration(found[0],",
    ),
    _outputs(
        "tables of categories alone are taken for images",
        "return is_table or not columns.are_intensities",
        "return not columns.are_intensities",
    ),
    _outputs(
        "layers below a kernel are tuned all the same",
        "is_tuned: ClassVar[bool] = False",
        "is_tuned: ClassVar[bool] = True",
    ),
    _outputs(
        "a kernel counts labels by their number, not by their weight",
        "scale = model.labelled_weight_ / np.mean(known or targets.labelled.sum())",
        "scale = 1.0",
    ),
    # Boltzmann machines
    _machines(
        "particles count like rows where chains are persistent",
        "(row_weight.mean() / m).expand(m)",
        "(row_weight.mean() / n).expand(m)",
    ),
    _machines(
        "the loss is one column's, not that of all",
        "losses -= n_variables * machine",
        "losses -= 1.0 * machine",
    ),
    _machines(
        "persistent chains start anew at every step",
        'self.state["chains"] = machine.draw_hidden(particle_code, generator)',
        'self.state["chains"] = before',
    ),
    _machines(
        "a penalty's gradient is a sum over rows",
        "return forward.delta.div_(len(x))",
        "return forward.delta",
    ),
    _machines(
        "learned variances have no bounds",
        "torch.maximum(log_variance, least_log, out=log_variance).clamp_(max=0.0)",
        "pass",
    ),
    _energies(
        "the weights' step ignores how much a row counts",
        "hidden.mul_(share.unsqueeze(1))",
        "hidden",
    ),
    _energies(
        "centring is forgotten in the hidden biases' step",
        "            step.hidden_bias.addmv_(step.weight, offsets[0], alpha=-1)\n",
        "",
    ),
    _energies(
        "the free energy has the wrong sign of the hidden part",
        "return self.visible_energy(visible) - softplus(self.hidden_input(visible)).sum(-1)",
        "return self.visible_energy(visible) + softplus(self.hidden_input(visible)).sum(-1)",
    ),
    _energies(
        "tempered hidden units have the cold ones' input",
        "hidden = bernoulli(torch.mul(energies[2], beta).sigmoid_(), generator)",
        "hidden = bernoulli(torch.sigmoid(energies[2]), generator)",
        f"{_ENGINE}/boltzmann/test_tempering.py",
        f"{_ENGINE}/boltzmann/test_annealing.py",
    ),
    _tempering("swaps are always accepted", ") < gain\n", ") < gain.abs() + 1e9\n"),
    _tempering(
        "chains count as many as they are in the mean weight",
        "float(torch.logsumexp(log_weight, 0)) - math.log(n_chains)",
        "float(torch.logsumexp(log_weight, 0))",
    ),
    _machines(
        "a deep machine of copies serves all steps",
        "return self._latest[1].renewed()",
        "return self._latest[1]",
        f"{_ENGINE}/boltzmann/test_deep.py::test_every_step_is_at_the_parameters_of_the_time",
    ),
    _pseudo(
        "the unit's own part stays in the hidden units' input",
        "without = a - x * weight",
        "without = a",
    ),
    _chains(
        "a chain's first sample comes one step late",
        "+ (self.n_samples - 1) *",
        "+ self.n_samples *",
    ),
    # Sparse codes
    _problem(
        "codes are shrunk by the penalty, not by the step's part of it",
        "threshold = self.alpha * step",
        "threshold = self.alpha",
    ),
    _problem(
        "the gap is half of what it is",
        "return objective, (objective - dual).clamp_(min=0)",
        "return objective, 0.5 * (objective - dual).clamp_(min=0)",
    ),
    _problem("the ridge is not in the Gram matrix", "    gram.diagonal().add_(ridge)\n", ""),
    _dictionaries(
        "atoms are moved one after another as if at once",
        "        step[j + 1 :].addr_(gram[j, j + 1 :], atoms[j] - before, alpha=-1)\n",
        "",
    ),
    _dictionaries(
        "sample weights do not count in the dictionary's gradient",
        "weighted = code if row_weight is None else code * row_weight.unsqueeze(1)",
        "weighted = code",
    ),
    # Stacks
    _stacking(
        "upper layers see codes that are not standardised",
        "            x = x if number == 0 else model.standardized(x)\n            yield prefix",
        "            yield prefix",
    ),
    _stacking(
        "constraints of the layers are forgotten in the whole",
        "project=project if any(model.project is not None for model in models) else None",
        "project=None",
        f"{_ENGINE}/stacks/test_stacking.py",
        f"{_FACE}/stacks/test_auto_encoder.py",
    ),
    _stacking(
        "the constant counts rows, not their weights",
        "total = x.new_ones(()) if row_weight is None else row_weight",
        "total = x.new_ones(())",
    ),
    _supervised(
        "rows without a target thin out the loss",
        "scale = self.weight / (self.labelled_fraction * len(batch.x))",
        "scale = self.weight / len(batch.x)",
    ),
    _supervised(
        "the output's weights decay twice as fast",
        'out["output_weight"].add_(matrix, alpha=self.weight_decay)',
        'out["output_weight"].add_(matrix, alpha=2 * self.weight_decay)',
    ),
    _supervised(
        "the layers' own criteria count whole",
        "out.flat.add_(self._scratch.flat, alpha=self.unsupervised_weight)",
        "out.flat.add_(self._scratch.flat)",
    ),
    _supervised(
        "rows move to where their loss is lowest",
        "alpha=self.adversarial_step)",
        "alpha=-self.adversarial_step)",
    ),
    # Tangents
    _tangents(
        "unlabelled rows count by all rows",
        "/ ((1 - self.labelled_fraction) * n)",
        "/ n",
    ),
    _tangents(
        "tangents of rows without a target count",
        "counted = change.square().sum(1) * arranged.target.sum(1)",
        "counted = change.square().sum(1) * len(change)",
    ),
    _distance(
        "the second plane's own directions stay in the rest",
        "rest = difference - steps @ x_bases - _combinations(along, bases)",
        "rest = difference - _combinations(along, bases)",
    ),
    # Images
    _images(
        "moments of blocks are added, not merged",
        "        self.scatter.addr_(change, change, alpha=self.n_rows * len(rows) / n_rows)\n",
        "",
    ),
    _images(
        "windows at the border are darkened",
        "maps = smoothed / (total.unsqueeze(1) if axis == 1 else total)",
        "maps = smoothed / sum(window.values())",
    ),
    _images(
        "the root of the pooled squares is forgotten",
        'pooled = pooled.sqrt() if kind == "l2" else pooled',
        "pass",
    ),
    # Fits that survive
    _resuming(
        "the generator does not go on where it was",
        '"now": run.generator.get_state()',
        '"now": None',
    ),
    _resuming("the algorithm of codes is chosen anew", "    run.objective.memory =", "    _ ="),
    _resuming("moments begin anew", '    run.state = placed(held["moments"])', "    pass"),
    _resuming("the watch begins anew", '    watch.state = placed(held["watch"])', "    pass"),
    _resuming(
        "the mean begins anew",
        '        run.average.state = placed(held["average"])',
        "        pass",
    ),
    _sessions(
        "a damaged file takes the place of the one before",
        "        if not self._is_good:\n            return",
        "        if False:\n            return",
    ),
    _sessions(
        "a full disk ends the fit",
        "        except OSError as error:\n            if not self._fails:",
        "        except ZeroDivisionError as error:\n            if not self._fails:",
    ),
    _sessions(
        "a fit of other data is gone on with",
        "            if differing:\n                raise ValueError(",
        "            if False:\n                raise ValueError(",
    ),
    _sessions(
        "the generator is not where a finished training left it",
        '    about.generator.set_state(torch.tensor(state["generator"]))',
        "    pass",
    ),
    _sessions(
        "curves of layers that learn together begin anew",
        "                curve[:] = before",
        "                pass",
    ),
    # Targets and diagnostics
    _targets(
        "predictions are not shifted back",
        "found = output * self.scale + self.mean",
        "found = output * self.scale",
    ),
    _targets(
        "the spread of targets ignores weights",
        "everyone.average((y - centre) ** 2, of_known)",
        "everyone.average((y - centre) ** 2)",
    ),
    _targets(
        "targets that do not vary are divided by their rounding errors",
        "spread * size if varies and spread * size > 0 else 1.0",
        "max(spread * size, 1e-300)",
        f"{_FACE}/supervised/test_regressor.py::test_a_target_that_does_not_vary_has_no_scale",
    ),
    _processes(
        "processes count alike, however many rows they have",
        "everyone.sum_(gradient.mul_(everyone.share))",
        "everyone.sum_(gradient.div_(everyone.size))",
    ),
    _processes(
        "held-out rows of other processes do not count",
        "sums = self.sum_(torch.tensor([float(total), float(n)], dtype=torch.float64))",
        "sums = torch.tensor([float(total), float(n)], dtype=torch.float64)",
    ),
    _processes(
        "columns are described by the rows of each process",
        "squares = np.where(totals > 0, stds, 0.0) ** 2 + (means - mean) ** 2",
        "squares = np.where(totals > 0, stds, 0.0) ** 2",
    ),
    Fault(
        "estimators/face/processes.py",
        "a seed for random_state=None is each process's own",
        "processes.current().first(_seeds.fresh_seed())",
        "_seeds.fresh_seed()",
        (f"{_FACE}/test_processes.py::test_processes_of_torch_distributed",),
    ),
    _dictionaries(
        "rows of the processes before count as this one's do",
        "(before + earlier + weight.cumsum(0))",
        "(before + weight.cumsum(0))",
        _SHARED,
    ),
    _spectra(
        "ranks are by singular values, not by their squares",
        "where=first > 0) ** 2, 1)",
        "where=first > 0), 1)",
    ),
]
