"""The stores that come with the package, and the contract that others fulfil."""
