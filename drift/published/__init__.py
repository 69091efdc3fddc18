"""The publications that the study reproduces: their protocols, metrics and curves."""
