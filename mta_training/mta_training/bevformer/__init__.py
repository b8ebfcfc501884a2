"""Published BEVFormer: its checkpoints in our format, and our numbers beside its own."""
