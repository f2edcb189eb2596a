"""Netron."""
