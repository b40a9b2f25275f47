"""How a run begins, goes on and ends: device, ranks, savedir, signals, errors."""
