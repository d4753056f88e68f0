"""One frozen pydantic model a command: its flags, its recipe and the `config` of its report."""
