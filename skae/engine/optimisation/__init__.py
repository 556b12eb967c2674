"""Parameters, rows, devices, and the one loop that trains every model."""
