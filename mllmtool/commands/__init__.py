"""One workflow each: `run(config, context, into) -> Made` and `plan(config, context) -> dict`."""
