"""What is computed from responses and scores: choices read, forgetting, statistics. Pure."""
