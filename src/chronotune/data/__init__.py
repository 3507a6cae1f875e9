"""From a file to forecast windows: read, check, split by time, cut."""
