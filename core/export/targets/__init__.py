"""Exporters: a map as what another tool consumes, with its names checked and its limits stated.

A folder here is a tool. It holds, for each format of its files, a table `STEM.toml`
(`capability.Capability`) and a module `STEM.py` with `render(request) -> str`; a format is called
as its stem is, with dashes for underscores. Beside them lie the template that `render` fills in
(`STEM.py.tmpl`), what the format writes of a small model (`STEM.golden`), and, where the tool
itself proves its files, `requirements.txt` with a `test_TOOL.py` that `make test-interop-TOOL`
runs. `registry` finds the folders; files beside them are what tools share.
"""
