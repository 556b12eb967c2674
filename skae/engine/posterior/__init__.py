"""Parameters drawn from the law that an objective is the energy of."""
