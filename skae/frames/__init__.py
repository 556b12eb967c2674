"""Data frames read, encoded as rows of numbers, and made again; knows no estimator."""
