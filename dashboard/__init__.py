"""The dashboard: controls become a `Policy`, results become charts. No arithmetic of its own."""

FOLDERS_VARIABLE = "QUANTSCAPE_ANALYSES"
"""Environment variable with the folders named at launch, separated like PATH."""

SOURCES_VARIABLE = "QUANTSCAPE_SOURCES"
"""Environment variable with what may be measured beside the samples, as JSON: `sources`, functions
in Python files that were named at launch, and `cwd`, the folder that was current then."""
