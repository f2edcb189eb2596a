"""Figures in sentences: advice, explanations, corrections, the document's figures."""
