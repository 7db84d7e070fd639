"""Which configurations the evidence tells apart, and how that is shown."""
