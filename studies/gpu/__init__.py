"""All that the project wants of a GPU, in slices of a few minutes, on a machine without network."""
