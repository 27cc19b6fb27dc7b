"""Packaged demo data: prompts, demonstrations, comparisons. See DATASHEET.md."""
