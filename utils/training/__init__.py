"""What training needs besides the network: schedules, batches, checks, state, records."""
