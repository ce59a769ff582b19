"""Data in, page out: self-contained HTML pages, Markdown, JSON and plots of what was measured."""
