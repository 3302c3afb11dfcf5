"""The verdicts of the probes as text and as JSON."""
