"""Markov chains over the engine's functions: step functions, schedules, estimates from them."""
