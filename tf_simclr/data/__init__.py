"""Images in: folders, TFDS data sets and arrays as sources, and the batches that follow from a seed."""
