"""Watch flows while something changes: probes at a steady rate, and what became of each of them."""
