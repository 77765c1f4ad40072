"""Who may do what: tokens, and the grants that come of them."""
