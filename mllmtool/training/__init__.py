"""Fine-tuning: which parts learn, what they see, a thin subclass of `transformers.Trainer`."""
