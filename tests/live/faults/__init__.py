"""One test for each fault that was once reproduced: lost silently, delivered twice, out of order, or a false gap."""
