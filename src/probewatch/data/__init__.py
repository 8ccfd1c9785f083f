"""From a log line to float32: readers, sessions, features, ragged arrays."""
