"""What training needs beside the network: schedules, batches, state, log."""
