"""The steps of a validation, in order: finding, editing, steering, playing."""
