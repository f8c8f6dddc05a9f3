"""Every setting in one place, `settings.Settings`: its flag, YAML key, type, default, help and the paper's value."""
