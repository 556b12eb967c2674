"""What auto-encoders know of the density of their data: moments, energies, chains."""
