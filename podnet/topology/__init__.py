"""The topology file: from YAML text to a checked ``podnet.model.topology.Topology``."""
