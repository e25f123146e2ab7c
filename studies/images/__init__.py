"""What `scripts/images.py` trains, measures and draws."""
