"""Boltzmann machines: energies, chains, learning, likelihoods."""
