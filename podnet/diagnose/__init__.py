"""Why a packet was lost or changed: the way that the model predicts, what was seen, and what the kernel says."""
