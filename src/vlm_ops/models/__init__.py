"""Model families, loading in 4 bit, adapters, generation, and the tiny base model."""
