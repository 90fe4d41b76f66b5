"""The cell network that comes with the package: trained once, on real cells (docs/cell_network_card.md)."""
