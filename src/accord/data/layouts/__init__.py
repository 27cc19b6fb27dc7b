"""The layouts of rows that accord reads and writes, grouped by where they come from."""
