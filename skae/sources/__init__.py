"""Where users have their rows, found out by what it can do: files, chunks, partitions, batches."""
