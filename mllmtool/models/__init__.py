"""Live models: parts, loading, names on disk, samples to tensors."""
