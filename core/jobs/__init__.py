"""Analyses that run beside their caller."""
