"""Tasks. A task of an existing format needs one yaml in `configs/task/`; a new format also needs one file here."""
