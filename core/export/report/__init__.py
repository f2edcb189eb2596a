"""The report of a map: its chapters, as Markdown and as HTML."""
