"""Messages like those of an application, which compress as such."""

import json


def quotes(number: int) -> str:
    """The `number`th message: twenty prices as JSON."""
    return json.dumps([{"symbol": f"SYM{place}", "price": place * number, "currency": "EUR"} for place in range(20)])
