"""The dashboard: controls become a `Policy`, results become charts. No arithmetic of its own."""

FOLDERS_VARIABLE = "QUANTSCAPE_ANALYSES"
"""Environment variable with the folders named at launch, separated like PATH."""
