"""The density that auto-encoders know: samples, local moments, energies."""
