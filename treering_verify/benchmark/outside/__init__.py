"""What comes from outside: `peers` lets other schemes decide, MarkDiffusion among them, `labelled` takes users' images."""
