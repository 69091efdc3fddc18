"""What an approximate nearest-neighbor index does to the shape of neighborhoods."""
