"""Models, rules and servers as judges of answers: what they say, how far to trust it, and labels made of it."""
