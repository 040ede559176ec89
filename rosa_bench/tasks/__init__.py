"""Tasks. A task of a known format is one yaml in `configs/task/`; a new format is one file here as well."""
