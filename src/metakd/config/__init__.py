"""Settings: each has its flag, YAML key, type, default, help and the paper's value in one place, `settings.Settings`.
"""
