"""Several trainings as one: where fits meet, what each sees of its rows, and the loop for all."""
