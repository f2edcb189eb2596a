"""Brevitas."""
