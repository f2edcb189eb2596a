"""Trained sample models that ship with the project, each with its data pipeline."""
