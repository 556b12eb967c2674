"""Auto-encoders: layers, units, corruptions, penalties, criteria and Jacobians."""
