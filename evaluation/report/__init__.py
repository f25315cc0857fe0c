"""Reports: tables, plots, one page of HTML."""
