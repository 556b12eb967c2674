"""Parameters, networks, units, penalties, objectives and the training loop, on torch alone."""
