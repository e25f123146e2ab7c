"""What `scripts/compare.py` plans, spreads, measures and draws."""
