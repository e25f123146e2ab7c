"""What `scripts/polynomial.py` trains, measures and draws."""
