"""`make mutants`: changes the gateway in thousands of small ways, and tells which of them no test notices."""
