"""What all estimators share: parameters, columns, fitting, warnings, progress."""
