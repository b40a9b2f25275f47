"""What methods are made of: fusions, losses, frozen networks."""
