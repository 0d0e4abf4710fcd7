"""The page and the JSON of `penstock serve`, on loopback."""
