"""Mail: wording it, keeping it until it is sent, handing it over."""
