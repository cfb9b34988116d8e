"""SFT, preference pairs and preference optimization, on TRL's trainers."""
