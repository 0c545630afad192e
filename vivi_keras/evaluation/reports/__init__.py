"""Reports: tables of scores, comparisons and pictures."""
