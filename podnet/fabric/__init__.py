"""Fabrics: how nodes reach each other's pod CIDRs. One file per backend, all with the surface of ``hostgw``."""
