"""Exporters: a map as what another tool consumes, with its names checked and its limits stated."""
