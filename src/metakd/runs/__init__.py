"""A run: one folder with settings and data, where each result lies in it, and what each step depends on."""
