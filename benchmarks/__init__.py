"""`make bench`: the gateway beside its peers and beside the kernel's limit, in one run."""
