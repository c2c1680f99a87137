"""The judges, by the rows of the table in docs/verdicts.md; `monitor` calls them."""
