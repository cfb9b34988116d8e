"""How the tiny base model is made. Nothing that a packaged model needs."""
