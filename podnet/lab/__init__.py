"""Running labs: their record on disk, and the verbs up, plan, status and down over the kernel."""
