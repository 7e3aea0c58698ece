"""Whether this machine and this configuration can train: checks of minutes, before runs of days."""
