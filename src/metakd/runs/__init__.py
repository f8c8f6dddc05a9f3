"""A run: the settings and data of one folder, where its results are, and what each step depends on."""
